"""Mutants: small faults of a module's text, made from its syntax tree.

Invariants. A mutant changes one place, compiles, and is told from the others of its function by its diff and, where
two diffs are equal, by its number. The same text gives the same mutants in the same order. What `unseen`
names is left as it is.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tools.mutate.unseen import acts, is_figure, is_unseen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMPARISONS: Final = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
ARITHMETIC: Final = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "+"),
    ast.BitAnd: ("&", "|"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
UNGUARDED: Final = '__import__("contextlib").nullcontext()'
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: in `module`, the bytes from `start` to `end` become `text`.

    `lines` are those of the statement that it is in, and `around` those of its function or class. The statement may run
    `at_import`, before any test.
    """

    module: str
    function: str
    kind: str
    start: int
    end: int
    text: bytes
    lines: range
    around: range
    at_import: bool
    diff: tuple[str, ...] = ()
    number: int = 0

    @property
    def name(self) -> str:
        """Return the text that tells this mutant from all others."""
        return "\n".join((self.module, self.function, str(self.number), *self.diff))

    def of(self, source: bytes) -> bytes:
        """Return the text of the module with the fault."""
        return source[: self.start] + self.text + source[self.end :]


def mutants(module: str, source: bytes) -> list[Mutant]:
    """Make every mutant of a module, in the order of its text."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for mutant in sorted(_Finder(module, source).find(), key=lambda one: (one.start, one.end, one.kind, one.text)):
        faulty = mutant.of(source)
        try:
            compile(faulty, module, "exec")
        except SyntaxError:  # a place that takes no such change
            continue
        before, after = source.decode().splitlines(), faulty.decode().splitlines()
        changes = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:2] != "@@"][2:]
        named = replace(mutant, diff=tuple(line[0] + line[1:].strip() for line in changes))
        seen[named.name] = seen.get(named.name, -1) + 1
        found.append(replace(named, number=seen[named.name]))
    return found


def draw(from_all: Sequence[Mutant], count: int, seed: str) -> list[Mutant]:
    """Draw so many by the seed; a mutant that is made or goes elsewhere changes nothing about the others' turn."""
    return sorted(from_all, key=lambda one: hashlib.sha256(f"{seed}\n{one.name}".encode()).digest())[:count]


