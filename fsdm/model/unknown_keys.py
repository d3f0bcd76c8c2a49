"""Keys of a want that this version does not know. They are kept and ignored; one that is nearly known is a doubt.

Pure.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from fsdm.model.documents import DataChunk, FileSource
from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


class UnknownKey(NamedTuple):
    """A key, by where it stands (`files.NAME.KEY`), and the known one that it is nearly, or nothing."""

    where: str
    near: str

    def __str__(self) -> str:
        return f"the key {self.where[:200]!r} is not known{f': did you mean {self.near}?' if self.near else ''}"


def unknown_keys(chunk: DataChunk) -> Iterator[UnknownKey]:
    """Yield the unknown keys of a want and of its files."""
    yield from _unknown("", chunk.model_extra or (), DataChunk.model_fields)
    for name, file in chunk.files.items():
        yield from _unknown(f"files.{name}.", file.model_extra or (), FileSource.model_fields)


def _unknown(prefix: str, keys: Iterable[str], known: Collection[str]) -> Iterator[UnknownKey]:
    for key in keys:
        yield UnknownKey(f"{prefix}{key}", "".join(get_close_matches(key[:80], known, 1)))


def doubts(chunk: DataChunk, *, strict: bool) -> list[UnknownKey]:
    """Return the keys that are nearly known: they may be misspelt.

    Raises:
        InvalidInputError: `strict`, and there is a key that is not known.
    """
    found = list(unknown_keys(chunk))
    if strict and found:
        raise InvalidInputError(
            str(found[0]), hint="leave it out, or do without --strict: then it is kept, and ignored"
        )
    return [key for key in found if key.near]
