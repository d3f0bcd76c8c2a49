"""How much at once, how much in all, how sure, and from where. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from fsdm.model.errors import InvalidInputError

CONNECTIONS: Final = 8
PER_FILE: Final = 4
AT_RUN_TIME: Final = ("jobs", "bytes_per_s", "poll_s", "max_bytes", "keep_free_bytes", "brake_share")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once: `jobs` chunks, over `connections` and a quarter more for small files alone.

    No more than `per_host` files come from one server at once (None: no bound of its own), and a large file over up to
    `per_file` connections, where that gains something. All together bring at most `bytes_per_s` (None: no cap).

    Without any event, changes are found after `poll_s` seconds. All that is here takes at most `max_bytes` (None: as
    much as there is), and `keep_free_bytes` of the file system stay free. `durability` *none* fsyncs nothing: see
    PROTOCOL.md, "Durability".

    Deletes that would remove more than `brake_share` of what is here within some minutes, and not only a few chunks,
    are held back until they are released (None: never): see PROTOCOL.md, "The brake".

    Files come from the hosts that one of `allow_hosts` names (none: from any), and with `deny_private` only from public
    addresses: see PROTOCOL.md, "Where files may come from".

    The bytes of each chunk are compared with READY about once in `scrub_days` (None: when somebody asks for it).

    `count_bytes` has what is here counted also without a budget, for metrics: each READY is read once, at the start.

    Raises:
        InvalidInputError: a number that is too small.
    """

    jobs: int = 8
    connections: int = CONNECTIONS
    per_host: int | None = None
    per_file: int = PER_FILE
    bytes_per_s: float | None = None
    workers: int = 4
    poll_s: float = 1.0
    max_bytes: int | None = None
    keep_free_bytes: int = 0
    brake_share: float | None = None
    durability: Literal["none", "chunk"] = "chunk"
    allow_hosts: tuple[str, ...] = ()
    deny_private: bool = False
    scrub_days: float | None = None
    count_bytes: bool = False

    def __post_init__(self) -> None:
        for name in ("jobs", "connections", "per_host", "per_file", "workers", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"must be at least 1, it is {value}", field=name)
        if self.keep_free_bytes < 0:
            raise InvalidInputError(f"must not be below 0, it is {self.keep_free_bytes}", field="keep_free_bytes")
        if self.brake_share is not None and not 0 <= self.brake_share <= 1:
            raise InvalidInputError(f"must be from 0 to 1, it is {self.brake_share}", field="brake_share")
        for name in ("poll_s", "bytes_per_s", "scrub_days"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInputError(f"must be above 0, it is {value}", field=name)

    def changed_to(self, other: Limits) -> tuple[Limits, list[str]]:
        """What a running reconciler keeps to once it is told to keep to `other`, and what of that has to wait."""
        holds = replace(self, **{name: getattr(other, name) for name in AT_RUN_TIME})
        waits = [one.name for one in fields(self) if getattr(holds, one.name) != getattr(other, one.name)]
        return holds, waits

    @property
    def durable(self) -> bool:
        """Whether what is written is fsynced."""
        return self.durability == "chunk"
