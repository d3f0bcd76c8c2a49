"""Requests over libcurl: whom they go to, over which connection, what is sent, and how they end."""

import base64
import gc
import importlib.util
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import HostError, StoppedError, TransferError
from fsdm.transfer.fetcher import HttpEngine
from fsdm.transfer.http import exchange
from fsdm.transfer.http.bypass import Bypass
from fsdm.transfer.http.exchange import DRAIN_BYTES
from fsdm.transfer.http.head import Head
from fsdm.transfer.http.route import BELIEVED_S
from tests.support import PATIENCE_S, descriptors, eventually
from tests.support.servers import (
    CUT_SHORT,
    Host,
    InThread,
    a_certificate,
    an_engine,
    answering,
    fields,
    get,
    join,
    proxying,
    reply,
    serving_with,
    tunnel,
)

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def engine() -> HttpEngine:
    return an_engine()


# ------------------------------------------------------------------------------------------------------- what is sent


def test_path_is_sent_as_it_is(host: Host, engine: HttpEngine) -> None:
    get(engine, f"{host.url}/a/../b%41?c=%2Fd")
    assert host.asked[0].split(b"\r\n")[0] == b"GET /a/../b%41?c=%2Fd HTTP/1.1"


def test_request_asks_for_bytes_as_they_are(host: Host, engine: HttpEngine) -> None:
    get(engine, f"{host.url}/a?c=%2Fd", {"Range": "bytes=1-", "If-Range": '"\xe9"'})
    assert host.asked[0].split(b"\r\n")[0] == b"GET /a?c=%2Fd HTTP/1.1"
    for name, value in {
        b"accept-encoding": b"identity",
        b"user-agent": b"fsdm",
        b"accept": b"*/*",
        b"range": b"bytes=1-",
        b"if-range": b'"\xe9"',
        b"host": host.where.encode(),
    }.items():
        assert fields(host.asked[0], name) == [value]


def test_headers_of_a_request_go_with_that_request_alone(host: Host, engine: HttpEngine) -> None:
    for headers in ({}, {"Range": "bytes=1-"}, {}):
        get(engine, f"{host.url}/file", headers)
    assert [bool(fields(request, b"range")) for request in host.asked] == [False, True, False]


