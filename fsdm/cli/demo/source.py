"""Serve the demo's chunks by HTTP on loopback, so slowly that downloads have a middle.

The bytes of a file follow from its path, so none are kept. A path that no chunk has is answered with 404.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from fsdm.model.documents import DataChunk, FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES: Final = ("blocks", "transactions", "logs", "statediffs", "traces")
# how many chunks of how many blocks, and the sizes of their files at scale 1: the proportions of real chunks
DATASETS: Final = {
    "ethereum": (4, 1000, (60_000, 4_500_000, 2_000_000, 3_300_000, 5_100_000)),
    "binance": (2, 500, (110_000, 4_900_000, 4_200_000)),
    "hyperliquid": (4, 100, (50_000, 120_000)),
}
RATE_BYTES_S: Final = 5_000_000  # of one connection, at scale 1
PIECE_BYTES: Final = 1 << 16


def content(path: str, size: int) -> Iterator[bytes]:
    """Make the `size` bytes of the file at `path`, piece by piece."""
    noise = random.Random(path)  # noqa: S311 no secret
    for at in range(0, size, PIECE_BYTES):
        yield noise.randbytes(min(PIECE_BYTES, size - at))


class Source(ThreadingHTTPServer):
    """The HTTP server of the demo's chunks; `names` are by id, `sizes` by path.

    While `gate` is not set, state diffs are sent no further than their middle; `stopped` has those that got there.
    """

    request_queue_size = 64  # connections come at once

    def __init__(self, scale: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.scale = scale
        self.sizes: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.stopped: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.chunks = {name: [self._chunk(name, at) for at in range(DATASETS[name][0])] for name in DATASETS}

    def _chunk(self, dataset: str, number: int) -> DataChunk:
        _, blocks, sizes = DATASETS[dataset]
        start, end, files = number * blocks, (number + 1) * blocks, {}
        for table, size_bytes in zip(TABLES, sizes, strict=False):
            path, size = f"/{dataset}/{start}-{end}/{table}.parquet", max(int(size_bytes * self.scale), 64)
            self.sizes[path], digest = size, sha256()
            for piece in content(path, size):
                digest.update(piece)
            files[f"{table}.parquet"] = FileSource(url=self.url + path, size=size, sha256=digest.hexdigest())
        name = f"{dataset} [{start}, {end})"
        chunk_id, dataset_id = (sha256(f"fsdm demo: {text}".encode()).hexdigest() for text in (name, dataset))
        self.names[chunk_id] = name
        return DataChunk(id=chunk_id, dataset_id=dataset_id, block_range=(start, end), files=files)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Source

    def handle(self) -> None:
        with suppress(ConnectionError):  # downloads are stopped, and reconcilers killed, in their middle
            super().handle()

    def do_GET(self) -> None:
        source, size = self.server, self.server.sizes.get(self.path)
        if size is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        sent, began = 0, time.monotonic()
        for piece in content(self.path, size):
            if "statediffs" in self.path and not source.gate.is_set() and sent + len(piece) > size // 2:
                source.stopped.append(self.path)
                source.gate.wait()
            self.wfile.write(piece)
            sent += len(piece)
            time.sleep(max(began + sent / RATE_BYTES_S / max(source.scale, 1.0) - time.monotonic(), 0.0))

    def log_message(self, *arguments: object) -> None:
        """Log nothing: the reconciler tells what happens."""
