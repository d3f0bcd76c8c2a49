"""What is done for one id, as values: `plan` decides on one, `apply` carries it out.

Each says what it acts on as it was seen: the marker, the place. Whoever carries it out looks whether that still is so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fsdm.model.documents import Failure
    from fsdm.model.layout import Place
    from fsdm.model.state import Found, Marker


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the wanted files into `partial/ID`, and write their manifest."""

    id: str
    want: Marker


@dataclass(frozen=True, slots=True)
class Publish:
    """Rename the complete `partial/ID` into `chunks/`, and remove the want."""

    id: str
    want: Marker


@dataclass(frozen=True, slots=True)
class Confirm:
    """The wanted chunk is there: remove the want if the files are the same, else take the old ones out of service."""

    id: str
    want: Marker
    place: Place


@dataclass(frozen=True, slots=True)
class Overrule:
    """Both markers stand: remove the one that is not the later intent."""

    id: str
    loser: Literal["want", "delete"]
    want: Marker
    delete: Marker


@dataclass(frozen=True, slots=True)
class Retire:
    """Take a deleted chunk out of `chunks/`, once nobody holds it."""

    id: str
    place: Place
    delete: Marker


@dataclass(frozen=True, slots=True)
class Clear:
    """Take a directory without READY out of `chunks/`, once nobody holds it."""

    id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Discard:
    """Throw away `partial/ID`: its chunk is deleted or withdrawn."""

    id: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The deleted chunk is gone: remove its marker."""

    id: str
    delete: Marker


@dataclass(frozen=True, slots=True)
class Condemn:
    """Take a damaged chunk out of service: nobody new gets a ref, and it is cleared when nobody holds it.

    What is `found` was read byte by byte; else it is a suspicion, and names and sizes are looked at once more.
    """

    id: str
    place: Place
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask again for a chunk that was condemned, by the want that it came of."""

    id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Verify:
    """Begin to compare a chunk's bytes with its READY: somebody has asked for that."""

    id: str
    place: Place
    verify: Marker


@dataclass(frozen=True, slots=True)
class Dismiss:
    """The bytes have been compared, or there are none: remove the marker that asks for it."""

    id: str
    verify: Marker


@dataclass(frozen=True, slots=True)
class Report:
    """Write `failed/ID`."""

    id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Absolve:
    """Remove `failed/ID`: nothing is wrong any more."""

    id: str


Action = (
    Fetch
    | Publish
    | Confirm
    | Overrule
    | Retire
    | Clear
    | Discard
    | Forget
    | Condemn
    | Renew
    | Verify
    | Dismiss
    | Report
    | Absolve
)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, seconds since the epoch."""

    until: float
