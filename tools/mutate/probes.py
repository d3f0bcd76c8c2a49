"""Probes: a call before each statement that is asked for, so that a test is known by the statements that it runs.

A tracer is told of every line, and makes tests of pure functions five times as slow; a probe costs nothing where nobody
has asked for one. Invariant: only what stands in a function has a probe, for an import belongs to no test.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.mutate.mutants import Function, blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import CodeType, ModuleType

CALLED: Final = "__mutate_probe__"
Lines = dict[str, list[int]]  # by module, as a path from the root


class Probes(MetaPathFinder):
    """The modules of a package are imported with probes: at all statements, or at those that begin on these lines."""

    def __init__(self, root: Path, package: str, lines: Mapping[str, Collection[int]] | None) -> None:
        self.places: list[tuple[str, int]] = []  # by the number of its probe
        self._root, self._package, self._lines = root, package, lines
        self.hits()

    def install(self) -> None:
        """Have what is imported from now on probed."""
        sys.meta_path.insert(0, self)

    def hits(self) -> set[int]:
        """Begin anew; return the set to which the numbers of the probes that are reached are added."""
        numbers: set[int] = set()
        setattr(builtins, CALLED, numbers.add)
        return numbers

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the package, to be loaded with its probes."""
        if fullname.partition(".")[0] != self._package:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
            return spec
        module = os.path.relpath(spec.origin, self._root)
        if self._lines is None or module in self._lines:
            spec.loader = _Loader(fullname, spec.origin, self, module)
        return spec

    def plant(self, source: bytes, module: str) -> ast.Module:
        """Parse a module, and put a probe before each statement that is to have one."""
        tree = ast.parse(source)
        self._in_block(tree.body, module, None if self._lines is None else self._lines[module], inside=False)
        return ast.fix_missing_locations(tree)

    def _in_block(self, block: list[ast.stmt], module: str, lines: Collection[int] | None, *, inside: bool) -> None:
        planted: list[ast.stmt] = []
        for node in block:
            for inner in [*blocks(node)]:
                self._in_block(inner, module, lines, inside=inside or isinstance(node, Function))
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if inside and not is_docstring and (lines is None or node.lineno in lines):
                planted.append(self._probe(node, module))
            planted.append(node)
        block[:] = planted

    def _probe(self, node: ast.stmt, module: str) -> ast.stmt:
        self.places.append((module, node.lineno))
        call = ast.Call(ast.Name(CALLED, ast.Load()), [ast.Constant(len(self.places) - 1)], [])
        return ast.copy_location(ast.Expr(ast.copy_location(call, node)), node)


class _Loader(SourceFileLoader):
    """Compiles a module with its probes, and keeps nothing of that on disk."""

    def __init__(self, fullname: str, path: str, probes: Probes, module: str) -> None:
        super().__init__(fullname, path)
        self._probes, self._module = probes, module

    def get_code(self, _fullname: str) -> CodeType:
        tree = self._probes.plant(Path(self.path).read_bytes(), self._module)
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code
