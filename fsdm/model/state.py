"""The state on disk as values: a marker, one chunk, a snapshot of all that is pending.

Pure. A ref cannot be seen on disk, so "in use" is no state: it is an outcome of an action.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from fsdm.model.layout import Place

RACY_NS: Final = 20_000_000  # two ticks of a kernel with HZ=100
COARSE_NS: Final = 2_000_000_000 + RACY_NS  # FAT counts in two seconds; ext4 with inodes of 128 bytes, HFS in one


def granule_ns(time_ns: int) -> int:
    """Return for how long the file system that gave this time may give the same one again."""
    return RACY_NS if time_ns % 10_000_000 else COARSE_NS


def may_repeat(time_ns: int, now: float) -> bool:
    """Return whether a file system with coarse times may still give this one to something newer."""
    return granule_ns(time_ns) == COARSE_NS and abs(now - time_ns / 1e9) <= COARSE_NS / 1e9


@dataclass(frozen=True, slots=True)
class Marker:
    """An entry of a directory of markers at one moment; `fault` says why it is no intent.

    `text` is what was read of it, where it was: numbers of inodes and coarse times are given away again.
    """

    ino: int
    ctime_ns: int
    mtime_ns: int
    size: int
    fault: str | None = None
    text: bytes | None = field(default=None, compare=False, repr=False)

    def read_as(self, text: bytes) -> Marker:
        return replace(self, text=text)

    def age_s(self, now: float) -> float:
        """Tell how long ago it was placed; 0 where the clock was set back since."""
        return max(now - self.ctime_ns / 1e9, 0.0)

    @property
    def registered_ns(self) -> int:
        """The time of a registration: a copy of it is no later one, whatever its ctime."""
        return min(self.ctime_ns, self.mtime_ns)

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

    `known` is looked at only where a want, a delete, an acquire or a failure stands: by itself it asks for nothing.
    `asked` tells by whom `acquire` does: a process that waits (`held`), one that has touched it, or nobody any more. Of
    the unready ones, the `quarantined` still have the want that they came of: they come back, unless they are deleted.
    """

    id: str
    want: Marker | None = None
    delete: Marker | None = None
    verify: Marker | None = None
    known: Marker | None = None
    acquire: Marker | None = None
    asked: Literal["", "touched", "held"] = ""
    evict: Marker | None = None
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
            and all(one is None or one.fault is not None for one in (self.verify, self.acquire, self.evict))
            and self.partial is Partial.NONE
            and not self.unready
            and not self.failed
        )

    @property
    def asks_nothing(self) -> bool:
        """Return whether nobody asks for anything of it, and nothing of it is left over."""
        return self.at_rest or (self.failed and replace(self, failed=False).at_rest)


State = Literal["wanted", "downloading", "available", "retiring", "deleting", "failed", "waiting", "unready"]
Standing = Literal[State, "known"]  # registered, and nothing else: no listing has it


def name_of(state: ChunkState, failure_kind: str | None, *, given_up: bool = False) -> State | None:
    """Name the state of a chunk that was looked at; `failure_kind` and `given_up` are what `failed/ID` says."""
    return name_by(
        want=state.want is not None or (state.acquire is not None and state.asked != ""),
        delete=state.delete is not None,
        partial=state.partial is not Partial.NONE,
        ready=bool(state.ready),
        unready=bool(state.unready),
        failed=state.failed,
        failure_kind=failure_kind,
        given_up=given_up,
    )


def name_by(
    *,
    want: bool,
    delete: bool,
    partial: bool,
    ready: bool,
    unready: bool,
    failed: bool,
    failure_kind: str | None,
    given_up: bool = False,
) -> State | None:
    """Name the state of a chunk (see `ChunkStatus`) by what there is of it; None for nothing."""
    if delete and (ready or unready):
        return "retiring"
    if ready:
        return "available"
    if failed and want and failure_kind == "room":
        return "waiting"
    if failed and (given_up or not (want and failure_kind == "damaged")):  # what is damaged and wanted comes again
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
