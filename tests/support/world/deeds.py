"""Deeds, and cuts: deeds in the midst of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HERE: Final = -1  # the chunk that a cut, or the rule, is about


class Killed(BaseException):
    """The process at work is gone, between two of its steps."""


@dataclass(frozen=True)
class Deed:
    """One deed: `kind` is a method of the parts of a World. `tied`: within the same tick as the deed before."""

    kind: str
    chunk: int = HERE
    version: int = 0
    how: str = ""
    tied: bool = False

    def on(self, chunk: int) -> Deed:
        return replace(self, chunk=chunk) if self.chunk == HERE else self


@dataclass(frozen=True)
class Cut:
    """Deeds that are done at the `nth` time that `point` is reached (for `chunk`), in the middle of something else."""

    point: str
    nth: int
    deeds: tuple[Deed, ...]
    chunk: int = HERE

    def on(self, chunk: int) -> Cut:
        return replace(self, chunk=chunk, deeds=tuple(deed.on(chunk) for deed in self.deeds))
