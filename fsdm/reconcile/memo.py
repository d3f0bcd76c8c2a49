"""The memo of one id: what the reconciler remembers between two looks. Only `results` writes memos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fsdm.store.json_files import read_failure

if TYPE_CHECKING:
    from fsdm.model.documents import Failure
    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import ChunkState, Found, Marker


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A want that could not be taken, since when it has lain still, and whether to read it once more then."""

    want: Marker
    error: str
    hint: str
    since: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """A request to verify: `answered`, still being read, or to be tried again (`again_at`)."""

    verify: Marker
    answered: bool = False
    again_at: float | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """A use that was noted: the marker that told of it, and when."""

    acquire: Marker
    at: float


@dataclass(frozen=True, slots=True)
class Memo:
    """The memo of one id.

    `want_alone` is the last want that was seen while no delete stood: if it still stands beside a delete of the same
    ctime, then that delete is the later one. `unregistered` is a registration that could not be read. `suspect` is a
    place whose files were seen not to match its READY, or whose bytes do not, as was `found`. `asked` is the request to
    verify them. `used` is the last use that was noted.
    `crowded`: a fetch waits for the room that this one's partial takes up; so it gives way.
    `held_until` is when a directory that refs keep is tried again, after `held` refusals in a row.
    """

    want_alone: Marker | None = None
    unreadable: Unreadable | None = None
    unregistered: Unreadable | None = None
    failure: Failure | None = None
    reported: bool = True
    suspect: Place | None = None
    found: Found | None = None
    asked: VerifyRequest | None = None
    used: Used | None = None
    crowded: bool = False
    held: int = 0
    held_until: float = 0.0


NO_MEMO: Final = Memo()


def observe(layout: Layout, state: ChunkState, memo: Memo | None = None) -> Memo:
    """Update a memo by a look at the disk; a new one takes over what `failed/ID` says."""
    if memo is None:
        failure = read_failure(layout, state)
        # what waited for room did so under other limits, and maybe on another disk
        memo = Memo(failure=failure if failure is None or failure.kind != "room" else None)
    if state.want is not None and state.delete is None and not state.want.same_as(memo.want_alone):
        memo = replace(memo, want_alone=state.want)
    return memo
