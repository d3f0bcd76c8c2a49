"""The owner's settings of an index: by what a chunk's keys are found, and its bounds. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fsdm.model.errors import InvalidInputError
from fsdm.model.index_format import CHUNK_MAGIC, as_index_name
from fsdm.model.limits import Positive  # noqa: TC001 pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Iterable

MEMORY_MIN: Final = 64 << 20  # an interpreter and a library take that much

_Words = Annotated[str, Field(pattern=r"\A[^\x00]*[^\x00\s][^\x00]*\z")]


class Index(BaseModel):
    """An index of each chunk, `index/NAME`, and how it is made.

    The keys are found by an `indexer`: `car`, `parquet:COLUMN,…` or the name of an entry point in the group
    `fsdm.indexers`; or by a `command`, which gets the path of the directory with the chunk's files as its last
    argument. Only the files that match the glob `files` are theirs. Each runs in a process of its own, for at most
    `timeout_s` seconds and with `max_memory_bytes`; the index has at most `max_output_bytes`.

    Raises:
        InvalidInputError: naming the field that cannot be taken.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: Annotated[str, AfterValidator(as_index_name)]
    indexer: _Words | None = None
    command: _Words | None = None
    files: _Words = "*"
    timeout_s: Positive = 600.0
    max_output_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    max_memory_bytes: Annotated[int, Field(ge=MEMORY_MIN)] = 2 << 30

    if not TYPE_CHECKING:

        def __init__(self, /, **given: Any) -> None:
            try:
                super().__init__(**given)
            except ValidationError as e:
                raise _invalid(e) from None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.indexer is None) == (self.command is None):
            raise ValueError("has an indexer or a command, one of them")
        return self

    @property
    def definition(self) -> bytes:
        """The 32 bytes that tell an index made by these settings from one made by others."""
        said = [CHUNK_MAGIC.decode(), self.indexer, self.command, self.files]
        return hashlib.sha256(json.dumps(said).encode()).digest()


def checked_indexes(indexes: Iterable[Index]) -> tuple[Index, ...]:
    """Return the indexes, each of another name.

    Raises:
        InvalidInputError: one of them is no Index, or two have one name.
    """
    kept = tuple(indexes)
    if not all(isinstance(index, Index) for index in kept):
        raise InvalidInputError("must be several of Index", field="indexes", hint="as [Index(name=…, indexer=…)]")
    names = [index.name for index in kept]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"there are two of the name {twice[0]}", field="indexes")
    return kept


def _invalid(error: ValidationError) -> InvalidInputError:
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    field, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        hint = f"there are {', '.join(one for one in Index.model_fields if one != 'name')}"
        return InvalidInputError("is no setting of an index", field=f"{field:.80}", hint=hint)
    if first["type"] == "string_pattern_mismatch":
        said = "is blank, or has a NUL in it"
    return InvalidInputError(said.replace("Input should be", "must be"), field=field)
