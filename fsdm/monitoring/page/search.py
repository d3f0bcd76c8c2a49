"""Searching the chunks of a data directory: by block, by the beginning of an id, or by dataset and block. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import U64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fsdm.status.chunk_status import ChunkStatus

QUERY_MAX: Final = 200  # characters
_PREFIX: Final = re.compile(r"[0-9a-f]{4,64}\Z")
_BLOCK: Final = re.compile(r"[0-9]{1,20}\Z")


@dataclass(frozen=True, slots=True)
class Query:
    """A search: each part is None where the words do not say it."""

    id_prefix: str | None = None
    dataset_prefix: str | None = None
    block: int | None = None

    @classmethod
    def parse(cls, text: str, datasets: Mapping[str, str] = MappingProxyType({})) -> Query:
        """Parse what a person types: a block, 4 or more digits of an id, or a dataset's (or its name) and a block.

        `datasets` are ids by name.

        Raises:
            InvalidInputError: it is none of these.
        """
        words = [datasets.get(word) or word.lower().removesuffix("…") for word in text[:QUERY_MAX].split()]
        block = None if not words else _block(words[-1])
        prefix = words[0] if words and _PREFIX.match(words[0]) else None
        if len(words) == 1 and (block is not None or prefix is not None):
            return cls(prefix, None, block)
        if len(words) == 2 and prefix is not None and block is not None:
            return cls(None, prefix, block)
        hint = "type a block, 4 or more digits of an id, or a dataset (its digits, or its name) and a block"
        raise InvalidInputError("nothing can be searched for by that", field="q", hint=hint)

    def matches(self, chunk: ChunkStatus) -> bool:
        """Return whether a chunk is meant by it: a number may be a block, and begin an id as well."""
        if self.id_prefix is not None and (
            chunk.id.startswith(self.id_prefix) or (chunk.dataset_id or "").startswith(self.id_prefix)
        ):
            return True
        if self.block is None or chunk.block_range is None or self.block not in chunk.block_range:
            return False
        return self.dataset_prefix is None or (chunk.dataset_id or "").startswith(self.dataset_prefix)


def _block(word: str) -> int | None:
    digits = re.sub(r"(?<=[0-9])[,_](?=[0-9])", "", word)
    return int(digits) if _BLOCK.match(digits) and int(digits) <= U64_MAX else None


def search(chunks: Iterable[ChunkStatus], query: Query) -> Iterator[ChunkStatus]:
    """Find the chunks that are meant by a query."""
    return filter(query.matches, chunks)
