"""Survivors that are explained: a change that nobody can see from outside, and why.

Each entry of the file names module, function and diff. Invariant: an entry that no mutant matches, or whose mutant a
test catches, is an error, so that the file says nothing about code that is gone.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tools.mutate.mutants import Mutant


@dataclass(frozen=True, slots=True)
class Explained:
    """The reason why the mutants of this diff survive; `number` tells which of several equal ones, if not all."""

    module: str
    function: str
    diff: tuple[str, ...]
    why: str
    number: int | None = None

    def matches(self, mutant: Mutant) -> bool:
        """Tell whether this explains the mutant."""
        mine = self.module, self.function, self.diff
        return mine == (mutant.module, mutant.function, mutant.diff) and self.number in {None, mutant.number}

    def __str__(self) -> str:
        return f"{self.module} {self.function} {' '.join(self.diff)}"


def read_explained(path: Path) -> list[Explained]:
    """Read the file; raise `ValueError` for an entry that lacks a field, or says no reason."""
    found = []
    for entry in tomllib.loads(path.read_text())["equivalent"]:
        if set(entry) - {"number"} != {"module", "function", "diff", "why"} or not entry["why"].strip():
            raise ValueError(f"{path}: an entry has module, function, diff and why (and a number): {entry}")
        lines = tuple(line[0] + line[1:].strip() for line in entry["diff"].strip().splitlines())
        found.append(Explained(entry["module"], entry["function"], lines, entry["why"], entry.get("number")))
    return found
