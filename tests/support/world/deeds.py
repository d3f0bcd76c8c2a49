"""Deeds, and cuts: deeds in the midst of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HERE: Final = -1  # the chunk that a cut, or the rule, is about

# All deeds, and how each may be done. `version`: of the three that a chunk has; else what is said here.
WAYS: Final[dict[str, tuple[str, ...]]] = {
    # who asks (others.py): a client does it under the lock of intents; the rest is what a shell does
    "want": ("client", "cp", "mv"),
    "delete": ("client", "touch"),
    "rm_want": ("",),
    "rm_delete": ("",),
    "touch_want": ("",),
    "verify": ("client", "touch"),
    # who registers, and has fetched or evicted what is registered (others.py)
    "register": ("client", "mv"),
    "rm_known": ("",),
    "acquire": ("",),
    "evict": ("",),
    "gc": ("",),
    # what goes wrong (others.py)
    "spoil": ("half", "other", "directory", "symlink"),  # something at want/ID that is no want
    "damage": ("byte", "short", "gone"),  # of a file of what is here; version: which file
    "fault": ("transient", "permanent"),  # of the source, the next time that it is asked
    "wait": ("blink", "second", "while", "long"),  # the clock goes on: 0.01, 1, 4, 400 s
    # who reads (readers.py); version: which block, or which ref
    "find": ("client", "neighbour", "passer-by"),  # takes a ref, and keeps it; a passer-by lets go at once
    "clone": ("",),
    "close_ref": ("",),
    # the reconciler (reconciling.py)
    "look": ("",),  # one pass of its loop; what it decides is dispatched, and not yet done
    "settle": ("",),  # passes with their work, until there is nothing more to be done now
    "stop": ("",),  # SIGKILL between two deeds
    # only in a cut
    "kill": ("",),  # SIGKILL of who is at work there
    "refuse": ("",),  # ENOSPC for the step that is about to be made
}


class Killed(BaseException):
    """The process at work is gone, between two of its steps."""


@dataclass(frozen=True)
class Deed:
    """One deed, one of WAYS: `kind` names a method; `tied`: within the same tick as the deed before."""

    kind: str
    chunk: int = HERE
    version: int = 0
    how: str = ""
    tied: bool = False

    def __post_init__(self) -> None:
        ways = WAYS.get(self.kind)
        assert ways is not None, f"there is no deed {self.kind!r}: {', '.join(WAYS)}"
        assert self.how in ways, f"{self.kind} is not done by {self.how!r}: how={' or '.join(map(repr, ways))}"

    def on(self, chunk: int) -> Deed:
        return replace(self, chunk=chunk) if self.chunk == HERE else self


@dataclass(frozen=True)
class Cut:
    """Deeds that are done when `point` (of `points.ALL`) is reached for the `nth` time, amid another one."""

    point: str
    nth: int
    deeds: tuple[Deed, ...]
    chunk: int = HERE

    def on(self, chunk: int) -> Cut:
        return replace(self, chunk=chunk, deeds=tuple(deed.on(chunk) for deed in self.deeds))
