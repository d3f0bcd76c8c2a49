"""The functions of the queries that are measured. What runs in a process of its own imports this module alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fsdm.fleet.task import HeldChunk
    from fsdm.store.refs import ChunkRef

HASHED: Final = bytes(4_000_000)


def work_on(chunk: HeldChunk | ChunkRef) -> int:
    """Read a chunk, and do some work; return a byte of what comes of it."""
    data = (chunk.path / "blocks.parquet").read_bytes()
    return hashlib.sha256(HASHED + data).digest()[0]


def nothing(_: object) -> None:
    """Do nothing."""
