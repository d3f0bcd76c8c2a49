"""Faults of tests: an assertion about time, a sleep, and a test that asserts nothing.

A test asserts by itself, or by a function of its module, of a fixture's module or of `tests.support` that does. Making
chunks (`tests.support.chunks`) is preparation, whatever is asserted on the way.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

TESTS = Path(__file__).parents[1]
BOUNDED_WAITS = {
    "tests.support.waiting",
    "tests.support.browser",
}  # that end with an assertion, and are to be used by all
PREPARATION = {"tests.support.chunks"}
RUNS_ASSERTIONS = {"raises", "warns", "fail", "run_state_machine_as_test", "live"}
CLOCKS = {
    *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"),
    *("process_time_ns", "thread_time", "thread_time_ns", "now", "utcnow"),
}
STILL_TIMES = {"abs", "min", "max", "round", "int", "float", "sum", "total_seconds", "timestamp"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def faults(tree: ast.Module, asserting_helpers: AbstractSet[str]) -> list[str]:
    """Return the faults of a test module, each with its line."""
    known = asserting(tree, asserting_helpers)
    found = [(one.lineno, f"{one.name} asserts nothing") for one in _tests(tree) if not _asserts(one, known)]
    return [f"line {line}: {what}" for line, what in sorted([*found, *_by_a_clock(tree), *_sleeps(tree)])]


def helpers(modules: Mapping[str, ast.Module]) -> set[str]:
    """Return the functions and fixtures of the tests' support that assert."""
    return {name for module, tree in modules.items() if module not in PREPARATION for name in _own(tree, set())}


def asserting(tree: ast.Module, asserting_helpers: AbstractSet[str]) -> set[str]:
    """Return the names that assert, where a test of this module calls them or takes them as fixtures."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.")
        for alias in node.names
        if node.module not in PREPARATION
    }
    taken = {name for one in _functions(tree) for name in _takes(one)}
    return _own(tree, asserting_helpers & (imported | taken) | RUNS_ASSERTIONS)


def _own(tree: ast.AST, known: AbstractSet[str]) -> set[str]:
    found = set(known)
    every = [one for one in _functions(tree) if not one.name.startswith("test_")]
    while more := {one.name for one in every if one.name not in found and _asserts(one, found)}:
        found |= more
    return found


def _asserts(function: Function, known: AbstractSet[str]) -> bool:
    asserts = any(isinstance(node, ast.Assert) for node in ast.walk(function))
    return asserts or bool((_calls(function) | _takes(function)) & known)


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _tests(tree: ast.AST) -> Iterator[Function]:
    return (one for one in _functions(tree) if one.name.startswith("test_"))


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _calls(node: ast.AST) -> set[str]:
    """The names that are called, or given to a function that calls them."""
    return {_name(one) for call in ast.walk(node) if isinstance(call, ast.Call) for one in (call.func, *call.args)}


def _takes(function: Function) -> set[str]:
    """The fixtures of a function."""
    marked = {one.value for mark in function.decorator_list for one in ast.walk(mark) if isinstance(one, ast.Constant)}
    return {argument.arg for argument in function.args.args} | {name for name in marked if isinstance(name, str)}


def _is_time(node: ast.AST, names: AbstractSet[str]) -> bool:
    """Whether the value is read from a clock, or calculated from what is; a deadline that is passed on is not."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="time" | "datetime"), attr=attr)) if attr in CLOCKS:
            return True
        case ast.Call(func=func, args=args):
            inner = [*args, *([func.value] if isinstance(func, ast.Attribute) else [])]
            return _name(func) in STILL_TIMES and any(_is_time(one, names) for one in inner)
        case ast.Name(id=name):
            return name in names
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.BoolOp():
            return any(_is_time(one, names) for one in ast.iter_child_nodes(node))
        case _:
            return False


def _by_a_clock(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for function in _functions(tree):
        names: set[str] = set()
        for node in ast.walk(function):
            match node:
                case ast.Assign(targets=targets, value=value) if _is_time(value, names):
                    names |= {one.id for one in targets if isinstance(one, ast.Name)}
                case ast.NamedExpr(target=target, value=value) if _is_time(value, names):
                    names.add(target.id)
                case ast.Assert(test=test) if _is_time(test, names):
                    yield node.lineno, f"{function.name} asserts by a clock"
                case _:
                    pass


def _sleeps(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="sleep")):
                yield node.lineno, "sleeps"
            case ast.ImportFrom(module="time", names=names) if any(one.name == "sleep" for one in names):
                yield node.lineno, "imports sleep"


def modules() -> dict[str, ast.Module]:
    """Return all modules of the tests, by name."""
    return {
        ".".join(("tests", *path.relative_to(TESTS).with_suffix("").parts)): ast.parse(path.read_bytes())
        for path in sorted(TESTS.rglob("*.py"))
    }


def faults_of_all(trees: Mapping[str, ast.Module]) -> Iterable[str]:
    """Yield the faults of all test modules."""
    support = {name: tree for name, tree in trees.items() if ".test_" not in name}
    known = helpers(support)
    for name, tree in trees.items():
        if name not in BOUNDED_WAITS:
            yield from (f"{name}: {fault}" for fault in faults(tree, known))
