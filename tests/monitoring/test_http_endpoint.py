"""The endpoint: what it answers, where it listens, and that nobody keeps it from answering others."""

import http.client
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.monitoring import http_endpoint as endpoint
from fsdm.monitoring.health import Health
from fsdm.monitoring.http_endpoint import LASTING, MANY, Connection, Endpoint, parse_address
from tests.support import PATIENCE_S, eventually


class World:
    """An endpoint whose verdicts are set by hand."""

    def __init__(self, address: str = "127.0.0.1:0", page: WSGIApplication | None = None) -> None:
        self.health, self.ready = Health(True, "reconciling"), Health(False, "starting")
        self.it = Endpoint(address, health=lambda: self.health, readiness=lambda: self.ready, page=page)
        self.host, _, port = self.it.url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        with closing(http.client.HTTPConnection(self.host.strip("[]"), self.port, timeout=PATIENCE_S)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host.strip("[]"), self.port), timeout=PATIENCE_S)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world.it.serving():
        yield world


def test_each_path_says_what_it_is_asked_for(world: World) -> None:
    assert world.ask("/healthz") == (200, "reconciling\n")
    assert world.ask("/readyz") == (503, "starting\n")
    assert world.ask("/") == (200, "/metrics\n/healthz\n/readyz\n")
    assert world.ask("/else")[0] == 404
    assert world.ask("/healthz", "HEAD") == (200, "")
    assert world.ask("/healthz", "POST")[0] == 405


def test_a_verdict_is_of_the_moment(world: World) -> None:
    world.health = Health(False, "the reconciler is stuck")
    assert world.ask("/healthz") == (503, "the reconciler is stuck\n")
    world.health = Health(True, "reconciling")
    assert world.ask("/healthz")[0] == 200


def test_metrics_are_served_once_there_are_any(world: World) -> None:
    assert world.ask("/metrics") == (503, "starting\n")

    def metrics(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"fsdm_x 1\n"]

    world.it.metrics = metrics
    assert world.ask("/metrics") == (200, "fsdm_x 1\n")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9464", ("::1", 9464)),
        (":9464", ("", 9464)),
    ],
)
def test_addresses_are_taken(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9464", "127.0.0.1", "::1:9464", "[::1]", "h:", "h:x", "h:65536", "h:-1", "h:٣"])
def test_what_is_no_address_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"--metrics-addr: .* is no address"):
        parse_address(text)


def test_an_address_that_is_taken_is_a_clear_error(world: World) -> None:
    with pytest.raises(InvalidInputError, match=f"--metrics-addr: 127.0.0.1:{world.port}: Address already in use"):
        World(f"127.0.0.1:{world.port}")


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_a_host_that_is_not_ours_is_a_clear_error(address: str) -> None:
    with pytest.raises(InvalidInputError, match="--metrics-addr"):
        World(address)


def test_it_listens_on_the_address_that_was_given_and_on_no_other(world: World) -> None:
    assert world.it.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", world.port), timeout=PATIENCE_S)


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_it_listens_on_ipv6_and_without_a_host_on_every_address() -> None:
    try:
        world = World("[::1]:0")
    except InvalidInputError:
        pytest.skip("there is no IPv6 loopback here")
    with world.it.serving():
        assert world.host == "[::1]"
        assert world.ask("/healthz")[0] == 200
    everywhere = World(":0")
    with everywhere.it.serving():
        everywhere.host = "127.0.0.1"
        assert everywhere.ask("/healthz")[0] == 200


def _busy() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@contextmanager
def _slow_clients(world: World, count: int) -> Iterator[list[socket.socket]]:
    clients = [world.connect() for _ in range(count)]
    try:
        for client in clients:
            with suppress(OSError):  # it was ended already: that is what is being tested
                client.sendall(b"GET /heal")
        yield clients
    finally:
        for client in clients:
            client.close()


def test_a_hundred_slow_clients_keep_no_thread_and_no_probe(world: World) -> None:
    before = _busy()  # other tests' servers may still have some
    with _slow_clients(world, 100) as clients:
        for _ in range(5):
            eventually(lambda: _is_answered(world), "who asks in one go is answered")
        assert _busy() <= before + 2 * MANY
        assert eventually(lambda: sum(map(_is_ended, clients)) >= 100 - MANY)
    eventually(lambda: _busy() <= before, "every thread has ended")
    eventually(lambda: len(world.it._deadlines) == 0)


def _is_answered(world: World) -> bool:
    try:
        return world.ask("/healthz") == (200, "reconciling\n")
    except (OSError, http.client.HTTPException):  # those that were ended have not all gone yet: one asks again
        return False


