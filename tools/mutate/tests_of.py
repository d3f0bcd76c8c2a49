"""Tests that run through a mutant, as the recorder has written them; those of its module come first."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from coverage import CoverageData

from tools.mutate.recorder import LINES, recorded_seconds

if TYPE_CHECKING:
    from tools.mutate.mutants import Mutant


class RecordedTests:
    """The tests that passed, how long each took, and the lines that it runs through."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.seconds = recorded_seconds(directory)
        self._by_line: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for path in sorted(directory.glob(f"{LINES}*")):
            data = CoverageData(str(path))
            data.read()
            for file in data.measured_files():
                lines = self._by_line[str(Path(file).relative_to(root))]
                for line, contexts in data.contexts_by_lineno(file).items():
                    lines[line] |= self.seconds.keys() & contexts

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run through the statement; where an import does, those of its function or module."""
        by_line = self._by_line[mutant.module]
        wheres = [mutant.lines, mutant.around, list(by_line)] if mutant.at_import else [mutant.lines]
        found = next(filter(None, ({test for line in where for test in by_line[line]} for where in wheres)), set())
        own = {test for test in self.seconds if test.startswith(_mirror(mutant.module))}
        if mutant.at_import:  # a test may read a constant, and run through no line
            found |= own
        return sorted(found, key=lambda test: (test not in own, self.seconds[test], test))


def _mirror(module: str) -> str:
    """The tests of a module stand in the same folder, in a module that is named after it."""
    _, _, path = module.partition("/")
    folder, _, name = path.rpartition("/")
    return f"tests/{folder}/test_{name}".replace("//", "/")
