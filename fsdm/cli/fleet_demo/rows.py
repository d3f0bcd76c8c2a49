"""The function of the demo's query. What runs in a process of its own imports this module: it imports nothing heavy."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fsdm.fleet.task import HeldChunk

FILE: Final = "blocks.parquet"
OVER: Final = "over"
PACE_S: Final = 0.004  # of a chunk, so that the query has a middle
LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Rows:
    """The function of the demo's query: reads the rows of a chunk, no faster than it is told, and sums their values.

    Some nodes stop after their first chunk, and write a file with their name into a directory, until OVER is there.
    """

    directory: str
    stopping: tuple[str, ...]

    def __call__(self, chunk: HeldChunk) -> tuple[int, int, int, str]:
        """Return the first block, how many rows there are, the sum of their values, and the node."""
        import pyarrow.parquet as pq

        until = time.monotonic() + PACE_S
        node = chunk.path.parts[-5]
        with pq.ParquetFile(chunk.path / FILE) as file:
            found = file.read(["value"])["value"].to_pylist()
        if node in self.stopping:
            with open(f"{self.directory}/{node}", "wb"):
                pass
            while not os.path.exists(f"{self.directory}/{OVER}"):
                time.sleep(LOOK_S)
        time.sleep(max(until - time.monotonic(), 0.0))
        return chunk.blocks.start, len(found), sum(found), node