def _is_ended(client: socket.socket, dripping: bytes = b"") -> bool:
    client.setblocking(False)
    try:
        client.sendall(dripping)
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_client_that_drips_has_a_deadline_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "DEADLINE_S", 0.2)
    with closing(world.connect()) as client:
        eventually(lambda: _is_ended(client, dripping=b"x"))


def test_junk_is_answered_or_dropped_without_a_print(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    long = b"GET " + b"x" * 100_000 + b"\r\n\r\n"
    for junk in (b"\r\n\r\n", b"\x16\x03\x01 tls\r\n\r\n", long, b"GET / HTTP/9.9\r\n\r\n"):
        with closing(world.connect()) as client, suppress(OSError):
            client.sendall(junk)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert world.ask("/healthz")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_connection_is_closed_when_no_thread_can_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(endpoint.socketserver.threading.Thread, "start", _no_thread)
        with closing(world.connect()) as client:
            assert client.recv(1) == b""
    assert world.ask("/healthz")[0] == 200
    assert eventually(lambda: len(world.it._deadlines) == 0) is True


def _no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_it_ends_at_once_whoever_is_connected() -> None:
    world = World()
    with closing(ExitStack()) as clients:
        with world.it.serving():
            clients.enter_context(closing(world.connect()))
            eventually(lambda: len(world.it._deadlines) == 1)
        assert len(world.it._deadlines) == 1, "it waits for nobody"
    with pytest.raises(OSError, match="refused"):
        world.connect()


class Lasting:
    """A page whose answers last until `gate` is set; what each write has, and what comes of it."""

    def __init__(self, text: bytes = b"begun") -> None:
        self.text, self.gate, self.write_s = text, threading.Event(), 60.0
        self.connections: list[Connection] = []

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        connection: Connection = environ["fsdm.connection"]
        if not connection.keep(self.write_s):
            start("503 Service Unavailable", [])
            return [b"too many"]
        self.connections.append(connection)
        start("200 OK", [])
        return self._stream(connection)

    def _stream(self, connection: Connection) -> Iterator[bytes]:
        yield self.text
        connection.keep()
        assert self.gate.wait(PATIENCE_S)
        yield b" ended"


@pytest.fixture
def lasting() -> Iterator[Lasting]:
    page = Lasting()
    yield page
    page.gate.set()


def _begin(world: World, stack: ExitStack, until: bytes = b"begun") -> socket.socket:
    client = stack.enter_context(closing(world.connect()))
    client.sendall(b"GET /events HTTP/1.0\r\n\r\n")
    read = b""
    while not read.endswith(until):
        read += client.recv(1 << 16)
        assert read
    return client


def test_page_answers_for_all_other_paths_and_probes_stay(lasting: Lasting) -> None:
    lasting.gate.set()
    world = World(page=lasting)
    with world.it.serving():
        assert world.ask("/") == world.ask("/else") == (200, "begun ended")
        assert world.ask("/healthz") == (200, "reconciling\n")
        assert world.ask("/metrics") == (503, "starting\n")
        assert world.ask("/", "POST")[0] == 405


def test_answer_that_lasts_outlives_the_deadline_of_others_and_takes_no_place(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "DEADLINE_S", 0.2)
    world = World(page=lasting)
    with world.it.serving(), ExitStack() as stack:
        clients = [_begin(world, stack) for _ in range(LASTING)]
        with _slow_clients(world, 2 * MANY) as slow:
            eventually(lambda: all(map(_is_ended, slow)), "the deadline of others has passed")
        assert not any(map(_is_ended, clients))
        assert world.ask("/more") == (503, "too many")
        assert world.ask("/healthz")[0] == 200
        lasting.gate.set()
        for client in clients:
            client.setblocking(True)
            assert client.recv(100) == b" ended"
        eventually(lambda: len(world.it._lasting) == 0)
        assert world.ask("/more")[0] == 200


def test_who_reads_nothing_is_ended_by_the_deadline_of_a_write(lasting: Lasting) -> None:
    lasting.text, lasting.write_s = bytes(1 << 26), 0.3  # more than sockets hold
    world = World(page=lasting)
    with world.it.serving(), closing(world.connect()) as client:
        client.sendall(b"GET /events HTTP/1.0\r\n\r\n")
        eventually(lambda: lasting.connections)
        eventually(lambda: len(world.it._lasting) == 0, "its thread has ended")


def test_what_is_not_read_is_seen(lasting: Lasting) -> None:
    world = World(page=lasting)
    with world.it.serving(), ExitStack() as stack:
        _begin(world, stack)
        [connection] = lasting.connections
        eventually(lambda: connection.unread_bytes() == 0)
        lasting.text = bytes(1 << 26)
        client = stack.enter_context(closing(world.connect()))
        client.sendall(b"GET /events HTTP/1.0\r\n\r\n")
        eventually(lambda: len(lasting.connections) == 2 and lasting.connections[1].unread_bytes() > 0)
