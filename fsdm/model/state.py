"""What a look at the disk found out, as values: a marker, the state of one chunk, a snapshot of what is pending.

Pure. A ref cannot be seen on disk, so "in use" is nowhere here: it is an outcome of trying.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fsdm.model.layout import Place


@dataclass(frozen=True, slots=True)
class Marker:
    """An entry of `want/`, `delete/` or `verify/` as it was when somebody looked; `fault` says why it is no intent."""

    ino: int
    ctime_ns: int
    mtime_ns: int
    size: int
    fault: str | None = None

    @property
    def identity(self) -> tuple[int, int, int]:
        """What tells a marker from a newer one of the same name. ctime does not count: a rename changes it."""
        return self.ino, self.mtime_ns, self.size

    def same_as(self, other: Marker | None) -> bool:
        """Whether both are one and the same marker, unchanged."""
        return other is not None and self.identity == other.identity


class Partial(Enum):
    """What is in `partial/ID`."""

    NONE = "none"
    BEGUN = "begun"
    READY = "ready"  # complete, with its manifest: only the publishing rename is missing


@dataclass(frozen=True, slots=True)
class ChunkState:
    """All that the disk says about one id. `ready` and `unready` are its directories in `chunks/`, by READY.

    Of the unready ones, the `condemned` still have the want that they came of: they come back, unless a delete stands.
    """

    id: str
    want: Marker | None = None
    delete: Marker | None = None
    verify: Marker | None = None
    partial: Partial = Partial.NONE
    ready: tuple[Place, ...] = ()
    unready: tuple[Place, ...] = ()
    condemned: tuple[Place, ...] = ()
    failed: bool = False

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing about it that could ask for anything."""
        return (
            self.want is None
            and self.delete is None
            and (self.verify is None or self.verify.fault is not None)
            and self.partial is Partial.NONE
            and not self.unready
            and not self.failed
        )


State = Literal["wanted", "downloading", "available", "retiring", "deleting", "failed", "waiting", "unready"]


def name_of(state: ChunkState, failure_kind: str | None) -> State | None:
    """How a chunk stands, in a word (see `ChunkStatus`); None where there is nothing of it.

    `failure_kind` is the kind that `failed/ID` says, where it can be read.
    """
    deleted = state.delete is not None
    if deleted and (state.ready or state.unready):
        return "retiring"
    if state.ready:
        return "available"
    if state.failed and state.want is not None and failure_kind == "room":
        return "waiting"
    failed = state.failed and not (state.want is not None and failure_kind == "damaged")  # then it is fetched again
    if state.partial is not Partial.NONE and state.want is not None:
        return "downloading" if not failed else "failed"
    if failed:
        return "failed"
    if state.want is not None:
        return "wanted"
    if state.unready:
        return "unready"
    return "deleting" if deleted or state.partial is not Partial.NONE else None


@dataclass(frozen=True, slots=True)
class Oddity:
    """An entry of the data directory that is not read: where it is, and why it is left alone."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is pending: the ids that a marker, a partial or a failure names, and what is none of these."""

    ids: frozenset[str]
    oddities: tuple[Oddity, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found wrong with the bytes of a chunk, and as what its READY stood there meanwhile."""

    why: str
    ready: Marker
