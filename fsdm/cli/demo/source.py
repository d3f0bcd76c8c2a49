"""Serve the demo's chunks by HTTP on loopback, so slowly that downloads have a middle.

The bytes of a file follow from its path, so none are kept. A file that no chunk has is answered with 404.
"""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self

from fsdm.model.documents import DataChunk, FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

# how many chunks of how many blocks, and the sizes of their files at scale 1: the proportions of real chunks
DATASETS: Final[dict[str, tuple[int, int, dict[str, int]]]] = {
    "ethereum": (
        4,
        1000,
        {"blocks": 60_000, "logs": 2_000_000, "statediffs": 3_300_000, "transactions": 4_500_000, "traces": 5_100_000},
    ),
    "binance": (2, 500, {"blocks": 110_000, "logs": 4_200_000, "transactions": 4_900_000}),
    "hyperliquid": (4, 100, {"blocks": 50_000, "transactions": 120_000}),
}
RATE_BYTES_S: Final = 5_000_000  # of one connection, at scale 1
MAGIC: Final = b"PAR1"  # a parquet file begins and ends with it
PIECE_BYTES: Final = 1 << 16
_NOISE: Final = memoryview(hashlib.shake_128(b"fsdm demo").digest(2 * PIECE_BYTES))


def content(path: str, size: int) -> Iterator[bytes | memoryview]:
    """Make the `size` bytes of the file at `path`, piece by piece."""
    seed, inner = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big"), size - 2 * len(MAGIC)
    yield MAGIC
    for number, at in enumerate(range(0, inner, PIECE_BYTES)):
        start = (seed + 4099 * number) % PIECE_BYTES  # an odd step, so that no two pieces of a file are the same
        yield _NOISE[start : start + min(PIECE_BYTES, inner - at)]
    yield MAGIC


def sha256_of(path: str, size: int) -> str:
    """Compute the digest of the file at `path`, in hex."""
    digest = hashlib.sha256()
    for piece in content(path, size):
        digest.update(piece)
    return digest.hexdigest()


class Source:
    """The HTTP source of the demo's chunks, by dataset and block; `names` are by id."""

    def __init__(self, scale: float) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.socket.listen(64)  # connections come at once, and five wait by default
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.rate_bytes_s = RATE_BYTES_S * max(scale, 1.0)
        self.sizes: dict[str, int] = {}  # by URL
        self.requests: list[str] = []
        self.held: frozenset[str] = frozenset()
        self.reached: set[str] = set()
        self.go_on = threading.Event()
        self.names: dict[str, str] = {}
        self.chunks = {
            name: [self._chunk(name, number, scale) for number in range(shape[0])] for name, shape in DATASETS.items()
        }
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="source", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hold(self, *urls: str) -> frozenset[str]:
        """Stop these files half-way until they are released; `reached` has those that got there."""
        self.held, self.reached = frozenset(urls), set()
        self.go_on.clear()
        return self.held

    def release(self) -> None:
        """Send the rest of the files that were stopped, and all of others."""
        self.held = frozenset()
        self.go_on.set()

    def requests_for(self, *chunks: DataChunk) -> int:
        """Count the requests for files of these chunks."""
        return sum(self.requests.count(file.url) for chunk in chunks for file in chunk.files.values())

    def _chunk(self, dataset: str, number: int, scale: float) -> DataChunk:
        _, blocks, tables = DATASETS[dataset]
        start, end, files = number * blocks, (number + 1) * blocks, {}
        for table, size_bytes in tables.items():
            path, size = f"/{dataset}/{start}-{end}/{table}.parquet", max(int(size_bytes * scale), 64)
            self.sizes[self.url + path] = size
            files[f"{table}.parquet"] = FileSource(url=self.url + path, size=size, sha256=sha256_of(path, size))
        chunk_id = _id(f"{dataset} {start} {end}")
        self.names[chunk_id] = f"{dataset} [{start}, {end})"
        return DataChunk(id=chunk_id, dataset_id=_id(dataset), block_range=(start, end), files=files)


def _id(text: str) -> str:
    return hashlib.sha256(f"fsdm demo: {text}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, source: Source, *arguments: Any) -> None:
        self._source = source
        super().__init__(*arguments)  # which answers all requests of a connection

    def handle(self) -> None:
        with suppress(ConnectionError):  # downloads are stopped, and reconcilers killed, in their middle
            super().handle()

    def do_GET(self) -> None:
        source, url = self._source, self._source.url + self.path
        source.requests.append(url)
        if url not in source.sizes:
            self.send_error(404)
            return
        size = source.sizes[url]
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        sent, began = 0, time.monotonic()
        for piece in content(self.path, size):
            if url in source.held and sent + len(piece) > size // 2:
                source.reached.add(url)
                source.go_on.wait()
            self.wfile.write(piece)
            sent += len(piece)
            time.sleep(max(began + sent / source.rate_bytes_s - time.monotonic(), 0.0))

    def log_message(self, *arguments: object) -> None:
        """Log nothing: the reconciler tells what happens."""
