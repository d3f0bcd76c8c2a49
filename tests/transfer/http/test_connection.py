"""A plain head is read as http.client reads it, and a kept connection is asked, cut and given back as a new one is."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileSource
from fsdm.model.errors import HostError, StoppedError
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http.connection import Pool, _Answer, cut_by
from fsdm.transfer.resume_record import Part
from tests.support.servers import Host, InThread, Wire, read
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REST = b" HTTP/1.1\r\nHost: here\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


# ----------------------------------------------------------------------------------------------------------- the head


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_an_answer_that_urllib3_refuses_does_not_stay_open(
    more: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[_Answer] = []

    class Seen(_Answer):
        def begin(self) -> None:
            made.append(self)
            super().begin()

    monkeypatch.setattr("fsdm.transfer.http.connection.Guarded.response_class", Seen)
    with Host() as host:
        host.default = b"HTTP/1.1 200 OK\r\n" + more + b"Content-Length: 4, 5\r\n\r\nbody"
        part = Part(str(tmp_path / "file"))
        with pytest.raises(HostError, match="InvalidHeader"):
            HttpFetcher().fetch(FileSource(url=f"{host.url}/"), part, FileSystem(), Cancellation())
        assert [answer.isclosed() for answer in made] == [True]


NAMES = st.sampled_from(
    [
        "Content-Length",
        "content-length",
        "Content-Type",
        "Connection",
        "Transfer-Encoding",
        "ETag",
        "X-A",
        "Bad Name",
        "",
    ]
)
VALUES = st.sampled_from(
    [
        "4",
        "0",
        " 4",
        "04",
        "-1",
        "+4",
        "4, 4",
        "4 4",
        "\u0664",
        "9" * 30,
        "close",
        "Keep-Alive",
        "chunked",
        "é",
        "a\x0bb",
    ]
) | st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=8)
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([":", ": ", ":\t ", " : ", ""]), VALUES), max_size=5)
LINES = st.sampled_from(
    [
        *("HTTP/1.1 200 OK", "HTTP/1.1 206 Partial Content", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 OK"),
        *("HTTP/1.1 204 None", "HTTP/1.1 404 Not  Found", "HTTP/1.1 2000 OK", "HTTP/2 200", "SSH-2.0", ""),
    ]
)


@given(line=LINES, fields=FIELDS, end=st.sampled_from(["\r\n", "\n"]), last=st.sampled_from(["\r\n", "\n", ""]))
@example(line="HTTP/1.1 200 OK", fields=[("Content-Length", ": ", "4"), ("X", ":", "é \t")], end="\r\n", last="\r\n")
@example(
    line="HTTP/1.1 200 OK", fields=[("Content-Length", ":", "4"), ("content-length", ":", "2")], end="\r\n", last="\r\n"
)
def test_whatever_comes_is_read_as_http_client_reads_it(
    line: str, fields: list[tuple[str, str, str]], end: str, last: str
) -> None:
    head = f"{line}{end}" + "".join(f"{name}{colon}{value}{end}" for name, colon, value in fields) + last
    data = head.encode("latin-1", "replace") + b"body and more"
    assert read(_Answer, data) == read(http.client.HTTPResponse, data)


@pytest.mark.parametrize(
    ("head", "plain"),
    [
        (b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-4/5\r\nContent-Length: 4\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nServer: a\r\n folded\r\nContent-Length: 4\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nServer: a\r\n\r\n", False),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 4\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: " + b"x" * 9000 + b"\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n" + b"X: x\r\n" * 101 + b"\r\n", False),
    ],
)
def test_only_a_plain_head_is_taken_at_once(head: bytes, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[object] = []

    def begin(answer: http.client.HTTPResponse) -> None:
        left.append(answer)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin)
    _Answer(Wire(head + b"body"), method="GET").begin()  # type: ignore[arg-type]
    assert (left == []) is plain


class Endless:
    """A server that begins an answer and goes on with it for ever, a little at a time."""

    def __init__(self, first: bytes, more: bytes) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._first, self._more = first, more
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.getsockname()[1]}/"

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.close()
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._first)
            while not self._over.wait(0.005):
                connection.sendall(self._more)


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"y"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X: x\r\n"),
    ],
)
def test_what_goes_on_for_ever_around_a_body_is_an_error(
    first: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fsdm.transfer.http.connection.HEAD_S", 0.1)
    with Endless(first, more) as url, pytest.raises(HostError, match="the head of the answer does not end"):
        HttpFetcher().fetch(FileSource(url=url), Part(str(tmp_path / "f")), FileSystem(), Cancellation())


# -------------------------------------------------------------------------------------------------- a kept connection


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Pool, list[bytes]]]:
    """A pool for a server that gives these answers to one request each, b"" closes; and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            left = list(answers)
            while left:
                connection, _ = server.accept()
                with connection:
                    while request := connection.recv(65536):
                        asked.append(request)
                        if not left or not (answer := left.pop(0)):
                            break
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Pool("127.0.0.1", server.getsockname()[1]) as pool:
            yield pool, asked
            pool.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def opened(pool: Pool) -> Any:
    """The connection of a first request, which has been taken whole and given back."""
    answer = pool.urlopen("GET", "/first", preload_content=False)
    conn = answer.connection
    assert answer.read() == b"body"
    return conn


