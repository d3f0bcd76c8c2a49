"""An HTTP source on loopback that can misbehave."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from fsdm import DataChunk
from tests.support.chunks import an_id, content
from tests.support.waiting import PATIENCE_S

DRIP_BYTES, DRIP_S = 1000, 0.01


@dataclass
class Fault:
    """How a path misbehaves; with nothing said, it does as it should.

    What is answered, and what its head says:
        status: another one than 200 (or 206, for a range): with `headers`, and `body` or nothing.
        headers: in place of those that are right. A Content-Length among them is a lie; else it is that of the body.
        body: served in place of the file.
        no_length: the head says no length, and the connection's end is the body's.
        no_ranges: a Range is ignored.
        ranged: the status and headers for a request with a Range; the body is the one that the Content-Range says.
        piece: how a range with an end misbehaves, in place of all this; it is called with its start and end.
        chunked: sent as a chunked body, whatever the Content-Length says.
        raw: sent in place of any answer; then the connection ends.

    How it comes:
        stall_at: the answer is held back after so many bytes of the body, until `gate` is set; `stalled` is set then.
        cut_at: the connection breaks after so many bytes; with `reset`, by a RST.
        drip_at: an answer without an end is slow after so many bytes: `drips` times DRIP_BYTES, every DRIP_S, and then
            the rest, at once (or once `gate` is set). A range with an end comes at once.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    no_length: bool = False
    no_ranges: bool = False
    ranged: tuple[int, dict[str, str]] | None = None
    piece: Callable[[int, int], Fault | None] | None = None
    chunked: bytes | None = None
    raw: bytes | None = None
    stall_at: int | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    cut_at: int | None = None
    reset: bool = False
    drip_at: int | None = None
    drips: int = 10_000


class Source:
    """An HTTP/1.1 server on loopback, a context manager.

    It gives strong ETags, 304 for the one that is known, and ranges where it is asked for them.

    `files` are the bytes by path; of a path that is not among them, `made` gives the bytes, or None for a 404. `faults`
    are by path, from the next request on; a subclass may have others by `fault_for`. `asked` counts the requests, and
    `heads` are their headers, by path.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, made: Callable[[str], bytes | None] = lambda path: None
    ) -> None:
        self.files: dict[str, bytes] = {}
        self._made = made
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

    def fault_for(self, path: str, data: bytes) -> Fault:
        """How the next answer for a path misbehaves, whose bytes these are."""
        return self.faults.get(path) or Fault()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        self.asked[path] += 1
        self.heads.setdefault(path, []).append(dict(handler.headers.items()))
        data = self.files[path] if path in self.files else self._made(path)
        if data is None:
            handler.send_error(404)
            return
        fault = self.fault_for(path, data)
        if fault == Fault() and handler.headers.get("If-None-Match") == etag_of(data):
            handler.send_response(304)
            handler.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if asked is not None and asked[2]:
            fault = (fault.piece and fault.piece(int(asked[1]), int(asked[2]) + 1)) or replace(fault, drip_at=None)
        if fault.raw is not None:
            handler.wfile.write(fault.raw)
            handler.close_connection = True
            return
        status, headers, body = _reply(data, fault, asked, handler.headers.get("If-Range"))
        if fault.no_length:
            headers["Connection"] = "close"
        else:
            headers.setdefault("Content-Length", str(len(body)))
        if fault.chunked is not None:
            headers["Transfer-Encoding"] = "chunked"
            body = (b"%x\r\n%b\r\n" % (len(fault.chunked), fault.chunked) if fault.chunked else b"") + b"0\r\n\r\n"
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        _send_body(handler, body, fault)


def _reply(
    data: bytes, fault: Fault, asked: re.Match[str] | None, if_range: str | None
) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of an answer."""
    if asked is not None and fault.ranged is not None:
        status, headers = fault.ranged
        return status, dict(headers), _said_by(headers, asked, data) if status == 206 else b""
    if fault.status != 200:
        return fault.status, dict(fault.headers), fault.body or b""
    body = data if fault.body is None else fault.body
    tag = fault.headers.get("ETag", etag_of(body))
    headers = {"ETag": tag, "Accept-Ranges": "none" if fault.no_ranges else "bytes"} | fault.headers
    if asked is None or fault.no_ranges or if_range not in {None, tag}:
        return 200, headers, body
    start, whole = int(asked[1]), len(body)
    body = body[start : int(asked[2] or whole - 1) + 1]
    return 206, {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{whole}"} | headers, body


def _said_by(headers: dict[str, str], asked: re.Match[str], data: bytes) -> bytes:
    """Give the bytes that a head says: of its range, or the one asked for, as many as it says."""
    span = re.match(r"bytes (\d+)-(\d+)/", headers.get("Content-Range", ""))
    start, last = (int(span[1]), int(span[2])) if span else (int(asked[1]), len(data) - 1)
    body = data.ljust(last + 1, b"\0")[start : last + 1]
    return body[: int(headers.get("Content-Length", len(body)))]


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
    handler.close_connection |= fault.cut_at is not None
    if fault.reset:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()


def etag_of(data: bytes) -> str:
    """The strong ETag that a source gives for these bytes."""
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def expected(chunk: DataChunk, source: Source) -> dict[str, bytes]:
    """Give the bytes that the files of a chunk are to have."""
    return {name: source.files[urlsplit(file.url).path] for name, file in chunk.files.items()}
