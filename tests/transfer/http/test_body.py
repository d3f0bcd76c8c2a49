"""A body by each of its roads: the same bytes, the same errors, and a connection that is left as it should be."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import stat
import struct
import threading
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, ReadTimeoutError

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileSource
from fsdm.model.errors import StoppedError, TransferError
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http import body
from fsdm.transfer.http.body import BLOCK_BYTES, PIPE_BYTES, SMALL_BYTES
from fsdm.transfer.resume_record import Part
from fsdm.transfer.sink import Sink, open_sink
from tests.support.chunks import content
from tests.support.servers import InThread, Opaque, a_certificate, serving_with
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsdm.model.documents import FileEntry

IDLE_S: Final = 0.1
WIRE_CHUNK: Final = 100_000
LARGE: Final = 3 * (1 << 20) + 5
POOL: Final = content("a body", LARGE)
OTHER: Final = content("another body", LARGE)
SIZES: Final = sorted(
    {0, 1, LARGE} | {edge + by for edge in (8192, BLOCK_BYTES, SMALL_BYTES, PIPE_BYTES) for by in (-1, 0, 1)}
)


# ----------------------------------------------------------------------------------------------------------- the server


@dataclass
class Answer:
    """What is sent for a path: a head, and then a body that may be held back, cut short or followed by more."""

    body: bytes
    framing: str = "length"  # or "chunked", or "close": without a length
    closing: bool = False  # with "Connection: close"
    stall_at: int | None = None  # all of these count in bytes on the wire
    cut_at: int | None = None
    reset: bool = False  # end with a RST rather than a FIN
    beyond: bytes = b""
    stalled: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def head(self) -> bytes:
        how = {
            "length": f"Content-Length: {len(self.body)}",
            "chunked": "Transfer-Encoding: chunked",
            "close": "X-Length: none",
        }[self.framing]
        closing = "Connection: close\r\n" * (self.closing or self.framing == "close")
        return f"HTTP/1.1 200 OK\r\n{how}\r\n{closing}\r\n".encode()

    @property
    def wire(self) -> bytes:
        if self.framing != "chunked":
            return self.body
        pieces = [self.body[at : at + WIRE_CHUNK] for at in range(0, len(self.body), WIRE_CHUNK)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Origin:
    """A server that says exactly what it is told to, and counts its connections."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.connections = 0
        self._tls = tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for answer in self.answers.values():
            answer.gate.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        self._server.close()

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def put(self, path: str, data: bytes, **how: Any) -> Answer:
        self.answers[path] = Answer(data, **how)
        return self.answers[path]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with suppress(OSError):  # the client may go at any moment
                while path := _asked(connection):
                    if not _answer(connection, self.answers[path]):
                        break
        except OSError:
            return  # no handshake
        finally:
            connection.close()


