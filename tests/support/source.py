"""An HTTP source on loopback that can misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from fsdm import DataChunk
from tests.support.chunks import an_id, content
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


DRIP_BYTES, DRIP_S = 1000, 0.01


@dataclass
class Fault:
    """How a path misbehaves. `gate` holds the answer back until it is set, after `stall_at` bytes of the body."""

    status: int = 200
    stall_at: int | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    cut_at: int | None = None  # the connection breaks after so many bytes
    headers: dict[str, str] = field(default_factory=dict)
    no_length: bool = False
    no_ranges: bool = False  # a Range is ignored
    ranged: tuple[int, dict[str, str]] | None = None  # what a request with a Range is answered with, and no body
    drip_at: int | None = None  # an answer without an end is slow after so many bytes; a range with one comes at once
    drips: int = 10_000  # so many times DRIP_BYTES, every DRIP_S; then the rest, at once (or once the gate is open)
    piece: Callable[[int, int], Fault | None] | None = None  # how a range with an end misbehaves, in place of all this
    chunked: bytes | None = None  # sent as a chunked body, whatever the Content-Length says


class Source:
    """An HTTP/1.1 server on loopback: `files` and `faults` are by path, and `asked` counts requests.

    It gives strong ETags, and parts of files where it is asked for them; `heads` are the requests' headers, by path.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()
        self.heads: dict[str, list[dict[str, str]]] = {}
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    source._answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                return

        self._server = Server(("127.0.0.1", 0), Handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for fault in self.faults.values():
            fault.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def put(self, path: str, data: bytes) -> str:
        """Serve `data` at `path`; its URL."""
        self.files[path] = data
        return self.url + path

    def fault(self, path: str, **how: Any) -> Fault:
        """Make a path misbehave from the next request on."""
        self.faults[path] = Fault(**how)
        return self.faults[path]

    def chunk(
        self, *, start: int = 0, end: int = 10, dataset: str = "d" * 64, files: int = 2, size: int = 1000, **kw: Any
    ) -> DataChunk:
        """A new chunk whose files this source serves, as `/ID/NAME`, with their sizes and digests."""
        chunk_id = kw.pop("id", None) or an_id()
        names = ["blocks.parquet", "logs.parquet", "traces.parquet", "transactions.parquet"][:files]
        sources = {}
        for name in names:
            data = content(f"{chunk_id}/{name}", size)
            url = self.put(f"/{chunk_id}/{name}", data)
            sources[name] = {"url": url, "size": size, "sha256": hashlib.sha256(data).hexdigest()}
        return DataChunk(id=chunk_id, dataset_id=dataset, block_range=(start, end), files=sources, **kw)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        self.asked[path] += 1
        self.heads.setdefault(path, []).append(dict(handler.headers.items()))
        fault, data = self.faults.get(path, Fault()), self.files.get(path)
        if data is None:
            handler.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if asked is not None and asked[2]:
            fault = (fault.piece and fault.piece(int(asked[1]), int(asked[2]) + 1)) or replace(fault, drip_at=None)
        empty = (fault.status, fault.headers) if fault.status != 200 else fault.ranged if asked is not None else None
        if empty is not None:
            _send_head(handler, empty[0], {"Content-Length": "0"} | empty[1])
            return
        whole, start = len(data), 0
        tag = fault.headers.get("ETag", etag_of(data))
        if asked is not None and not fault.no_ranges and handler.headers.get("If-Range", tag) == tag:
            start, end = int(asked[1]), int(asked[2] or whole - 1) + 1
            data = data[start:end]
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{whole}")
        else:
            handler.send_response(200)
        for name, value in (
            {"ETag": tag, "Accept-Ranges": "none" if fault.no_ranges else "bytes"} | fault.headers
        ).items():
            handler.send_header(name, value)
        if fault.no_length:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        elif "Content-Length" not in fault.headers:
            handler.send_header("Content-Length", str(len(data)))
        if fault.chunked is not None:
            handler.send_header("Transfer-Encoding", "chunked")
            data = (b"%x\r\n%b\r\n" % (len(fault.chunked), fault.chunked) if fault.chunked else b"") + b"0\r\n\r\n"
        handler.end_headers()
        _send_body(handler, data, fault)
        if fault.cut_at is not None:
            handler.close_connection = True


def _send_body(handler: BaseHTTPRequestHandler, data: bytes, fault: Fault) -> None:
    sent = 0
    if fault.drip_at is not None:
        handler.wfile.write(data[: fault.drip_at])
        sent = fault.drip_at
        for _ in range(fault.drips):
            if sent >= len(data) or fault.gate.wait(DRIP_S):
                break
            handler.wfile.write(data[sent : sent + DRIP_BYTES])
            sent += DRIP_BYTES
    if fault.stall_at is not None:
        handler.wfile.write(data[: fault.stall_at])
        handler.wfile.flush()
        sent = fault.stall_at
        fault.stalled.set()
        fault.gate.wait(PATIENCE_S)
    handler.wfile.write(data[sent : fault.cut_at])


def _send_head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def etag_of(data: bytes) -> str:
    """The strong ETag that a source gives for these bytes."""
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def expected(chunk: DataChunk, source: Source) -> dict[str, bytes]:
    """What the chunk's files are to be."""
    return {name: source.files[urlsplit(file.url).path] for name, file in chunk.files.items()}
