"""The bounds of a reconciler: at once and in all, on durability, and on sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsdm.model.errors import InvalidInputError
from fsdm.model.source_policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTIONS: Final = 8
PER_FILE: Final = 4
_OF_ROOM: Final = ("max_bytes", "keep_free_bytes", "cache_low_share")
_OF_FAILURES: Final = ("recover", "max_attempts")
AT_RUN_TIME: Final = ("jobs", "index_jobs", "bytes_per_s", "poll_s", "brake_share", *_OF_ROOM, *_OF_FAILURES)

# as options and config.toml call them; either name is taken everywhere
NAMES: Final = {
    "connections_per_host": "per_host",
    "connections_per_file": "per_file",
    "limit_rate": "bytes_per_s",
    "keep_free": "keep_free_bytes",
    "cache_low": "cache_low_share",
    "brake": "brake_share",
    "allow_host": "allow_hosts",
    "allow_source": "allow_sources",
    "allow_dir": "allow_dirs",
}

Transport = Literal["libcurl", "requests"]
HttpVersion = Literal["1.1", "2"]
Recover = Literal["now", "acquire", "never"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Limits(BaseModel):
    """At once: `jobs` chunks, over `connections` and a quarter more for small files alone.

    At most `connections_per_host` files come from one server at once (None: no bound of its own), and a large file over
    up to `connections_per_file` connections where that is faster. All together bring at most `limit_rate` bytes a
    second (None: no cap). Without any event, changes are found after `poll_s` seconds. All that is here takes at most
    `max_bytes` (None: as much as there is), and `keep_free` bytes of the file system stay free. Where a fetch has
    others evicted, these go until it fits and no more than `cache_low` of the budget (a share of it) is taken. The
    bytes of each chunk are compared with READY about once in `scrub_days` (None: only when asked for). `index_jobs`
    indexes of chunks are made at once. `require_length` refuses an answer whose end nothing proves: no length, no
    chunks, and no size or digest in the want. Files come by the `transport`. An `http_version` of "2" is offered over
    TLS, for servers that want it: a connection has one request at a time, so it is no faster. `count_bytes` counts what
    is here also without a budget, for metrics.

    PROTOCOL.md tells of the others: `durability` ("Durability"), `brake` (a share; "The brake"; None: never), `recover`
    and `max_attempts` ("Recovery"; None: no bound), and `allow_host` (none: any), `deny_private`, and `allow_source`
    and `allow_dir` (none: http and https alone; "Where files may come from"). These are the names of the options and
    of config.toml; older ones are taken too (`NAMES`).

    Raises:
        InvalidInputError: naming the field that cannot be taken.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    jobs: Count = 8
    connections: Count = CONNECTIONS
    per_host: Count | None = None
    per_file: Count = PER_FILE
    bytes_per_s: Positive | None = None
    workers: Count = 4
    poll_s: Positive = 1.0
    max_bytes: Count | None = None
    keep_free_bytes: Annotated[int, Field(ge=0)] = 0
    cache_low_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    brake_share: Annotated[float, Field(ge=0, le=1)] | None = None
    recover: Recover = "now"
    max_attempts: Count | None = None
    durability: Literal["none", "chunk"] = "chunk"
    allow_hosts: tuple[str, ...] = ()
    deny_private: bool = False
    allow_sources: tuple[str, ...] = ()
    allow_dirs: tuple[str, ...] = ()
    scrub_days: Positive | None = None
    index_jobs: Count = 1
    require_length: bool = False
    transport: Transport = "libcurl"
    http_version: HttpVersion = "1.1"
    count_bytes: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            jobs: int = 8,
            connections: int = CONNECTIONS,
            connections_per_host: int | None = None,
            connections_per_file: int = PER_FILE,
            limit_rate: float | None = None,
            max_bytes: int | None = None,
            keep_free: int = 0,
            cache_low: float = 0.9,
            brake: float | None = None,
            recover: Recover = "now",
            max_attempts: int | None = None,
            durability: Literal["none", "chunk"] = "chunk",
            allow_host: tuple[str, ...] = (),
            deny_private: bool = False,
            allow_source: tuple[str, ...] = (),
            allow_dir: tuple[str, ...] = (),
            scrub_days: float | None = None,
            index_jobs: int = 1,
            require_length: bool = False,
            transport: Transport = "libcurl",
            http_version: HttpVersion = "1.1",
            workers: int = 4,
            poll_s: float = 1.0,
            count_bytes: bool = False,
            # the older names
            per_host: int | None = None,
            per_file: int = PER_FILE,
            bytes_per_s: float | None = None,
            keep_free_bytes: int = 0,
            cache_low_share: float = 0.9,
            brake_share: float | None = None,
            allow_hosts: tuple[str, ...] = (),
            allow_sources: tuple[str, ...] = (),
            allow_dirs: tuple[str, ...] = (),
        ) -> None: ...

    else:

        def __init__(self, /, **given: Any) -> None:
            said = {NAMES.get(name, name): name for name in given}
            for name, first in ((name, said[NAMES.get(name, name)]) for name in given):
                if first != name:
                    raise InvalidInputError(f"is {first} by another name, and both are there", field=name)
            try:
                super().__init__(**{NAMES.get(name, name): value for name, value in given.items()})
            except ValidationError as e:
                raise _invalid(e, said) from None
            if self.transport == "requests":
                Policy(deny_private=self.deny_private).check_unseen()
                if self.http_version != "1.1":
                    hint = "take the transport libcurl, or HTTP/1.1"
                    raise InvalidInputError("requests speaks HTTP/1.1 alone", field="http_version", hint=hint)

    def changed_to(self, other: Limits) -> tuple[Limits, list[str]]:
        """Return the limits that hold once a running reconciler is told `other`, and the fields that wait."""
        holds = self.model_copy(update={name: getattr(other, name) for name in AT_RUN_TIME})
        return holds, [name for name in Limits.model_fields if getattr(holds, name) != getattr(other, name)]

    @property
    def durable(self) -> bool:
        """Tell whether what is written is fsynced."""
        return self.durability == "chunk"


def _invalid(error: ValidationError, said: Mapping[str, str]) -> InvalidInputError:
    """Make an error of the name that was given."""
    first = error.errors(include_url=False)[0]
    name, *rest = map(str, first["loc"])
    field = ".".join([said.get(name, name), *rest])
    if first["type"] == "extra_forbidden":
        spelt = {field: name for name, field in NAMES.items()}
        there = ", ".join(spelt.get(one, one) for one in Limits.model_fields)
        return InvalidInputError("is not a limit", field=field, hint=f"there are {there}")
    told = first["msg"].replace("Input should be", "must be")
    return InvalidInputError(f"{told}, not {first['input']!r:.80}", field=field)
