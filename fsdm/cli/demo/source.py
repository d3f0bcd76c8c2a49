"""The demo's source: an HTTP server on loopback with chunks of real shape, whose bytes are made as they are sent.

A file's bytes follow from its path alone, so nothing is kept in memory and anybody can tell what they have to be. Each
connection is slowed down, so that there is a middle of a download to be in; a `Hold` stops one file half-way until it
is released. What the demo does with all this is told in `play`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from fsdm.model.documents import DataChunk, FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAGIC: Final = b"PAR1"  # a parquet file begins and ends with it
PIECE_BYTES: Final = 1 << 20
SEND_BYTES: Final = 1 << 16
RATE_BYTES_S: Final = 5_000_000  # of one connection, at scale 1
HOLD_LIMIT_S: Final = 60.0

_BLOCK: Final = memoryview(hashlib.shake_128(b"fsdm demo").digest(PIECE_BYTES) * 2)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset and the shape of its chunks: table name → size in bytes at scale 1."""

    name: str
    tables: Mapping[str, int]

    @property
    def id(self) -> str:
        return hashlib.sha256(f"fsdm demo: {self.name}".encode()).hexdigest()


# Tables and proportions of real chunks: hyperliquid's are as small in life, the others' over 20 times greater.
ETHEREUM: Final = Dataset(
    "ethereum",
    {
        "blocks": 60_000,
        "logs": 2_000_000,
        "statediffs": 3_300_000,
        "transactions": 4_500_000,
        "traces": 5_100_000,
    },
)
BINANCE: Final = Dataset("binance", {"blocks": 110_000, "logs": 4_200_000, "transactions": 4_900_000})
HYPERLIQUID: Final = Dataset("hyperliquid", {"blocks": 50_000, "transactions": 120_000})


def content(path: str, size: int) -> Iterator[memoryview]:
    """The bytes of the file at `path`, `size` of them in all, in pieces of at most 1 MiB."""
    shift = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")
    yield memoryview(MAGIC)
    left = size - 2 * len(MAGIC)
    while left > 0:
        start, length = shift % PIECE_BYTES, min(left, PIECE_BYTES)
        yield _BLOCK[start : start + length]
        left -= length
        shift += 4099  # so that no two pieces of a file are the same
    yield memoryview(MAGIC)


def sha256_of(path: str, size: int) -> str:
    """The digest of the file at `path`, in hex."""
    digest = hashlib.sha256()
    for piece in content(path, size):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps one file half-way: `reached` is set once somebody waits there, and goes on after `release`."""

    reached: threading.Event = field(default_factory=threading.Event)
    _gate: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        self.reached.set()
        self._gate.wait(HOLD_LIMIT_S)

    def release(self) -> None:
        self._gate.set()


class Source:
    """Serves the files of the chunks that `chunk` has described. `asked` counts the requests by path."""

    def __init__(self, scale: float) -> None:
        self.asked: Counter[str] = Counter()
        self._scale = scale
        self._rate_bytes_s = RATE_BYTES_S * max(scale, 1.0)
        self._sizes: dict[str, int] = {}
        self._holds: dict[str, Hold] = {}
        self._closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="source", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        for hold in self._holds.values():
            hold.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def chunk(self, dataset: Dataset, start: int, end: int) -> DataChunk:
        """A chunk of the dataset, with the sizes and digests of its files; from now on they are served."""
        files = {}
        for table, size_bytes in dataset.tables.items():
            path = f"/{dataset.name}/{start}-{end}/{table}.parquet"
            size = self._sizes[path] = max(int(size_bytes * self._scale), 64)
            files[f"{table}.parquet"] = FileSource(url=self.url + path, size=size, sha256=sha256_of(path, size))
        chunk_id = hashlib.sha256(f"fsdm demo: {dataset.name} {start} {end}".encode()).hexdigest()
        return DataChunk(id=chunk_id, dataset_id=dataset.id, block_range=(start, end), files=files)

    def hold(self, url: str) -> Hold:
        """Send the file's first half, then wait, from its next request on."""
        hold = self._holds[urlsplit(url).path] = Hold()
        return hold

    def requests_for(self, chunk: DataChunk) -> int:
        """How often files of the chunk have been asked for."""
        return sum(self.asked[urlsplit(file.url).path] for file in chunk.files.values())

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path = urlsplit(handler.path).path
        self.asked[path] += 1
        size = self._sizes.get(path)
        if size is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        self._send(handler, path, size)

    def _send(self, handler: BaseHTTPRequestHandler, path: str, size: int) -> None:
        hold, sent, began = self._holds.get(path), 0, time.monotonic()
        for piece in self._pieces(path, size):
            if hold is not None and sent + len(piece) > size // 2:
                hold.wait()
                hold = None
            handler.wfile.write(piece)
            sent += len(piece)
            self._closing.wait(max(began + sent / self._rate_bytes_s - time.monotonic(), 0.0))

    def _pieces(self, path: str, size: int) -> Iterator[memoryview]:
        length = min(SEND_BYTES, max(size // 4, 1))  # a small file has a middle as well
        for piece in content(path, size):
            for start in range(0, len(piece), length):
                yield piece[start : start + length]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, source: Source) -> None:
        self.source = source
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a peer that goes away is a part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self.close_connection = True
        with suppress(ConnectionError):
            self.server.source.answer(self)
            self.close_connection = False

    def log_message(self, *args: object) -> None:
        """Nothing: what happens is told by the reconciler."""
