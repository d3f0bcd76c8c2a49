"""The documents of a placer: a worker as it is listed, and what was published last.

Each is one JSON object; keys that are not known are kept, and ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, WithJsonSchema

from fsdm.fleet.inventory import CAPACITY_MAX, Presence, Worker
from fsdm.fleet.report import Count, Name  # noqa: TC001 pydantic evaluates them
from fsdm.model.documents import Digest, Document
from fsdm.model.units import parse_size

FORMAT: Final = 1
NAME_IN_URL: Final = "{name}"


def as_peer_url(url: str) -> str:
    """Return the URL that a node is served at, or NAME_IN_URL in it; raise ValueError where it is none."""
    if not re.fullmatch(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?", url):
        raise ValueError("must be as http://a1:8081, with no user, query or fragment: all nodes are told it")
    return url


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


Capacity = Annotated[
    int,
    Field(ge=1, le=CAPACITY_MAX, strict=True),
    BeforeValidator(_size),
    WithJsonSchema({"type": ["integer", "string"]}),
]


class WorkerDocument(Document):
    """A line of the list of workers: `capacity` in bytes, or as `900G`; `zone`: what fails together.

    `weight`: how much of its capacity it is given, against the others. One that is `draining` loses its copies to
    others. `url`: where its data directory is served to its peers, as `http://a1:8081`.
    """

    name: Name
    capacity: Capacity
    zone: Annotated[str, Field(max_length=128)] = ""
    weight: Annotated[FiniteFloat, Field(ge=0, le=1000)] = 1.0
    draining: Annotated[bool, Field(strict=True)] = False
    url: Annotated[str, AfterValidator(as_peer_url)] = ""

    def worker(self, presence: Presence, peers: str = "") -> Worker:
        """Return the worker, with what is known of its presence; `peers` is the URL of those that name none."""
        url = self.url or peers.replace(NAME_IN_URL, self.name)
        return Worker(self.name, self.capacity, self.zone, self.weight, self.draining, presence, url)


class PublishedList(Document):
    """The list of a worker in the pointer: the sha256 of its text, and how many chunks and bytes it has.

    `since`: when this worker had its first list; `changed`: when it had this one; in seconds since the epoch.
    `dropped`: when this list and those shortly before lost copies, and how many.
    """

    sha256: Digest
    chunks: Count
    bytes: Count
    since: FiniteFloat
    changed: FiniteFloat
    dropped: tuple[tuple[FiniteFloat, Count], ...] = ()

    def dropped_since(self, at: float) -> tuple[tuple[float, int], ...]:
        """Return what it has lost since this time."""
        return tuple((when, copies) for when, copies in self.dropped if when > at)


class Pointer(Document):
    """The last placement that was published: its number, the list of each worker, and the sha256 of the routes.

    `chunks` is the sha256 of the list of all chunks that it was made of.
    """

    format: Literal[1] = FORMAT
    number: Annotated[int, Field(ge=1, strict=True)]
    at: FiniteFloat
    routes: Digest
    chunks: Digest | None = None
    lists: dict[Name, PublishedList]


def presence_of(now: float, seen_at: float, silent_s: float, grace_s: float) -> Presence:
    """Tell how a worker stands that was seen at this time; both are seconds since the epoch."""
    silence = now - seen_at
    if silence <= silent_s:
        return Presence.LIVE
    return Presence.AWAY if silence <= grace_s else Presence.GONE
