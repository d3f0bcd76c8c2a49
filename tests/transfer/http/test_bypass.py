"""Bodies that are read past libcurl: which they are, that no byte is left out, and how they end."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import HostError, StoppedError
from fsdm.transfer.http import bypass, exchange
from fsdm.transfer.http.bypass import Bypass
from tests.support import PATIENCE_S
from tests.support.chunks import content
from tests.support.servers import Host, InThread, an_engine, answering, get, proxying, reply, serving_with

BODY = content("a large body", 12 << 20)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each bypass was asked for."""
    counts: list[int] = []
    run = Bypass.run

    def counting(self: Bypass, left: int, *args: object) -> int:
        counts.append(left)
        return run(self, left, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Bypass, "run", counting)
    monkeypatch.setattr(bypass, "ROUND_TRIPS", 0)  # however slow this machine is just now
    monkeypatch.setattr(exchange, "LOOK_S", 0.0)
    return counts


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def test_bypass_begins_only_where_all_that_was_read_was_handed_on(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(b"before")
    assert ours.recv(100) == b"before"
    rest = Bypass(ours.fileno())
    theirs.sendall(b"0123456789")
    assert ours.recv(4) == b"0123"
    assert not rest.is_worth(1 << 40, len(b"before") + 3), "a byte is held back"
    assert rest.is_worth(1 << 40, len(b"before") + 4)


def test_bypass_is_for_servers_that_are_near(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = Bypass(ends[0].fileno())
    assert rest.is_worth(1 << 40, 0)
    monkeypatch.setattr(bypass, "ROUND_TRIPS", 1 << 60)
    assert not rest.is_worth(1 << 40, 0)


@pytest.mark.parametrize("block_bytes", [1000, 16 << 10, 1 << 20])
def test_large_plain_body_is_taken_whole(taken: list[int], monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(exchange, "BLOCK_BYTES", block_bytes)
    engine = an_engine()
    with Host() as host:
        host.default = reply(BODY)
        for _ in range(3):
            assert get(engine, host.url) == (200, BODY)
        host.default = reply(b"small")
        assert get(engine, host.url) == (200, b"small")
    assert len(taken) == 3


def test_body_that_comes_with_its_connection_kept_is_taken_to_its_last_byte_and_no_further(taken: list[int]) -> None:
    with answering([HEAD + BODY + b"HTTP/1.1 200 OK\r\n"]) as (url, _):
        assert get(an_engine(), url) == (200, BODY)
    assert len(taken) == 1


def test_other_bodies_are_left_to_libcurl(taken: list[int], monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    with answering([chunked, b"HTTP/1.0 200 OK\r\n\r\n" + BODY]) as (url, _):
        assert get(an_engine(), url) == (200, BODY)
        assert get(an_engine(), url) == (200, BODY)
    with Host(serving_with(certificate)) as host:
        host.default = reply(BODY)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert get(an_engine(), host.url) == (200, BODY)
    with Host() as proxy:
        proxy.default = reply(BODY)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert get(an_engine(), "http://lake.example/") == (200, BODY)
    assert taken == []


def test_bytes_before_a_break_are_handed_on(taken: list[int]) -> None:
    came, has_begun = bytearray(), threading.Event()

    def take(data: memoryview) -> None:
        came.extend(data)
        has_begun.set()

    def serve(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(HEAD + BODY[:1000])
        assert has_begun.wait(PATIENCE_S)
        client.sendall(BODY[1000:-7])

    with (
        proxying(serve) as url,
        pytest.raises(HostError, match=r"^[^ ]+ end of response with 7 bytes missing$") as caught,
    ):
        an_engine().get(url, {}, Cancellation(), lambda _: take)
    assert (caught.value.transient, caught.value.cause) == (True, "connection")
    assert bytes(came) == BODY[:-7]
    assert len(taken) == 1


@pytest.fixture
def stalled() -> Iterator[str]:
    """A server that sends half of the body, and no more."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(HEAD + BODY[: len(BODY) // 2])
                over.wait(PATIENCE_S)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        over.set()
        thread.join(PATIENCE_S)


def test_silence_ends_it(taken: list[int], stalled: str) -> None:
    with pytest.raises(HostError, match=r"not a byte for 0\.3 s"):
        an_engine(idle_timeout_s=0.3).get(stalled, {}, Cancellation(), lambda _: lambda _: None)
    assert len(taken) == 1


def test_stop_ends_it_at_once(taken: list[int], stalled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bypass, "WAIT_MS", PATIENCE_S * 10_000)  # nothing else ends its wait
    monkeypatch.setattr(bypass, "WAKE_BYTES", 1)
    came, half, stop = bytearray(), threading.Event(), Cancellation()

    def take(data: memoryview) -> None:
        came.extend(data)
        if len(came) == len(BODY) // 2:
            half.set()

    waiting = InThread(lambda: an_engine().get(stalled, {}, stop, lambda _: take))
    assert half.wait(PATIENCE_S)
    stop.set()
    assert isinstance(waiting.join(), StoppedError)


def test_error_of_the_taker_is_raised(taken: list[int]) -> None:
    came = bytearray()

    def take(data: memoryview) -> None:
        came.extend(data)
        if len(came) > len(BODY) // 2:
            raise OSError(28, "No space left on device")

    with Host() as host:
        host.default = reply(BODY)
        with pytest.raises(OSError, match="No space left"):
            an_engine().get(host.url, {}, Cancellation(), lambda _: take)
    assert len(came) < len(BODY)
    assert len(taken) == 1
