"""The lake of the demo: chunks with rows of Parquet, and what is published, served by HTTP on loopback.

Row n of the table has the block n, and a value that follows from it: so it is known what a query must find.
"""

from __future__ import annotations

import os
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.fleet_demo.rows import FILE
from fsdm.model.documents import DataChunk, FileSource

if TYPE_CHECKING:
    from collections.abc import Callable

DATASET: Final = sha256(b"fsdm fleet demo").hexdigest()
BLOCKS: Final = 100  # of each chunk, with one row each


def value_of(block: int) -> int:
    """Return the value in the row of a block."""
    return block * block % 1009


def fill(directory: str, url: str, count: int) -> list[DataChunk]:
    """Write so many chunks into the directory that is served at this URL; return the wants for them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chunks = []
    os.makedirs(directory)
    for number in range(count):
        blocks = range(number * BLOCKS, (number + 1) * BLOCKS)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"block": list(blocks), "value": [value_of(block) for block in blocks]}), sink)
        data = sink.getvalue().to_pybytes()
        name = f"{number:05d}.parquet"
        with open(os.path.join(directory, name), "wb") as file:
            file.write(data)
        source = FileSource(url=f"{url}/chunks/{name}", size=len(data), sha256=sha256(data).hexdigest())
        chunk_id = sha256(f"fsdm fleet demo: {number}".encode()).hexdigest()
        chunks.append(DataChunk(id=chunk_id, dataset_id=DATASET, block_range=blocks, files={FILE: source}))
    return chunks


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: nodes are killed while they fetch."""


def serve(directory: str, tell: Callable[[str], object]) -> None:
    """Serve a directory for good; tell the URL."""

    def handler(*arguments: Any) -> _Handler:
        return _Handler(*arguments, directory=directory)

    with _Server(("127.0.0.1", 0), handler) as server:
        tell(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()
