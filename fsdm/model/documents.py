"""The documents on disk: a want, a manifest (`READY`), a failure.

Strict about the keys of the protocol, tolerant of the future: other keys are kept (a want's go on into its manifest).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast
from urllib.parse import SplitResult, urlsplit

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, WithJsonSchema
from pydantic_core import PydanticSerializationError

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import FILES_MAX, U64_MAX, Place, as_id, file_name_fault
from fsdm.model.source_policy import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIRRORS_MAX = 16
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://")


def _range(value: object) -> range:
    match value:
        case range(step=1):
            start, end = value.start, value.stop
        case range():
            raise ValueError(f"the step must be 1, not {value.step}")
        case {"start": start, "end": end} | (start, end):
            pass
        case _:
            raise ValueError('must be a range, a pair, or {"start", "end"}')
    for name, block in (("start", start), ("end", end)):
        if not isinstance(block, int) or isinstance(block, bool):
            raise ValueError(f"{name} must be an integer, not {type(block).__name__}")  # noqa: TRY004 pydantic's protocol
        if not 0 <= block <= U64_MAX:
            raise ValueError(f"{name} must be within 0 … 2^64-1")
    if start >= end:
        raise ValueError(f"must not be empty or reversed, it is [{start}, {end})")
    return range(start, end)


@lru_cache(1024)  # most files come from few hosts
def _has_host(netloc: str) -> bool:
    parts = SplitResult("", netloc, "", "", "")
    return bool(parts.hostname) and parts.port != -1  # which raises ValueError itself where it is none


def _url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a URL, not {type(value).__name__}")  # noqa: TRY004
    scheme = _SCHEME.match(value)
    if scheme is None:
        raise ValueError("must begin with http://, https://, or another scheme, as s3://")
    if scheme[1].lower() not in SCHEMES:
        if scheme.end() == len(value) or not value.isprintable():
            raise ValueError("must say what is asked for, without control characters")
        return value
    try:
        parts = urlsplit(value)
        has_host = _has_host(parts.netloc)
    except ValueError:  # its words may have the password
        raise ValueError("its host and port cannot be read") from None
    if not has_host or " " in value or not value.isprintable():  # the only space that is printable
        raise ValueError("must have a host, and no spaces or control characters")
    return value


def _source(value: object) -> object:
    match value:
        case str():
            return {"url": value}
        case [url, *mirrors]:
            return {"url": url, "mirrors": mirrors or None}
    return value


HEX = "^[0-9a-f]{64}$"
BLOCK_SCHEMA = {"type": "integer", "minimum": 0, "maximum": U64_MAX}
RANGE_SCHEMA = {
    "type": "object",
    "properties": {"start": BLOCK_SCHEMA, "end": BLOCK_SCHEMA},
    "required": ["start", "end"],
    "description": "half-open: start is in the chunk, end is the first block that is not",
}

Id = Annotated[str, BeforeValidator(lambda value: as_id(value, "")), WithJsonSchema({"type": "string", "pattern": HEX})]
BlockRange = Annotated[
    range,
    pydantic.GetPydanticSchema(lambda _, handler: handler(Any)),  # pydantic has no schema of its own for a range
    BeforeValidator(_range),
    pydantic.PlainSerializer(lambda r: {"start": r.start, "end": r.stop}),
    WithJsonSchema(RANGE_SCHEMA),
]
Url = Annotated[
    str, BeforeValidator(_url), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9+.-]{0,31}://"})
]
Size = Annotated[int, Field(ge=0, le=U64_MAX, strict=True)]
Digest = Annotated[str, Field(pattern=HEX)]  # of 32 bytes: sha256, BLAKE3


class Document(BaseModel):
    """A frozen document that keeps unknown keys and names the field of an error."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="null")

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Parse a JSON text.

        Raises:
            InvalidInputError: names the field that cannot be taken, or the place where it stops being JSON.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as e:
            raise _invalid(e) from None

    def to_json(self) -> bytes:
        """Return the document as one line of UTF-8 JSON, with its newline.

        Raises:
            InvalidInputError: an unknown key has a value that JSON cannot express.
        """
        try:
            return self.model_dump_json().encode() + b"\n"
        except PydanticSerializationError as e:
            raise InvalidInputError(f"cannot be written as JSON: {e}") from None

    @pydantic.model_serializer(mode="wrap")
    def _drop_absent(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        ours = type(self).model_fields
        return {key: value for key, value in document.items() if value is not None or key not in ours}


def _invalid(error: ValidationError) -> InvalidInputError:
    first = error.errors(include_url=False, include_input=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError) and not first["loc"]:  # of the constructor, which pydantic calls
        return cause
    field = ".".join(str(part) for part in first["loc"])
    message = re.sub(r"^(Value error|Assertion failed), ", "", first["msg"])
    return InvalidInputError(message, field=field)


def in_its_line(error: InvalidInputError) -> str:
    """Return an error's text without the line number, for a document that is one line of many."""
    return re.sub(r" at line 1 (column [0-9]+)$", r" at \1", str(error))


class FileSource(Document):
    """The URLs of a file in their order, and its size and digests where they are known."""

    url: Url
    mirrors: Annotated[tuple[Url, ...], Field(max_length=MIRRORS_MAX)] | None = None
    size: Size | None = None
    sha256: Digest | None = None
    blake3: Digest | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL and its mirrors, in the order that they are tried from."""
        return (self.url, *(self.mirrors or ()))

    @property
    def has_digest(self) -> bool:
        """Tell whether a digest says what the bytes must be."""
        return self.sha256 is not None or self.blake3 is not None


class FileEntry(Document):
    """A file in READY: its size in bytes, its digests, and the ETag of its answer.

    `unproven`: the connection's end alone told that the file had come to its end, and the want had no digest.
    """

    size: Size
    blake3: Digest
    sha256: Digest | None = None
    etag: str | None = None
    unproven: Literal[True] | None = None


def _check_names(names: object) -> object:
    if not isinstance(names, dict):
        return names
    if not names:
        raise ValueError("a chunk has at least one file")
    if len(names) > FILES_MAX:
        raise ValueError(f"a chunk has at most {FILES_MAX} files, not {len(names)}")
    for name in names:
        fault = file_name_fault(name) if isinstance(name, str) else "is not a string"
        if fault:
            raise ValueError(f"the file name {name!r:.80} {fault}")
    return names


class _Chunk(Document):
    id: Id
    dataset_id: Id
    block_range: BlockRange

    @property
    def place(self) -> Place:
        return Place.of(self.dataset_id, self.block_range, self.id)

    @classmethod
    def _of(cls, other: _Chunk, **own: Any) -> Self:
        """Make one of what another has, which is not checked again; its unknown keys are kept."""
        made = cast("Self", cls.model_construct(dataset_id=other.dataset_id, block_range=other.block_range, **own))
        for key, value in (other.model_extra or {}).items():
            if key not in cls.model_fields and made.model_extra is not None:
                made.model_extra[key] = value
        return made


_Sources = Annotated[dict[str, Annotated[FileSource, BeforeValidator(_source)]], BeforeValidator(_check_names)]


class DataChunk(_Chunk):
    """A wanted chunk: the document in `want/ID`.

    `id` and `dataset_id` are 64 lower-case hex digits (32 bytes are taken too); `block_range` is a `range` of step 1, a
    pair, or `{"start", "end"}`, half-open, in u64; `files` maps file names to URLs, to lists of URLs (mirrors), or to
    `{"url", "mirrors", "size", "sha256", "blake3"}`.

    Raises:
        InvalidInputError: names the field.
    """

    files: _Sources

    if TYPE_CHECKING:  # what may be given; what is kept has one form of each

        def __init__(
            self,
            /,
            *,
            id: str | bytes,  # noqa: A002 the document's word
            dataset_id: str | bytes,
            block_range: range | tuple[int, int] | Mapping[str, int],
            files: Mapping[str, str | Sequence[str] | Mapping[str, object] | FileSource],
            **more: object,
        ) -> None: ...

    else:

        def __init__(self, /, **data: Any) -> None:  # a document may well have a key called "self"
            try:
                super().__init__(**data)
            except ValidationError as e:
                raise _invalid(e) from None

    @property
    def size_bytes(self) -> int | None:
        """The size of all files together; None where one does not declare its own."""
        sizes = [file.size for file in self.files.values() if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    def checked(self) -> DataChunk:
        """Check all of it again, and return it in one form: `model_copy` takes any value.

        Raises:
            InvalidInputError: names the field.
        """
        given = dict(self)  # with the unknown keys
        if isinstance(given["files"], dict):
            files = given["files"].items()
            given["files"] = {name: dict(file) if isinstance(file, FileSource) else file for name, file in files}
        return DataChunk(**given)

    @classmethod
    def parse_want(cls, text: bytes, name: str) -> DataChunk:
        """Parse the want in the marker called `name`; its `id` may be absent, or must agree."""
        want = _Want.parse(text)
        if want.id not in {None, name}:
            raise InvalidInputError(f"is {want.id}, but the marker is called {name}", field="id")
        return cls._of(want, id=name, files=want.files)

    @classmethod
    def want_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a want, in which `id` may be left out."""
        schema = cls.model_json_schema()
        schema["required"].remove("id")
        return schema


class _Want(_Chunk):
    id: Id | None = None  # type: ignore[assignment]  # the marker's name says it
    files: _Sources


class Manifest(_Chunk):
    """The document in `READY`: every file in `data/` matches it."""

    format: Literal[1] = 1
    files: Annotated[dict[str, FileEntry], BeforeValidator(_check_names)]

    @classmethod
    def of(cls, chunk: DataChunk, files: dict[str, FileEntry]) -> Manifest:
        """Make the manifest of a fetched chunk; the want's unknown keys are kept in it."""
        return cls._of(chunk, id=chunk.id, files=files)

    def satisfies(self, chunk: DataChunk, *, sha256_may_follow: bool = False) -> bool:
        """Return whether these are the wanted files: the same place, names, sizes and digests.

        URLs do not count: a signed URL differs each time it is written. `sha256_may_follow`: a sha256 that READY does
        not have yet, and that is still to be computed, is taken to agree.
        """
        return (
            self.place == chunk.place
            and self.files.keys() == chunk.files.keys()
            and all(_agrees(self.files[name], source, sha256_may_follow) for name, source in chunk.files.items())
        )

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.files.values())


