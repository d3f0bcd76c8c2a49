"""Deeds, and cuts: deeds in the midst of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HERE: Final = -1  # the chunk that a cut, or the rule, is about


class Killed(BaseException):
    """The process at work is gone, between two of its steps."""


@dataclass(frozen=True)
class Deed:
    """One deed: `kind` names a method; `tied`: within the same tick as the deed before."""

    kind: str
    chunk: int = HERE
    version: int = 0
    how: str = ""
    tied: bool = False

    def on(self, chunk: int) -> Deed:
        return replace(self, chunk=chunk) if self.chunk == HERE else self


@dataclass(frozen=True)
class Cut:
    """Deeds that are done when `point` is reached for the `nth` time, amid another one."""

    point: str
    nth: int
    deeds: tuple[Deed, ...]
    chunk: int = HERE

    def on(self, chunk: int) -> Cut:
        return replace(self, chunk=chunk, deeds=tuple(deed.on(chunk) for deed in self.deeds))