class _Finder:
    def __init__(self, module: str, source: bytes) -> None:
        self._module, self._source = module, source
        self._begins = [0]
        for line in source.splitlines(keepends=True):
            self._begins.append(self._begins[-1] + len(line))
        self._found: list[Mutant] = []
        self._function = ""
        self._at_import = True
        self._lines = self._around = range(1, len(self._begins))

    def find(self) -> list[Mutant]:
        self._block(ast.parse(self._source).body)
        return self._found

    def _at(self, line: int, column: int) -> int:
        return self._begins[line - 1] + column

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: PT018 both or none
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _text(self, node: ast.expr | ast.stmt) -> bytes:
        start, end = self._span(node)
        return self._source[start:end]

    def _add(self, kind: str, start: int, end: int, text: bytes) -> None:
        self._found.append(
            Mutant(self._module, self._function, kind, start, end, text, self._lines, self._around, self._at_import)
        )

    def _put(self, kind: str, node: ast.expr | ast.stmt, text: bytes | str) -> None:
        self._add(kind, *self._span(node), text if isinstance(text, bytes) else text.encode())

    def _between(self, kind: str, left: ast.expr, right: ast.expr, sound: str, faulty: str) -> None:
        start, end = self._span(left)[1], self._span(right)[0]
        word = sound if not sound[0].isalpha() else rf"\b{sound}\b"
        if match := re.search(word.encode(), self._source[start:end]):
            self._add(kind, start + match.start(), start + match.end(), faulty.encode())

    def _block(self, body: Sequence[ast.stmt]) -> None:
        for node in body:
            self._statement(node)
        for first, second in pairwise(body):
            if _may_change_places(first, second):
                (start, until), (begin, end) = self._span(first), self._span(second)
                text = self._text(second) + self._source[until:begin] + self._text(first)
                self._lines = range(first.lineno, (second.end_lineno or second.lineno) + 1)
                self._add("swapped", start, end, text)

    def _statement(self, node: ast.stmt) -> None:
        outside = self._function, self._lines, self._around, self._at_import
        end = node.end_lineno or node.lineno
        inner = [block for block in blocks(node) if block]
        self._lines = range(node.lineno, inner[0][0].lineno if inner else end + 1)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._function = f"{self._function}.{node.name}".removeprefix(".")
                self._around = range(node.lineno, end + 1)
                self._at_import = True
                self._defaults(node)
                self._at_import = isinstance(node, ast.ClassDef)
                if not is_unseen(node):
                    self._block(node.body)
            case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _ if is_unseen(node):
                pass
            case _:
                self._leave_out(node)
                for expression in _expressions(node):
                    self._expression(expression)
                for block in inner:
                    self._block(block)
        self._function, self._lines, self._around, self._at_import = outside

    def _defaults(self, node: Function | ast.ClassDef) -> None:
        if isinstance(node, ast.ClassDef):
            return
        ordered = [*node.args.posonlyargs, *node.args.args]
        named = zip(ordered[len(ordered) - len(node.args.defaults) :], node.args.defaults, strict=True)
        for argument, default in (*named, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)):
            if default is not None and not is_figure(argument.arg, default):
                self._expression(default)

    def _leave_out(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Call() | ast.Await()):
                self._put("dropped call", node, "pass")
            case ast.Raise():
                self._put("dropped raise", node, "pass")
            case ast.AugAssign() | ast.Delete() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                self._put("dropped change", node, "pass")
            case ast.With(items=items):
                for item in items:
                    if item.optional_vars is None:
                        self._put("unguarded", item.context_expr, UNGUARDED)
            case ast.If(test=test) | ast.While(test=test):
                self._negate(test)
            case _:
                pass
        if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            sound, faulty = ARITHMETIC[type(node.op)]
            self._between("arithmetic", node.target, node.value, sound, faulty)

    def _negate(self, test: ast.expr) -> None:
        """A condition that is no comparison is turned round; a comparison is changed where it stands."""
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr | ast.Subscript):
            self._put("condition", test, b"not (" + self._text(test) + b")")

    def _expression(self, node: ast.expr) -> None:
        if isinstance(node, ast.JoinedStr):
            return
        self._logic(node)
        match node:
            case ast.Constant(value=bool() as value):
                self._put("constant", node, str(not value))
            case ast.Constant(value=int() | float() as value):
                self._put("constant", node, repr(value + 1 if abs(value) <= 100 else value * 2))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                self._between("arithmetic", left, right, *ARITHMETIC[type(op)])
            case _:
                pass
        for child in _children(node):
            self._expression(child)

    def _logic(self, node: ast.expr) -> None:
        match node:
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                for one, op, other in zip((left, *comparators), ops, comparators, strict=False):
                    self._between("comparison", one, other, *COMPARISONS[type(op)])
            case ast.BoolOp(values=values, op=op):
                sound, faulty = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
                self._between("condition", values[0], values[1], sound, faulty)
                for left_out in values:
                    rest = [b"(" + self._text(one) + b")" for one in values if one is not left_out]
                    joined = f" {sound} ".encode().join(rest)
                    self._put("condition", node, joined if len(rest) == 1 else b"(" + joined + b")")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._put("condition", node, b"(" + self._text(operand) + b")")
            case ast.IfExp(test=test):
                self._negate(test)
            case ast.ListComp(generators=loops) | ast.SetComp(generators=loops) | ast.GeneratorExp(generators=loops):
                for test in (test for loop in loops for test in loop.ifs):
                    self._negate(test)
            case _:
                pass


def blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements that a statement has, in the order of the text."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for part in (block := getattr(node, name, [])):
            if isinstance(part, ast.ExceptHandler | ast.match_case):
                yield part.body
        if block and isinstance(block[0], ast.stmt):
            yield block


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement itself, without annotations, docstrings and the messages of errors."""
    match node:
        case ast.AnnAssign(value=value):
            yield from [value] if value is not None else []
        case ast.Expr(value=ast.Constant()) | ast.Raise():
            pass
        case ast.Match(subject=subject, cases=cases):
            yield subject
            yield from (case.guard for case in cases if case.guard is not None)
        case ast.With(items=items):
            yield from (item.context_expr for item in items)
        case _:
            yield from (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))


def _children(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif not isinstance(child, ast.arguments) and not is_unseen(child):
            yield from _children(child)


def _may_change_places(first: ast.stmt, second: ast.stmt) -> bool:
    """Tell whether both do something, and neither only gives the other its names."""
    for one in (first, second):
        if not isinstance(one, ast.Expr | ast.Assign | ast.AugAssign) or is_unseen(one):
            return False
        if not any(map(acts, ast.walk(one))):
            return False
    return not (
        _names(first, ast.Store) & (_names(second, ast.Load)) or _names(second, ast.Store) & _names(first, ast.Load)
    )


def _names(node: ast.stmt, context: type[ast.expr_context]) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, context)}
