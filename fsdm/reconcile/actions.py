"""Actions and outcomes as values: `plan` decides on an action, `apply` returns an outcome.

An action says what it acts on as it was seen: the marker, the place. `apply` looks whether that still is so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fsdm.model.documents import DataChunk, Failure, Manifest
    from fsdm.model.errors import FsdmError, InvalidInputError
    from fsdm.model.layout import Place
    from fsdm.model.limits import Recover
    from fsdm.model.state import Found, Marker

# -------------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class Action:
    """One effect on one id. There are no others than those below."""

    id: str


@dataclass(frozen=True, slots=True)
class Fetch(Action):
    """Fetch the wanted files into `partial/ID`, and write their manifest.

    `known`: as `known/ID` names them, and who asks for it does so since `asked_ns`.
    """

    want: Marker
    known: bool = False
    asked_ns: int = field(default=0, compare=False)

    @property
    def since_ns(self) -> int:
        """The time by which it takes its turn among others: its registration says nothing of that."""
        return self.asked_ns if self.known else self.want.ctime_ns


@dataclass(frozen=True, slots=True)
class Publish(Action):
    """Rename the complete `partial/ID` into `chunks/`, and remove the want; `known`: as `known/ID` asks for.

    `fetched` is what has just been written there, and need not be read again.
    """

    want: Marker
    known: bool = False
    fetched: Fetched | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Confirm(Action):
    """Remove the want of a chunk that is here; take other files out of service."""

    want: Marker
    place: Place


@dataclass(frozen=True, slots=True)
class Overrule(Action):
    """Remove the earlier one of two opposite markers."""

    loser: Literal["want", "delete"]
    want: Marker
    delete: Marker


@dataclass(frozen=True, slots=True)
class Register(Action):
    """Remove the want or the delete that a later registration has overruled."""

    loser: Literal["want", "delete"]
    overruled: Marker
    known: Marker


@dataclass(frozen=True, slots=True)
class Unregister(Action):
    """Remove the registration of a chunk that was deleted after it."""

    known: Marker
    delete: Marker


@dataclass(frozen=True, slots=True)
class Use(Action):
    """Note that a chunk that may be evicted is used."""

    place: Place
    acquire: Marker


@dataclass(frozen=True, slots=True)
class ClearAcquire(Action):
    """Remove the acquire marker: nobody asks by it any more."""

    acquire: Marker


@dataclass(frozen=True, slots=True)
class Evict(Action):
    """Take a registered chunk out of `chunks/` that nobody wants or holds, and remove the request."""

    place: Place
    evict: Marker


@dataclass(frozen=True, slots=True)
class ClearEvict(Action):
    """Remove a request to evict what is not to go, or not here."""

    evict: Marker


@dataclass(frozen=True, slots=True)
class Retire(Action):
    """Take a deleted chunk out of `chunks/`, once no ref is held."""

    place: Place
    delete: Marker


@dataclass(frozen=True, slots=True)
class Clear(Action):
    """Take a directory without READY out of `chunks/`, once no ref is held."""

    place: Place


@dataclass(frozen=True, slots=True)
class Discard(Action):
    """Trash `partial/ID`: its chunk is deleted or withdrawn."""


@dataclass(frozen=True, slots=True)
class Forget(Action):
    """Remove the delete marker of a chunk that is gone."""

    delete: Marker


@dataclass(frozen=True, slots=True)
class Quarantine(Action):
    """Take a damaged chunk out of service: it gets no new refs, and is cleared after the last.

    `found` is what reading its bytes found; without it the chunk is only suspected, and names and sizes are compared.
    `recover` says what has it fetched again.
    """

    place: Place
    found: Found | None = None
    recover: Recover = "now"


@dataclass(frozen=True, slots=True)
class Renew(Action):
    """Ask again for a quarantined chunk, by the want that it came of."""

    place: Place


@dataclass(frozen=True, slots=True)
class Verify(Action):
    """Begin to compare a chunk's bytes with its READY, as a marker asks for."""

    place: Place
    verify: Marker


@dataclass(frozen=True, slots=True)
class ClearVerify(Action):
    """Remove the verify marker: the bytes have been compared, or there are none."""

    verify: Marker


@dataclass(frozen=True, slots=True)
class Report(Action):
    """Write `failed/ID`."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class ClearFailure(Action):
    """Remove `failed/ID`: nothing is wrong any more."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing before `until`, seconds since the epoch."""

    until: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """A chunk that is complete in `partial/`, the text of its want, and its READY."""

    chunk: DataChunk
    text: bytes
    manifest: Manifest


# ------------------------------------------------------------------------------------------------------------- outcomes


@dataclass(frozen=True, slots=True)
class Done:
    """The effect is there; `fetched` is what a fetch has written."""

    fetched: Fetched | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Stale:
    """The precondition no longer holds: look again."""


@dataclass(frozen=True, slots=True)
class Held:
    """Refs keep the directory at `place` where it is."""

    place: Place


@dataclass(frozen=True, slots=True)
class Stopped:
    """The transfer was stopped."""


@dataclass(frozen=True, slots=True)
class CannotRead:
    """The want cannot be taken as it is; it may be half-written."""

    want: Marker
    error: InvalidInputError


@dataclass(frozen=True, slots=True)
class Failed:
    """The action could not be done; `disk` tells whether the disk is at fault."""

    error: FsdmError
    disk: bool


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The chunk is out of service, and `failed/ID` says why."""

    failure: Failure


Outcome = Done | Stale | Held | Stopped | CannotRead | Failed | Quarantined
