"""The bounds of a reconciler: at once and in all, on durability, and on sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsdm.model.errors import InvalidInputError
from fsdm.model.source_policy import Policy

CONNECTIONS: Final = 8
PER_FILE: Final = 4
_OF_ROOM: Final = ("max_bytes", "keep_free_bytes", "cache_low")
AT_RUN_TIME: Final = ("jobs", "bytes_per_s", "poll_s", *_OF_ROOM, "brake_share", "recover", "max_attempts")

Transport = Literal["libcurl", "requests"]
HttpVersion = Literal["1.1", "2"]
Recover = Literal["now", "acquire", "never"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Limits(BaseModel):
    """At once: `jobs` chunks, over `connections` and a quarter more for small files alone.

    At most `per_host` files come from one server at once (None: no bound of its own), and a large file over up to
    `per_file` connections where that is faster. All together bring at most `bytes_per_s` (None: no cap). Without any
    event, changes are found after `poll_s` seconds. All that is here takes at most `max_bytes` (None: as much as there
    is), and `keep_free_bytes` of the file system stay free. Where a fetch has others evicted, these go until it fits
    and no more than `cache_low` of the budget (a share of it) is taken. The bytes of each chunk are compared with READY
    about once in `scrub_days` (None: only when asked for). `index_jobs` indexes of chunks are made at once.
    `require_length` refuses an answer whose end nothing proves: no length, no chunks, and no size or digest in the
    want. Files come by the `transport`. An `http_version` of "2" is offered over TLS, for servers that want it: a
    connection has one request at a time, so it is no faster. `count_bytes` counts what is here also without a budget,
    for metrics.

    PROTOCOL.md tells of the others: `durability` ("Durability"), `brake_share` ("The brake"; None: never), `recover`
    and `max_attempts` ("Recovery"; None: no bound), and `allow_hosts` (none: any), `deny_private`, and `allow_sources`
    and `allow_dirs` (none: http and https alone; "Where files may come from").

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
    cache_low: Annotated[float, Field(gt=0, le=1)] = 0.9
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

    if not TYPE_CHECKING:

        def __init__(self, /, **given: Any) -> None:
            try:
                super().__init__(**given)
            except ValidationError as e:
                raise _invalid(e) from None
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


def _invalid(error: ValidationError) -> InvalidInputError:
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return InvalidInputError("is not a limit", field=field, hint=f"there are {', '.join(Limits.model_fields)}")
    said = first["msg"].replace("Input should be", "must be")
    return InvalidInputError(f"{said}, not {first['input']!r:.80}", field=field)
