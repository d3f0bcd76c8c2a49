"""What became of an action, as values: `apply` returns one, `aftermath` takes it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdm.model.documents import Failure
    from fsdm.model.errors import FsdmError, InvalidInputError
    from fsdm.model.layout import Place
    from fsdm.model.state import Marker


@dataclass(frozen=True, slots=True)
class Done:
    """The effect is there."""


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
    """It could not be done; `disk` tells whose fault it is."""

    error: FsdmError
    disk: bool


@dataclass(frozen=True, slots=True)
class Condemned:
    """The chunk is out of service, and `failed/ID` says why."""

    failure: Failure


Outcome = Done | Stale | Held | Stopped | CannotRead | Failed | Condemned
