"""The documents of a fleet: a worker as it is listed, its report, and what was published last.

Each is one JSON object; keys that are not known are kept, and ignored.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, FiniteFloat, WithJsonSchema

from fsdm.fleet.inventory import CAPACITY_MAX, Presence, Worker
from fsdm.model.documents import Digest, Document, Id
from fsdm.model.units import parse_size

FORMAT: Final = 1
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"  # it is a part of file names and of URLs


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=NAME)]
Capacity = Annotated[
    int,
    Field(ge=1, le=CAPACITY_MAX, strict=True),
    BeforeValidator(_size),
    WithJsonSchema({"type": ["integer", "string"]}),
]
Count = Annotated[int, Field(ge=0, strict=True)]


class WorkerDocument(Document):
    """A line of the list of workers: `capacity` in bytes, or as `900G`; `zone`: what fails together.

    `weight`: how much of its capacity it is given, against the others. One that is `draining` loses its copies to
    others.
    """

    name: Name
    capacity: Capacity
    zone: Annotated[str, Field(max_length=128)] = ""
    weight: Annotated[FiniteFloat, Field(ge=0, le=1000)] = 1.0
    draining: Annotated[bool, Field(strict=True)] = False

    def worker(self, presence: Presence) -> Worker:
        """Return the worker, with what is known of its presence."""
        return Worker(self.name, self.capacity, self.zone, self.weight, self.draining, presence)


class Report(Document):
    """What a worker says of itself: `at` (seconds since the epoch) it holds its list, but for what is `missing`.

    `applied` is the sha256 of that list, as the pointer names it; None where it has applied none. `extra`: the chunks
    that it holds besides. `bytes` on its disk; `braked`: deletes are held back; `failing`: the chunks that cannot be
    fetched.
    """

    at: FiniteFloat
    applied: Digest | None = None
    missing: tuple[Id, ...] = ()
    extra: tuple[Id, ...] = ()
    bytes: Count = 0
    braked: Annotated[bool, Field(strict=True)] = False
    failing: tuple[Id, ...] = ()


class PublishedList(Document):
    """The list of a worker in the pointer: the sha256 of its text, and how many chunks and bytes it has.

    `since`: when this worker had its first list, in seconds since the epoch.
    """

    sha256: Digest
    chunks: Count
    bytes: Count
    since: FiniteFloat


class Pointer(Document):
    """What was published last: its number, the list of each worker, and the sha256 of the routes."""

    format: Literal[1] = FORMAT
    number: Annotated[int, Field(ge=1, strict=True)]
    at: FiniteFloat
    routes: Digest
    lists: dict[Name, PublishedList]


def presence_of(now: float, seen_at: float, silent_s: float, grace_s: float) -> Presence:
    """Tell how a worker stands that was seen at this time; both are seconds since the epoch."""
    silence = now - seen_at
    if silence <= silent_s:
        return Presence.LIVE
    return Presence.AWAY if silence <= grace_s else Presence.GONE
