"""The chunks that play a part in the demo, and what people call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.cli.demo.source import BINANCE, ETHEREUM, HYPERLIQUID
from fsdm.model.documents import DataChunk

if TYPE_CHECKING:
    from fsdm.cli.demo.source import Source


class Cast:
    """The chunks of one demo, by dataset, in the order of their blocks."""

    def __init__(self, source: Source) -> None:
        self.ethereum = [source.chunk(ETHEREUM, n * 1000, n * 1000 + 1000) for n in range(4)]
        self.binance = [source.chunk(BINANCE, n * 500, n * 500 + 500) for n in range(2)]
        self.hyperliquid = [source.chunk(HYPERLIQUID, n * 100, n * 100 + 100) for n in range(4)]
        called = {dataset.id: dataset.name for dataset in (ETHEREUM, BINANCE, HYPERLIQUID)}
        self.names = {
            chunk.id: f"{called[chunk.dataset_id]} [{chunk.block_range.start}, {chunk.block_range.stop})"
            for chunk in self.all
        }

    @property
    def all(self) -> list[DataChunk]:
        return [*self.ethereum, *self.binance, *self.hyperliquid]

    @property
    def kept(self) -> list[DataChunk]:
        """What the script leaves: all but the second of ethereum and the first of hyperliquid."""
        return [self.ethereum[0], *self.ethereum[2:], *self.binance, *self.hyperliquid[1:]]

    @property
    def roads(self) -> list[tuple[str, int]]:
        """A block in the middle of each chunk, for the reader that roams."""
        return [(chunk.dataset_id, chunk.block_range[len(chunk.block_range) // 2]) for chunk in self.all]


def url_of(chunk: DataChunk, name: str) -> str:
    """Where one file of the chunk comes from."""
    return chunk.files[name].url


def size_of(chunk: DataChunk) -> int:
    """The bytes of all the chunk's files."""
    return sum(file.size or 0 for file in chunk.files.values())


def with_wrong_url(chunk: DataChunk) -> DataChunk:
    """The same chunk, but that one of its files is not where the want says."""
    files = {name: file.model_dump(exclude_none=True) for name, file in chunk.files.items()}
    files["logs.parquet"]["url"] += ".not-there"
    return DataChunk(id=chunk.id, dataset_id=chunk.dataset_id, block_range=chunk.block_range, files=files)