def test_a_kept_connection_is_asked_with_the_bytes_that_it_is_given() -> None:
    with serving(OK, OK) as (pool, asked):
        conn = opened(pool)
        assert conn.asked == asked[0]
        answer = pool.ask("/second", REST, PATIENCE_S)
        assert answer is not None
        assert (answer.status, answer.reason, answer.headers["content-length"], answer.read()) == (
            200,
            "OK",
            "4",
            b"body",
        )
        assert asked[1] == b"GET /second" + REST
        assert pool.num_connections == 1


def test_where_no_connection_is_kept_nothing_is_asked() -> None:
    with serving() as (pool, asked):
        assert pool.ask("/", REST, PATIENCE_S) is None
        assert (asked, pool.num_connections) == ([], 1)


def test_a_connection_that_the_server_closes_after_its_answer_is_not_asked_again() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with serving(OK, closing) as (pool, _):
        opened(pool)
        answer = pool.ask("/second", REST, PATIENCE_S)
        assert answer is not None
        assert answer.read() == b"body"
        assert pool.ask("/third", REST, PATIENCE_S) is None


def test_a_kept_connection_that_its_server_has_ended_is_none_that_can_be_asked() -> None:
    with serving(OK, b"") as (pool, _):
        conn = opened(pool)
        assert pool.ask("/second", REST, PATIENCE_S) is None
        assert conn.sock is None
        assert pool.pool is not None
        assert pool.pool.qsize() == 1, "its place is given back"


def test_an_answer_that_is_none_is_an_error_of_the_connection_which_is_closed() -> None:
    with serving(OK, b"SSH-2.0\r\n") as (pool, _):
        conn = opened(pool)
        with pytest.raises(ProtocolError):
            pool.ask("/second", REST, PATIENCE_S)
        assert conn.sock is None
        assert pool.pool is not None
        assert pool.pool.qsize() == 1, "its place is given back"


def test_silence_is_an_error_of_its_own() -> None:
    with serving(OK, b"HTTP") as (pool, _):
        opened(pool)
        with pytest.raises(ReadTimeoutError):
            pool.ask("/second", REST, 0.05)


def test_a_stop_cuts_a_kept_connection_that_waits_for_an_answer() -> None:
    stop = Cancellation()

    def wait() -> None:
        with cut_by(stop):
            try:
                pool.ask("/second", REST, 10 * PATIENCE_S)
            except ProtocolError:
                stop.check()

    with serving(OK, b"HTTP/1.1") as (pool, asked):
        opened(pool)
        waiting = InThread(wait)
        eventually(lambda: len(asked) == 2, "it waits")
        stop.set()
        assert isinstance(waiting.join(), StoppedError)