def test_credentials_of_netrc_go_with_every_request(
    host: Host, engine: HttpEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Host() as other:
        host.answers["/c"] = reply(status="302 Found", Location=f"{other.url}/file")
        for name in "abc":
            assert get(engine, f"{host.url}/{name}") == (200, b"body")
        basic = b"Basic " + base64.b64encode(b"me:mine")
        assert [fields(request, b"authorization") for request in host.asked + other.asked] == [[basic]] * 4


def test_credentials_of_one_url_do_not_go_with_another_of_the_same_host(host: Host, engine: HttpEngine) -> None:
    for userinfo in ("", "a:1@", "b:%C3%A9@", ""):
        get(engine, f"http://{userinfo}{host.where}/x")
    sent = [fields(request, b"authorization") for request in host.asked]
    basic = [[b"Basic " + base64.b64encode(who)] for who in (b"a:1", "b:é".encode())]
    assert sent == [[], *basic, []]


def test_no_cookie_is_kept_but_within_a_chain_of_redirects(host: Host, engine: HttpEngine) -> None:
    host.default = reply(Set_Cookie="a=b; Path=/")
    host.answers["/moved"] = reply(status="302 Found", Location="/file", Set_Cookie="c=d; Path=/")
    for name in ("a", "b", "moved", "c"):
        get(engine, f"{host.url}/{name}")
    assert [fields(request, b"cookie") for request in host.asked] == [[], [], [], [b"c=d"], []]


@pytest.mark.parametrize("url", ["http://EVIL:1\\@127.0.0.1:2/x", "http://u:SECRET/x@h/", "http://u:SECRET℀@h/"])
def test_url_that_cannot_be_read_is_refused_without_a_word_of_it(engine: HttpEngine, url: str) -> None:
    with pytest.raises(TransferError, match="no URL of http or https") as caught:
        get(engine, url)
    assert not caught.value.transient
    assert "SECRET" not in str(caught.value)
    assert "EVIL" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ the way


def test_proxy_is_asked_for_the_whole_url(host: Host, engine: HttpEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:hush@{host.where}")
    for name in "ab":
        assert get(engine, f"http://example.invalid/{name}") == (200, b"body")
    assert [request.split()[1] for request in host.asked] == [
        b"http://example.invalid/" + name for name in (b"a", b"b")
    ]
    assert fields(host.asked[0], b"proxy-authorization") == [b"Basic " + base64.b64encode(b"me:hush")]
    monkeypatch.setenv("no_proxy", "127.0.0.0/8")
    with Host() as direct:
        assert get(engine, f"{direct.url}/c") == (200, b"body")
        assert direct.asked[0].startswith(b"GET /c ")


def test_proxy_that_fails_is_named_without_its_password(engine: HttpEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hush@127.0.0.1:1")
    with pytest.raises(HostError, match=r"Connection refused \(by way of the proxy http://127.0.0.1:1\)") as caught:
        get(engine, "http://example.invalid/x?hush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_proxy_makes_the_connection(
    host: Host, engine: HttpEngine, transport: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    asked: list[bytes] = []
    host.default = reply(Connection="close")
    port = int(host.where.partition(":")[2])

    def serve(client: socket.socket) -> None:
        """RFC 1928: without authentication."""
        client.recv(65536)
        client.sendall(b"\x05\x00")
        asked.append(client.recv(65536))
        client.sendall(b"\x05\x00\x00\x01" + bytes(6))
        join(client, ("127.0.0.1", port))

    name = "localhost" if scheme == "socks5h" else "127.0.0.1"
    if transport == "requests" and importlib.util.find_spec("socks") is None:
        monkeypatch.setenv("http_proxy", f"{scheme}://me:hush@127.0.0.1:1")
        with pytest.raises(HostError, match=r"PySocks.*by way of the proxy socks5h?://127\.0\.0\.1:1") as caught:
            get(engine, host.url)
        assert "hush" not in str(caught.value)
        return
    with proxying(serve, scheme) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        assert get(engine, f"http://{name}:{port}/a") == (200, b"body")
    address = b"\x03\x09localhost" if scheme == "socks5h" else b"\x01\x7f\x00\x00\x01"
    assert asked == [b"\x05\x01\x00" + address + port.to_bytes(2)]


def test_https_goes_through_a_tunnel_of_the_proxy_whose_words_are_no_answer(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    heads: list[Head] = []

    def begin(head: Head) -> Callable[[memoryview], object]:
        heads.append(head)
        return bytes

    with Host(serving_with(certificate)) as host, tunnel() as (url, asked):
        monkeypatch.setenv("https_proxy", url)
        an_engine().get(f"{host.url}/a", {"Range": "bytes=1-"}, Cancellation(), begin)
        assert asked[0].startswith(f"CONNECT {host.where} HTTP/1.".encode())
        assert b"Range" not in asked[0]
        assert host.asked[0].startswith(b"GET /a ")
    assert [(head.status, head.get("etag")) for head in heads] == [(200, "")]


def test_proxy_that_makes_no_tunnel_is_an_error_that_names_it(
    engine: HttpEngine, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tunnel(reply(status="407 Proxy Authentication Required")) as (url, _):
        monkeypatch.setenv("https_proxy", url)
        with pytest.raises(HostError, match=f"407.*by way of the proxy {url}") as caught:
            get(engine, "https://127.0.0.1:1/a")
    assert caught.value.transient


@pytest.mark.parametrize(
    "proxy",
    ["http://me:hush@[::1", "http://me:hush@h:99999", "foo://me:hush@h", "foo://me:hush@h:1", "http://me:\\hush@h"],
)
def test_proxy_that_is_no_url_is_an_error_of_the_way(
    engine: HttpEngine, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(TransferError, match="proxy") as caught:
        get(engine, "http://example.invalid/x")
    assert "hush" not in str(caught.value)


def test_what_the_environment_said_is_not_believed_for_ever(
    host: Host, engine: HttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Host() as proxy:
        get(engine, f"{host.url}/a")
        monkeypatch.setenv("http_proxy", proxy.url)
        get(engine, f"{host.url}/b")
        [route] = engine._hosts.get(host.url).routes.values()
        monkeypatch.setattr("fsdm.transfer.http.engine.time.monotonic", lambda: route.until + 0.1)
        get(engine, f"{host.url}/c")
        assert [request.split()[1] for request in proxy.asked] == [f"{host.url}/c".encode()]
    assert BELIEVED_S == 10.0


# -------------------------------------------------------------------------------------------------- kept connections


def test_connection_is_kept_for_the_next_request_of_any_thread(host: Host, engine: HttpEngine) -> None:
    for name in "abc":
        assert InThread(lambda name=name: get(engine, f"{host.url}/{name}")).join() == (200, b"body")  # type: ignore[misc]
    assert (len(host.asked), host.connections) == (3, 1)


def test_requests_at_once_have_connections_of_their_own(host: Host, engine: HttpEngine) -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def begin(_: Head) -> Callable[[memoryview], object]:
        both.wait()
        return bytes

    threads = [InThread(lambda: engine.get(host.url, {}, Cancellation(), begin)) for _ in range(2)]
    assert [thread.join() for thread in threads] == [None, None]
    assert host.connections == 2


def test_no_more_connections_are_kept_than_are_asked_for() -> None:
    engine = an_engine(connections=3)
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host()) for _ in range(6)]
        before = set(descriptors())
        for _ in "ab":
            for host in hosts:
                assert get(engine, f"{host.url}/a") == (200, b"body")
        assert [host.connections for host in hosts] == [2] * 6, "the longest unused was let go"
        # of each: libcurl's, the server's own side of it, and two for libcurl to be woken by
        eventually(lambda: len(set(descriptors()) - before) <= 4 * 3, "the others are closed")


def test_connections_end_with_their_engine(host: Host) -> None:
    engine = an_engine()
    get(engine, f"{host.url}/a")
    sockets = engine._idle[0][1].sockets
    assert len(sockets.open()) == 1
    del engine
    assert sockets.open() == [], "at once, not when garbage is collected"


def test_descriptors_are_not_inherited(host: Host, engine: HttpEngine) -> None:
    get(engine, f"{host.url}/a")
    (_, kept) = engine._idle[0]
    assert [os.get_inheritable(fd) for fd in kept.sockets.open()] == [False]


def test_child_after_a_fork_says_nothing_over_the_connections_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = a_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    with Host(serving_with(certificate)) as host:
        engine = an_engine()
        get(engine, host.url)
        child = os.fork()
        if child == 0:
            engine._idle.clear()  # TLS would say goodbye
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert get(engine, host.url) == (200, b"body")
        assert host.connections == 1


def test_body_that_is_not_wanted_leaves_its_connection_if_it_is_short(host: Host, engine: HttpEngine) -> None:
    host.answers["/short"] = reply(b"x" * DRAIN_BYTES, "404 N")
    host.answers["/long"] = reply(b"x" * (64 << 20), "404 N")
    for path, connections in (("/short", 1), ("/short", 1), ("/long", 1), ("/short", 2)):
        engine.get(host.url + path, {}, Cancellation(), lambda _: None)
        assert host.connections == connections


def test_answer_that_ends_its_connection_is_followed_on_another(host: Host, engine: HttpEngine) -> None:
    host.answers["/last"] = reply(Connection="close")
    for path in ("/a", "/last", "/b"):
        assert get(engine, host.url + path) == (200, b"body")
    assert host.connections == 2


def test_what_follows_a_body_on_its_connection_is_no_answer_to_the_next(host: Host, engine: HttpEngine) -> None:
    host.answers["/more"] = reply() + reply(b"EVIL")
    assert get(engine, f"{host.url}/more") == (200, b"body")
    assert get(engine, f"{host.url}/next") == (200, b"body")


# ----------------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_redirect_is_followed(host: Host, engine: HttpEngine, status: str) -> None:
    host.answers |= {"/moved": reply(status=status, Location="on"), "/on": reply(b"the file")}
    assert get(engine, f"{host.url}/moved") == (200, b"the file")
    assert [request.split()[1] for request in host.asked] == [b"/moved", b"/on"]
    assert host.connections == 1


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "300 Multiple Choices", "404 Not Found"])
def test_location_of_an_answer_that_is_no_redirect_is_not_followed(host: Host, engine: HttpEngine, status: str) -> None:
    host.answers["/file"] = reply(status=status, Location="/other")
    assert get(engine, f"{host.url}/file") == (int(status[:3]), b"body")
    assert len(host.asked) == 1


def test_redirect_without_a_location_is_an_answer(host: Host, engine: HttpEngine) -> None:
    host.default = reply(status="302 Found")
    assert get(engine, host.url) == (302, b"body")


def test_headers_of_the_request_go_on_with_a_redirect(host: Host, engine: HttpEngine) -> None:
    host.answers["/moved"] = reply(status="302 Found", Location="/on")
    get(engine, f"{host.url}/moved", {"Range": "bytes=1-"})
    assert [fields(request, b"range") for request in host.asked] == [[b"bytes=1-"]] * 2


def test_credentials_do_not_go_on_to_another_host(host: Host, engine: HttpEngine) -> None:
    with Host() as other:
        host.answers["/moved"] = reply(status="302 Found", Location=f"{other.url}/file")
        host.answers["/here"] = reply(status="302 Found", Location="/file")
        assert get(engine, f"http://me:s3cret@{host.where}/moved") == (200, b"body")
        assert get(engine, f"http://me:s3cret@{host.where}/here") == (200, b"body")
        assert all(fields(request, b"authorization") for request in host.asked)
        assert [fields(request, b"authorization") for request in other.asked] == [[]]


def test_redirect_from_https_to_http_is_refused(
    host: Host, engine: HttpEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = a_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    with Host(serving_with(certificate)) as safe:
        safe.default = reply(status="301 Moved", Location=f"{host.url}/file?s3cret")
        with pytest.raises(TransferError, match="from https to http") as caught:
            get(engine, f"{safe.url}/moved?s3cret")
    assert not caught.value.transient
    assert "s3cret" not in str(caught.value)
    assert host.asked == []


@pytest.mark.parametrize("framing", ["X: x", f"Content-Length: {DRAIN_BYTES + 1}", "Content-Length: 100"])
def test_body_of_a_redirect_is_not_waited_for_without_end(host: Host, engine: HttpEngine, framing: str) -> None:
    host.answers["/moved"] = f"HTTP/1.1 302 Found\r\nLocation: /file\r\n{framing}\r\n\r\nand then nothing".encode()
    assert get(engine, f"{host.url}/moved") == (200, b"body")


# --------------------------------------------------------------------------------------------------------- the framing

BODY = bytes(range(256)) * 4
LENGTH = f"Content-Length: {len(BODY)}"
IN_CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:1], BODY[1:700], BODY[700:])) + b"0\r\n\r\n"


def answer(head: str, body: bytes = BODY, status: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{status}\r\n{head}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "data",
    [
        answer(LENGTH),
        answer(LENGTH, status="HTTP/1.0 200 OK"),
        answer("X: x", status="HTTP/1.0 200 OK"),
        answer(f"{LENGTH}\r\n{LENGTH}"),
        answer("Transfer-Encoding: chunked", IN_CHUNKS),
        answer("Transfer-Encoding: Chunked", IN_CHUNKS),
        answer("Transfer-Encoding: chunked ", IN_CHUNKS),
        answer("Transfer-Encoding: identity, chunked", IN_CHUNKS),
        answer("Transfer-Encoding: , chunked", IN_CHUNKS),
        answer("Transfer-Encoding: chunked\r\nContent-Length: 5", IN_CHUNKS),
        answer("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", IN_CHUNKS),
        answer("Transfer-Encoding:\r\n chunked", IN_CHUNKS),
        answer("Transfer-Encoding: gzip", IN_CHUNKS),
        answer("Transfer-Encoding: gzip, chunked", IN_CHUNKS),
        answer("Transfer-Encoding: chunked, gzip", IN_CHUNKS),
        answer("Transfer-Encoding: chunked;q=1", IN_CHUNKS),
        answer("Content-Length: +1024"),
        answer("Content-Length: -5"),
        answer("Content-Length: 1_024"),
        answer("Content-Length: 5\r\nContent-Length: 1024"),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(LENGTH),
        b"HTTP/1.1 102 Processing\r\n\r\n" + answer(LENGTH),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # urllib3's, of an answer that it refuses
def test_body_comes_rightly_or_not_at_all_whatever_its_framing(engine: HttpEngine, transport: str, data: bytes) -> None:
    head, _, rest = data.partition(b"\r\n\r\n")
    words = (b"gzip", b"+", b"-5", b"_0", b"h: 5\r\nC", b";q", b", chunked", b"d\r\nT", b":\r\n ", b"chunked \r")
    may_end_at_hints = transport == "requests" and (b" 102 " in head or rest.startswith(b"HTTP/1.1 103 "))
    refusable = may_end_at_hints or any(word in head for word in words)
    with answering([data]) as (url, _):
        try:
            came = get(engine, url)
        except HostError as e:
            assert refusable, e  # noqa: PT017 it may come
        else:
            assert came == (200, BODY)


def test_trailer_says_nothing_of_the_file(engine: HttpEngine) -> None:
    heads: list[Head] = []
    data = answer("Transfer-Encoding: chunked\r\nETag: a", b"1\r\nx\r\n0\r\nETag: b\r\n\r\n")
    with answering([data]) as (url, _):
        engine.get(url, {}, Cancellation(), lambda head: heads.append(head) or bytes)  # type: ignore[func-returns-value]
    assert [head.get("etag") for head in heads] == ["a"]


@pytest.mark.parametrize("data", [b"body without a head", b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: y"])
def test_answer_without_a_whole_head_is_an_error_that_may_pass(engine: HttpEngine, data: bytes) -> None:
    with answering([data]) as (url, _), pytest.raises(HostError) as caught:
        get(engine, f"{url}?s3cret")
    assert caught.value.transient
    assert "s3cret" not in str(caught.value)


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
        (b"HTTP/1.1 200 O", b"K"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    ],
)
def test_head_that_goes_on_for_ever_is_an_error(first: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "HEAD_S", 0.1)
    engine = an_engine(connect_timeout_s=0.5)
    with Endless(first, more) as url, pytest.raises(HostError, match="the head of the answer does not end"):
        get(engine, url)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"


@pytest.mark.parametrize(("first", "more"), [(b";x=", b"y"), (b"\r\nx\r\n0\r\n", b"X: x\r\n")])
def test_what_goes_on_for_ever_around_a_body_is_an_error(first: bytes, more: bytes) -> None:
    with Endless(CHUNKED + first, more) as url, pytest.raises(HostError, match="not a byte"):
        get(an_engine(idle_timeout_s=0.3), url)


# ------------------------------------------------------------------------------------------------------ stops and ends


@contextmanager
def stalling(first: bytes, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, threading.Event]]:
    """A server that answers with these bytes, and no more; its URL, and when they are sent."""
    sent, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection:
                    connection.recv(65536)
                    connection.sendall(first)
                    sent.set()
                    over.wait(PATIENCE_S)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.getsockname()[1]}/", sent
        over.set()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    "first", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", answer("X: x")]
)
@pytest.mark.parametrize("tls", [False, True])
def test_stop_ends_a_request_at_once_wherever_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool, first: bytes
) -> None:
    certificate = a_certificate(tmp_path) if tls else None
    if certificate is not None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    stop, engine = Cancellation(), an_engine()
    with stalling(first, serving_with(certificate) if certificate is not None else None) as (url, sent):
        waiting = InThread(lambda: get(engine, url, stop=stop))
        assert sent.wait(PATIENCE_S)
        stop.set()
        waiting._thread.join(0.5)  # well below the second after which libcurl looks up by itself
        assert isinstance(waiting.result, StoppedError)


def test_stop_of_one_request_does_not_end_the_next_over_its_connection(host: Host, engine: HttpEngine) -> None:
    stop = Cancellation()
    assert get(engine, host.url, stop=stop) == (200, b"body")
    stop.set()
    assert get(engine, host.url) == (200, b"body")
    assert host.connections == 1
    with pytest.raises(StoppedError):
        get(engine, host.url, stop=stop)


@pytest.mark.parametrize("where", ["head", "body"])
def test_error_of_the_taker_ends_the_request_and_is_raised_as_it_is(host: Host, engine: HttpEngine, where: str) -> None:
    def fail(_: object) -> Callable[[memoryview], object]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        engine.get(host.url, {}, Cancellation(), fail if where == "head" else lambda _: fail)
    assert not isinstance(caught.value, TransferError)
    assert get(engine, host.url) == (200, b"body")


def test_server_that_falls_silent_is_given_up_after_the_idle_timeout(host: Host) -> None:
    engine = an_engine(idle_timeout_s=0.05)
    host.answers["/silent"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"
    get(engine, host.url)
    with pytest.raises(HostError, match=r"not a byte for 0\.05 s") as caught:
        get(engine, f"{host.url}/silent")
    assert (caught.value.transient, caught.value.cause) == (True, "timeout")


def test_transfer_may_take_longer_than_each_of_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead_s, taken, count = 0.0, threading.Semaphore(1), 7

    def take(data: memoryview) -> None:
        nonlocal ahead_s
        ahead_s += 20.0
        taken.release()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n".encode())
            for _ in range(count):
                assert taken.acquire(timeout=PATIENCE_S)
                connection.sendall(b"x")

    monkeypatch.setattr(exchange, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s))
    monkeypatch.setattr(exchange, "LOOK_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = InThread(serve)
        engine = an_engine(connect_timeout_s=30.0, idle_timeout_s=30.0)
        engine.get(f"http://127.0.0.1:{server.getsockname()[1]}/", {}, Cancellation(), lambda _: take)
        assert serving.join() is None
    assert ahead_s == 20.0 * count > 2 * exchange.HEAD_S


def test_bytes_before_a_break_are_handed_on(engine: HttpEngine) -> None:
    came: list[bytes] = []
    with answering([answer(LENGTH, BODY[:100])]) as (url, _), pytest.raises(HostError, match=CUT_SHORT):
        engine.get(url, {}, Cancellation(), lambda _: lambda data: came.append(bytes(data)))
    assert b"".join(came) == BODY[:100]


def test_body_is_handed_on_in_blocks_and_a_drip_as_it_comes(
    engine: HttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    size = 5 * exchange.BLOCK_BYTES + 5

    def take(data: memoryview) -> None:
        sizes.append(len(data))

    monkeypatch.setattr(exchange, "LOOK_S", PATIENCE_S)
    monkeypatch.setattr(Bypass, "find", lambda *_: None)
    with answering([answer(f"Content-Length: {size}", bytes(size))]) as (url, _):
        engine.get(url, {}, Cancellation(), lambda _: take)
    assert sum(sizes) == size
    assert max(sizes) <= exchange.BLOCK_BYTES
    assert len(sizes) <= 7
    monkeypatch.setattr(exchange, "LOOK_S", 0.0)
    seen = threading.Event()
    with stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1") as (url, _):
        stop = Cancellation()
        waiting = InThread(lambda: engine.get(url, {}, stop, lambda _: lambda _: seen.set()))
        assert seen.wait(PATIENCE_S)
        stop.set()
        assert isinstance(waiting.join(), StoppedError)


# ----------------------------------------------------------------------------------------------------------------- TLS


def test_certificate_that_nobody_vouches_for_is_refused_for_good(certificate: Path) -> None:
    with Host(serving_with(certificate)) as host, pytest.raises(HostError, match=r"(?i)certificate") as caught:
        get(an_engine(), host.url)
    assert (caught.value.transient, caught.value.cause) == (False, "tls")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificate_is_trusted_where_the_environment_says_so_and_for_its_name_alone(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, f"{certificate}.crt")
    with Host(serving_with(certificate)) as host:
        assert get(an_engine(), host.url) == (200, b"body")
    others = a_certificate(tmp_path, "DNS:example.org")
    monkeypatch.setenv(variable, f"{others}.crt")
    with Host(serving_with(others)) as host, pytest.raises(HostError) as caught:
        get(an_engine(), host.url)
    assert (caught.value.transient, caught.value.cause) == (False, "tls")


def test_ca_bundle_that_is_missing_is_no_fault_of_the_disk(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    with Host(serving_with(certificate)) as host, pytest.raises(HostError, match=r"/nowhere/bundle\.pem") as caught:
        get(an_engine(), host.url)
    assert caught.value.cause == "tls"


def test_connection_that_is_reset_in_its_handshake_may_come_next_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = InThread(reset)
        with pytest.raises(HostError) as caught:
            get(an_engine(), f"https://127.0.0.1:{server.getsockname()[1]}/x")
        assert thread.join() is None
    assert (caught.value.transient, caught.value.cause) == (True, "connection")


def test_handles_of_many_hosts_are_closed_without_the_collector() -> None:
    with ExitStack() as stack:
        gc.disable()
        stack.callback(gc.enable)
        engine = an_engine(connections=2)

        def ask(*hosts: int) -> int:
            for host in hosts:
                with pytest.raises(HostError, match="Connection refused"):
                    get(engine, f"http://127.0.1.{host}:9/")
            return descriptors().total()

        few = ask(*range(1, 5))
        assert ask(*range(5, 25)) == few