def _agrees(entry: FileEntry, source: FileSource, sha256_may_follow: bool) -> bool:
    return (
        source.size in {None, entry.size}
        and source.blake3 in {None, entry.blake3}
        and (source.sha256 in {None, entry.sha256} or (sha256_may_follow and entry.sha256 is None))
    )


class MarkerStamp(Document):
    """The identity of a failure's marker: one that has changed since is a new request."""

    ino: int
    mtime_ns: int
    size: int


class Failure(Document):
    """The document in `failed/ID`: why an intent fails. Times are seconds since the epoch.

    It speaks of its `marker` (a want, a delete, an acquire), of who asked by `acquire` beside a want, and of the
    registration in `known` that an acquire is carried out by. `given_up`: it is not tried again by itself; `not_before`
    is what a server has asked for. `postponed`: so many attempts in a row were put off since the last one that was
    made; `last_at` is 0 where none was.
    """

    id: Id
    kind: Literal["transfer", "want", "marker", "damaged", "disk", "room"]
    error: str
    hint: str = ""
    transient: bool = True
    attempts: int = 1
    first_at: FiniteFloat
    last_at: FiniteFloat
    next_attempt_at: FiniteFloat | None = None
    postponed: int | None = None
    given_up: Literal[True] | None = None
    not_before: FiniteFloat | None = None
    marker: MarkerStamp | None = None
    acquire: MarkerStamp | None = None
    known: MarkerStamp | None = None
    needs_bytes: int | None = None  # of kind *room*: what the chunk is expected to take, …
    lacks_bytes: int | None = None  # … and how much of that was missing when it began to wait
