"""The state on disk as values: a marker, one chunk, a snapshot of all that is pending.

Pure. A ref cannot be seen on disk, so "in use" is no state: it is an outcome of an action.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fsdm.model.layout import Place


@dataclass(frozen=True, slots=True)
class Marker:
    """An entry of a directory of markers at one moment; `fault` says why it is no intent."""

    ino: int
    ctime_ns: int
    mtime_ns: int
    size: int
    fault: str | None = None

    @property
    def identity(self) -> tuple[int, int, int]:
        """Its key: a newer marker has another. ctime does not count: a rename changes it."""
        return self.ino, self.mtime_ns, self.size

    def same_as(self, other: Marker | None) -> bool:
        return other is not None and self.identity == other.identity


class Partial(Enum):
    """The progress of `partial/ID`."""

    NONE = "none"
    BEGUN = "begun"
    READY = "ready"  # complete, with its manifest: only the publishing rename is missing


@dataclass(frozen=True, slots=True)
class ChunkState:
    """The state of one id on disk: `ready` and `unready` are its directories, by READY.

    Of the unready ones, the `quarantined` still have the want that they came of: they come back, unless they are
    deleted.
    """

    id: str
    want: Marker | None = None
    delete: Marker | None = None
    verify: Marker | None = None
    partial: Partial = Partial.NONE
    ready: tuple[Place, ...] = ()
    unready: tuple[Place, ...] = ()
    quarantined: tuple[Place, ...] = ()
    failed: bool = False

    @property
    def at_rest(self) -> bool:
        """Return whether nothing of it can need an action."""
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
    """Name the state of a chunk that was looked at; `failure_kind` is what `failed/ID` says."""
    return name_by(
        want=state.want is not None,
        delete=state.delete is not None,
        partial=state.partial is not Partial.NONE,
        ready=bool(state.ready),
        unready=bool(state.unready),
        failed=state.failed,
        failure_kind=failure_kind,
    )


def name_by(
    *, want: bool, delete: bool, partial: bool, ready: bool, unready: bool, failed: bool, failure_kind: str | None
) -> State | None:
    """Name the state of a chunk (see `ChunkStatus`) by what there is of it; None for nothing."""
    if delete and (ready or unready):
        return "retiring"
    if ready:
        return "available"
    if failed and want and failure_kind == "room":
        return "waiting"
    if failed and not (want and failure_kind == "damaged"):  # what is damaged and wanted is fetched again
        return "failed"
    if want:
        return "downloading" if partial else "wanted"
    if unready:
        return "unready"
    return "deleting" if delete or partial else None


@dataclass(frozen=True, slots=True)
class Oddity:
    """An entry of the data directory that is ignored, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ids with a marker, a partial or a failure, and the entries that are none of these."""

    ids: frozenset[str]
    oddities: tuple[Oddity, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Damage found in a chunk's bytes, and the READY that they were compared with."""

    why: str
    ready: Marker