def _asked(connection: socket.socket) -> str:
    """The path that is asked for; "" where nothing is asked any more."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        part = connection.recv(65536)
        if not part:
            return ""
        request += part
    return request.split()[1].decode()


def _answer(connection: socket.socket, answer: Answer) -> bool:
    """Answer; whether the connection stays."""
    wire, sent = answer.wire, 0
    connection.sendall(answer.head)
    if answer.stall_at is not None:
        sent = answer.stall_at
        connection.sendall(wire[:sent])
        answer.stalled.set()
        answer.gate.wait(PATIENCE_S)
    connection.sendall(wire[sent : answer.cut_at] + answer.beyond)
    if answer.reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return not (answer.closing or answer.reset or answer.framing == "close" or answer.cut_at is not None)


# ------------------------------------------------------------------------------------------------------------ the roads


@dataclass
class Road:
    """One way of a body, and how to come onto it. `used` is what has been gone in fact."""

    name: str
    framing: str = "length"
    tls: bool = False
    certificate: Path | None = None
    used: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        return self.name.split()[0]

    def pour(self, raw: Any, sink: Sink, **kw: Any) -> None:
        body.pour(Opaque(raw) if self.kind == "stream" else raw, sink, **kw)  # type: ignore[arg-type]

    def origin(self) -> Origin:
        return Origin(serving_with(self.certificate) if self.certificate is not None else None)

    @contextmanager
    def pool(self, origin: Origin, timeout_s: float = PATIENCE_S) -> Iterator[urllib3.HTTPConnectionPool]:
        """One connection at most, kept alive."""
        how: dict[str, Any] = {"maxsize": 1, "block": True, "timeout": timeout_s, "retries": False}
        if self.certificate is None:
            pool = urllib3.HTTPConnectionPool("127.0.0.1", origin.port, **how)
        else:
            pool = urllib3.HTTPSConnectionPool("127.0.0.1", origin.port, ca_certs=f"{self.certificate}.crt", **how)
        try:
            yield pool
        finally:
            pool.close()


ROADS: Final = {
    "splice": Road("splice"),
    "readinto": Road("readinto"),
    "readinto chunked": Road("readinto chunked", "chunked"),
    "readinto without a length": Road("readinto without a length", "close"),
    "readinto over TLS": Road("readinto over TLS", tls=True),
    "stream": Road("stream"),
    "stream chunked": Road("stream chunked", "chunked"),
    "stream without a length": Road("stream without a length", "close"),
}
EVERY_ROAD: Final = pytest.mark.parametrize("road", ROADS, indirect=True)
SAYS_ITS_END: Final = pytest.mark.parametrize(
    "road", [name for name, road in ROADS.items() if road.framing != "close"], indirect=True
)
TELLS_NO_CUT: Final = ("splice", "readinto", "readinto without a length", "readinto over TLS")
SPLICE: Final = pytest.mark.parametrize("road", ["splice"], indirect=True)


@pytest.fixture
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """A road that a body of any size takes: what is too small for a pipe otherwise, too."""
    known = ROADS[request.param]
    road = Road(known.name, known.framing, known.tls)
    if known.tls:
        road.certificate = request.getfixturevalue("certificate")
    monkeypatch.setattr(body, "SMALL_BYTES", 0 if road.kind == "splice" else 1 << 40)
    for name in ("_splice", "_readinto"):
        monkeypatch.setattr(body, name, _noting(road.used, name, getattr(body, name)))
    monkeypatch.setattr("fsdm.transfer.fetcher.pour", road.pour)
    yield road
    body.drop_pipe()  # a test that fails is not to fail the next one


def _noting(used: set[str], name: str, function: Callable[..., None]) -> Callable[..., None]:
    def noting(*arguments: Any) -> None:
        used.add(name.strip("_"))
        function(*arguments)

    return noting


def take(
    road: Road,
    pool: urllib3.HTTPConnectionPool,
    path: str,
    target: Path,
    *,
    idle_timeout_s: float = PATIENCE_S,
    at_most: int | None = None,
    begun: Callable[[], object] = lambda: None,
    check: Callable[[Sink], object] = lambda sink: None,
) -> FileEntry:
    """One body into a file. `begun` is called when its head is here, `check` between its blocks."""
    sink = open_sink(str(target), sha256=True, writeback=False)
    try:
        raw = pool.urlopen("GET", path, preload_content=False)
        begun()
        try:
            road.pour(raw, sink, at_most=at_most, idle_timeout_s=idle_timeout_s, check=lambda: check(sink))
        finally:  # as requests' Response.close does it
            raw.close()
            raw.release_conn()
        return sink.entry()
    finally:
        os.close(sink.fd)


def assert_is(path: Path, data: bytes, entry: FileEntry | None = None) -> None:
    came = path.read_bytes()
    assert len(came) == len(data)
    assert came == data
    if entry is not None:
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())


# --------------------------------------------------------------------------------------------------------- what arrives


@EVERY_ROAD
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives_and_none_more(road: Road, tmp_path: Path, size: int) -> None:
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL[:size], framing=road.framing)
        assert_is(tmp_path / "file", POOL[:size], take(road, pool, "/", tmp_path / "file"))
    assert road.used == ({road.kind} if road.kind != "stream" and size > 0 else road.used)
    assert road.kind != "stream" or road.used == set()


@pytest.mark.parametrize(
    ("size", "how", "used"),
    [
        (SMALL_BYTES, {}, "readinto"),
        (SMALL_BYTES + 1, {}, "splice"),
        (SMALL_BYTES + 1, {"framing": "chunked"}, "readinto"),
        (SMALL_BYTES + 1, {"framing": "close"}, "readinto"),
    ],
)
@SPLICE
def test_a_large_body_of_known_length_takes_the_fastest_road(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, how: dict[str, Any], used: str
) -> None:
    monkeypatch.setattr(body, "SMALL_BYTES", SMALL_BYTES)
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL[:size], **how)
        assert_is(tmp_path / "file", POOL[:size], take(road, pool, "/", tmp_path / "file"))
    assert road.used == {used}


@pytest.mark.parametrize("road", ["readinto over TLS"], indirect=True)
def test_a_large_body_over_tls_is_never_spliced(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "SMALL_BYTES", 0)
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL)
        assert_is(tmp_path / "file", POOL, take(road, pool, "/", tmp_path / "file"))
    assert road.used == {"readinto"}


@SPLICE
def test_a_system_without_splice_takes_the_next_road(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "splice")
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL)
        assert_is(tmp_path / "file", POOL, take(road, pool, "/", tmp_path / "file"))
    assert road.used == {"readinto"}


def test_a_response_that_comes_from_no_socket_is_taken_too(tmp_path: Path) -> None:
    raw = urllib3.HTTPResponse(io.BytesIO(POOL), preload_content=False, headers={"Content-Length": str(len(POOL))})
    sink = open_sink(f"{tmp_path}/file", sha256=True, writeback=False)
    asked: list[int] = []
    try:
        body.pour(raw, sink, at_most=None, idle_timeout_s=1, check=lambda: asked.append(sink.size))
        assert_is(tmp_path / "file", POOL, sink.entry())
    finally:
        os.close(sink.fd)
    assert asked[0] == BLOCK_BYTES
    assert asked[-1] == len(POOL)


@EVERY_ROAD
def test_a_body_that_comes_in_two_parts_is_put_together(road: Road, tmp_path: Path) -> None:
    for at in (0, 1, 5000, LARGE // 2):
        with road.origin() as origin, road.pool(origin) as pool:
            answer = origin.put("/", POOL, framing=road.framing, stall_at=at)
            entry = take(road, pool, "/", tmp_path / str(at), begun=answer.gate.set)
            assert_is(tmp_path / str(at), POOL, entry)


# ------------------------------------------------------------------------------------------------------- the connection


@SAYS_ITS_END
@pytest.mark.parametrize("size", [0, 1, 100_000, LARGE])
def test_one_connection_serves_one_body_after_the_other(road: Road, tmp_path: Path, size: int) -> None:
    with road.origin() as origin, road.pool(origin) as pool:
        bodies = [POOL[:size], OTHER, POOL[: size // 2], OTHER[:size]]
        for number, data in enumerate(bodies):
            origin.put(f"/{number}", data, framing=road.framing)
            assert_is(tmp_path / str(number), data, take(road, pool, f"/{number}", tmp_path / str(number)))
        assert origin.connections == 1


@SAYS_ITS_END
@pytest.mark.parametrize("size", [1, 5000, LARGE])
def test_what_follows_the_body_on_its_connection_is_none_of_it(road: Road, tmp_path: Path, size: int) -> None:
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL[:size], framing=road.framing, beyond=b"#" * 20_000)
        assert_is(tmp_path / "file", POOL[:size], take(road, pool, "/", tmp_path / "file"))


@SPLICE
def test_what_follows_a_spliced_body_stays_on_the_socket_and_is_no_answer_to_the_next(
    road: Road, tmp_path: Path
) -> None:
    beyond = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL, beyond=beyond)
        origin.put("/next", OTHER)
        assert_is(tmp_path / "file", POOL, take(road, pool, "/", tmp_path / "file"))
        connection = pool.pool.get_nowait()  # type: ignore[union-attr]
        assert connection.sock is not None, "it is kept"
        assert connection.sock.gettimeout() == PATIENCE_S, "as it was"
        seen = eventually(lambda: (found := connection.sock.recv(100, socket.MSG_PEEK))[len(beyond) - 1 :] and found)
        assert seen == beyond
        pool.pool.put(connection)  # type: ignore[union-attr]
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))
        assert origin.connections == 2


@EVERY_ROAD
def test_a_connection_in_the_middle_of_a_body_serves_no_other(road: Road, tmp_path: Path) -> None:
    with road.origin() as origin, road.pool(origin, IDLE_S) as pool:
        answer = origin.put("/", POOL, framing=road.framing, stall_at=LARGE // 2)
        origin.put("/next", OTHER)
        with pytest.raises(ReadTimeoutError):
            take(road, pool, "/", tmp_path / "file", idle_timeout_s=IDLE_S)
        pool.timeout = urllib3.Timeout(PATIENCE_S)
        # nothing of the first body is on its way: only that it was not given back tells it from one at its end
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))
        assert answer.stalled.is_set()
        assert origin.connections == 2


# --------------------------------------------------------------------------------------------------- what breaks it off


@SAYS_ITS_END
@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("cut_at", [0, 1, 5000, LARGE // 2, -1])
def test_a_body_that_is_cut_short_is_an_error_of_the_connection(
    road: Road, tmp_path: Path, cut_at: int, closing: bool
) -> None:
    with road.origin() as origin, road.pool(origin) as pool:
        answer = origin.put("/", POOL, framing=road.framing, closing=closing)
        # http.client takes a "0" for the whole last line: only then is all of the body here
        answer.cut_at = -len(b"0\r\n\r\n") if cut_at == -1 and road.framing == "chunked" else cut_at
        with pytest.raises((HTTPError, body.http.client.HTTPException)):
            take(road, pool, "/", tmp_path / "file")
        origin.put("/next", OTHER)
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))


@pytest.mark.parametrize("road", ["splice", "readinto", "readinto over TLS"], indirect=True)
@pytest.mark.parametrize("closing", [False, True])
def test_an_error_says_how_much_of_a_body_is_missing(road: Road, tmp_path: Path, closing: bool) -> None:
    for cut_at in (0, LARGE // 2, LARGE - 1):
        with road.origin() as origin, road.pool(origin) as pool:
            origin.put("/", POOL, cut_at=cut_at, closing=closing)
            with pytest.raises(IncompleteRead) as caught:
                take(road, pool, "/", tmp_path / str(cut_at))
            assert (caught.value.partial, caught.value.expected) == (cut_at, LARGE - cut_at)


@EVERY_ROAD
@pytest.mark.parametrize("at", [0, 1, LARGE // 2])
def test_silence_is_given_up_after_the_idle_timeout(road: Road, tmp_path: Path, at: int) -> None:
    with road.origin() as origin, road.pool(origin, IDLE_S) as pool:
        answer = origin.put("/", POOL, framing=road.framing, stall_at=at)
        with pytest.raises(ReadTimeoutError):
            take(road, pool, "/", tmp_path / "file", idle_timeout_s=IDLE_S)
        assert answer.stalled.is_set()


@EVERY_ROAD
def test_a_reset_is_an_error_of_the_connection_and_not_of_the_disk(road: Road, tmp_path: Path) -> None:
    for at in (0, LARGE // 2):
        with road.origin() as origin, road.pool(origin) as pool:
            answer = origin.put("/", POOL, framing=road.framing, stall_at=at, cut_at=at, reset=True)
            with pytest.raises((ProtocolError, IncompleteRead)):  # over TLS, it may look like an end
                take(road, pool, "/", tmp_path / str(at), begun=answer.gate.set)


@EVERY_ROAD
def test_a_check_that_raises_ends_a_body_that_flows(road: Road, tmp_path: Path) -> None:
    seen: list[int] = []

    def check(sink: Sink) -> None:
        seen.append(sink.size)
        if len(seen) == 2:
            raise StoppedError("enough")

    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL, framing=road.framing)
        with pytest.raises(StoppedError):
            take(road, pool, "/", tmp_path / "file", check=check)
        assert 0 < seen[0] < seen[1] < LARGE
        origin.put("/next", OTHER)
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))
        assert origin.connections == 2


@pytest.mark.parametrize("road", ["readinto without a length", "readinto chunked"], indirect=True)
@pytest.mark.parametrize("at_most", [0, 1, 100_000, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_a_body_without_a_length_is_checked_one_byte_beyond_what_is_wanted(
    road: Road, tmp_path: Path, at_most: int
) -> None:
    def check(sink: Sink) -> None:
        if sink.size > at_most:
            raise TransferError("too much", transient=False)

    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL, framing=road.framing)
        with pytest.raises(TransferError, match="too much"):
            take(road, pool, "/", tmp_path / "file", at_most=at_most, check=check)
        assert (tmp_path / "file").stat().st_size == at_most + 1
        origin.put("/whole", POOL[:at_most], framing=road.framing)
        take(road, pool, "/whole", tmp_path / "whole", at_most=at_most, check=check)
        assert_is(tmp_path / "whole", POOL[:at_most])


@pytest.mark.parametrize("road", [name for name in ROADS if "stream" not in name], indirect=True)
def test_bytes_that_drip_are_looked_at_as_they_come(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "LOOK_S", 0.01 if road.kind == "splice" else 0.0)
    sizes = set()
    with road.origin() as origin, road.pool(origin) as pool:
        answer = origin.put("/", POOL[:1000], framing=road.framing, stall_at=100)

        def check(sink: Sink) -> None:
            sizes.add(sink.size)
            if 0 < sink.size < 1000:
                answer.gate.set()

        entry = take(road, pool, "/", tmp_path / "file", check=check, idle_timeout_s=PATIENCE_S)
    assert len(sizes - {0, 1000}) == 1, "a part of it was seen alone"
    assert_is(tmp_path / "file", POOL[:1000], entry)


@EVERY_ROAD
@pytest.mark.parametrize("most", [1, 1000, 5000, 100_000])
def test_blocks_as_small_as_a_cap_has_them_lose_no_byte(road: Road, tmp_path: Path, most: int) -> None:
    size = min(LARGE, 20_000 * most)
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL[:size], framing=road.framing)
        sink = open_sink(str(tmp_path / "file"), sha256=True, writeback=False)
        try:
            raw = pool.urlopen("GET", "/", preload_content=False)
            how: dict[str, Any] = {"at_most": None, "idle_timeout_s": IDLE_S, "check": lambda: None}
            road.pour(raw, sink, **how, block=lambda room: min(room, most))
            assert_is(tmp_path / "file", POOL[:size], sink.entry())
        finally:
            os.close(sink.fd)


@pytest.mark.parametrize("road", TELLS_NO_CUT, indirect=True)
def test_a_check_tells_a_connection_that_was_cut_on_purpose_from_one_that_broke(road: Road, tmp_path: Path) -> None:
    cut, path, at = threading.Event(), tmp_path / "file", 2 * BLOCK_BYTES

    def check(sink: Sink) -> None:
        if cut.is_set():
            raise StoppedError("cut on purpose")

    with road.origin() as origin, road.pool(origin) as pool:
        answer = origin.put("/", POOL, framing=road.framing, stall_at=at, cut_at=at)
        transfer = InThread(lambda: take(road, pool, "/", path, check=check))
        eventually(lambda: path.exists() and path.stat().st_size == at, "all that has been sent is here")
        cut.set()
        answer.gate.set()
        assert isinstance(transfer.join(), StoppedError)


@EVERY_ROAD
@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("at", [0, LARGE // 2])
def test_a_stop_ends_a_body_that_waits_for_a_byte(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, closing: bool
) -> None:
    if road.certificate is not None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{road.certificate}.crt")
    stop, path = Cancellation(), tmp_path / "file"
    with road.origin() as origin:
        answer = origin.put("/", POOL, framing=road.framing, stall_at=at, closing=closing)
        fetch = HttpFetcher().fetch
        transfer = InThread(lambda: fetch(FileSource(url=f"{origin.url}/"), Part(str(path)), FileSystem(), stop))
        assert answer.stalled.wait(PATIENCE_S)
        eventually(path.exists, "the head has come")
        stop.set()
        assert isinstance(transfer.join(), StoppedError)


# ------------------------------------------------------------------------------------------------------------- the pipe


class Splice:
    """splice(2) that takes what a socket gives and hands a file `first` bytes, and then fails in this way."""

    def __init__(self, code: int, first: int) -> None:
        self.refused = 0
        self._code = code
        self._left = first
        self._splice = os.splice

    def __call__(self, source: int, target: int, count: int) -> int:
        if stat.S_ISSOCK(os.fstat(source).st_mode):
            return self._splice(source, target, count)
        if self._left > 0:
            moved = self._splice(source, target, min(count, self._left))
            self._left -= moved
            return moved
        self.refused += 1
        raise OSError(self._code, os.strerror(self._code))


@SPLICE
@pytest.mark.parametrize("first", [0, 1, 5000, LARGE // 2])
def test_a_file_system_that_takes_no_splice_gets_its_bytes_by_hand(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    splice = Splice(errno.EINVAL, first)
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL)
        with monkeypatch.context() as m:
            m.setattr(os, "splice", splice)
            assert_is(tmp_path / "file", POOL, take(road, pool, "/", tmp_path / "file"))
        assert splice.refused > 0
        origin.put("/next", OTHER)
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))
        assert origin.connections == 1


@SPLICE
@pytest.mark.parametrize("first", [0, 1, 5000, LARGE // 2])
def test_a_full_disk_is_an_error_of_the_disk_and_leaves_nothing_for_the_next_file(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL)
        origin.put("/next", OTHER)
        with monkeypatch.context() as m:
            m.setattr(os, "splice", Splice(errno.ENOSPC, first))
            with pytest.raises(OSError, match="No space left") as caught:
                take(road, pool, "/", tmp_path / "file")
        assert caught.value.errno == errno.ENOSPC
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))
        assert origin.connections == 2


@SPLICE
@pytest.mark.parametrize("method", ["put", "took"])
@pytest.mark.parametrize("first", [0, 5000])
def test_a_disk_that_fails_while_bytes_go_by_hand_leaves_nothing_for_the_next_file(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, method: str
) -> None:
    splice, known = Splice(errno.EINVAL, first), getattr(Sink, method)

    def refuse(sink: Sink, what: Any) -> None:
        if splice.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        known(sink, what)

    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL)
        origin.put("/next", OTHER)
        with monkeypatch.context() as m:
            m.setattr(os, "splice", splice)
            m.setattr(Sink, method, refuse)
            with pytest.raises(OSError, match="Input/output error"):
                take(road, pool, "/", tmp_path / "file")
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))


@EVERY_ROAD
def test_a_disk_that_refuses_to_be_written_is_no_error_of_the_connection(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, data: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL, framing=road.framing)
        origin.put("/next", OTHER)
        with monkeypatch.context() as m:
            m.setattr("fsdm.transfer.sink.write_all", refuse)
            with pytest.raises(OSError, match="No space left"):
                take(road, pool, "/", tmp_path / "file")
        assert_is(tmp_path / "next", OTHER, take(road, pool, "/next", tmp_path / "next"))


@SPLICE
def test_a_pipe_that_may_not_be_large_works_as_well(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    body.drop_pipe()
    monkeypatch.setattr("fcntl.fcntl", refuse)
    with road.origin() as origin, road.pool(origin) as pool:
        origin.put("/", POOL)
        assert_is(tmp_path / "file", POOL, take(road, pool, "/", tmp_path / "file"))
    assert road.used == {"splice"}
    body.drop_pipe()


@SPLICE
def test_threads_have_pipes_and_buffers_of_their_own_which_end_with_them(road: Road, tmp_path: Path) -> None:
    both, pipes = threading.Barrier(2, timeout=PATIENCE_S), list[weakref.ref[Any]]()

    def one(path: str) -> None:
        met: list[int] = []  # each has taken a block before the other takes its second

        def check(sink: Sink) -> None:
            if not met:
                met.append(both.wait())

        with road.pool(origin) as pool:
            take(road, pool, path, tmp_path / path[1:], check=check)
        pipes.append(weakref.ref(body._threads.pipe))

    with road.origin() as origin:
        origin.put("/a", POOL)
        origin.put("/b", OTHER)
        threads = [InThread(lambda path=path: one(path)) for path in ("/a", "/b")]  # type: ignore[misc]
        assert [thread.join() for thread in threads] == [None, None]
    assert_is(tmp_path / "a", POOL)
    assert_is(tmp_path / "b", OTHER)
    eventually(lambda: [pipe() for pipe in pipes] == [None, None], "the pipes are closed")


# ------------------------------------------------------------------------------------------------------------------ TLS


def fetch(origin: Origin, path: Path) -> FileEntry:
    return HttpFetcher().fetch(FileSource(url=f"{origin.url}/"), Part(str(path)), FileSystem(), Cancellation())


def test_a_file_comes_over_tls_from_whom_the_environment_trusts(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    with Origin(serving_with(certificate)) as origin:
        origin.put("/", POOL)
        entry = fetch(origin, tmp_path / "file")
    assert entry.size == LARGE
    assert_is(tmp_path / "file", POOL)


def test_a_certificate_that_nobody_vouches_for_is_refused_for_good(certificate: Path, tmp_path: Path) -> None:
    with Origin(serving_with(certificate)) as origin:
        origin.put("/", POOL)
        with pytest.raises(TransferError, match=r"(?i)certificate") as caught:
            fetch(origin, tmp_path / "file")
    assert (caught.value.transient, caught.value.cause) == (False, "tls")
    assert not (tmp_path / "file").exists()


def test_a_certificate_for_another_name_is_refused_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = a_certificate(tmp_path, "DNS:example.org")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{others}.crt")
    with Origin(serving_with(others)) as origin:
        origin.put("/", POOL)
        with pytest.raises(TransferError) as caught:
            fetch(origin, tmp_path / "file")
    assert not caught.value.transient
    assert not (tmp_path / "file").exists()
