"""Tests that run through a mutant, as the recorder has written them; those of its module come first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.mutate.recorder import recorded_lines, recorded_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from tools.mutate.mutants import Mutant


class RecordedTests:
    """The tests that passed, how long each took, and the lines that it runs through."""

    def __init__(self, directory: Path) -> None:
        self.seconds = recorded_seconds(directory)
        self._by_line = recorded_lines(directory)

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run through the statement; where an import does, those of its function or module."""
        by_line = self._by_line.get(mutant.module, {})
        wheres = [mutant.lines, mutant.around, list(by_line)] if mutant.at_import else [mutant.lines]
        some = ({test for line in where for test in by_line.get(line, ())} for where in wheres)
        found: set[str] = next(filter(None, some), set())
        own = {test for test in self.seconds if test.startswith(_mirror(mutant.module))}
        if mutant.at_import:  # a test may read a constant, and run through no line
            found |= own
        return sorted(found, key=lambda test: (test not in own, self.seconds[test], test))


def _mirror(module: str) -> str:
    """The tests of a module stand in the same folder, in a module that is named after it."""
    _, _, path = module.partition("/")
    folder, _, name = path.rpartition("/")
    return f"tests/{folder}/test_{name}".replace("//", "/")
