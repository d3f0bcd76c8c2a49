"""Both roads to an answer ask for it with the same bytes, and neither goes where it may not."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import DEFAULT_POOLSIZE
from urllib3.util import parse_url

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import HostError, TransferError
from fsdm.transfer.http import session
from fsdm.transfer.http.connection import Guarded
from fsdm.transfer.http.session import DRAIN_BYTES, ENVIRONMENT_S, Session, Sessions
from tests.support.servers import Host, a_certificate, kept_asked, reply, serving_with
from tests.support.waiting import PATIENCE_S, descriptors, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S)


def get(sessions: Sessions, url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    with sessions.get(url, headers or {}, Cancellation()) as answer:
        return answer.status, answer.read()


def by_requests(host: Host, url: str) -> bytes:
    """What requests asks for a URL, by itself."""
    with Session() as plain:
        assert plain.get(url).content == b"body"
    return host.asked.pop()


# -------------------------------------------------------------------------------------------------- the same request

PLAIN = (
    "/a/b.parquet",
    "/a-_.~!$&'()*+,;=:@z",
    "/a?b=c&d=%2Fe%20f",
    "/%C3%A9%5B%7C?x?/y",
    "/",
    "/a/",
    "/a//b",
    "/a.",
    "/a?.",
)
ODD = (
    *(
        "",
        "?q",
        "/a/../b",
        "/./a",
        "/a/.",
        "/.b",
        "//a",
        "/a?",
        "/a#part",
        "/a?b#part",
        "/é",
        "/a?é",
        "/%c3%a9",
        "/%41",
    ),
    *("/%7E", "/50%", "/%zz", '/"', "/a|b", "/a[b]", "/a?b[c]", "/a?b^c", "/a%0", "/a\\b"),
)


@pytest.mark.parametrize("userinfo", ["", "user:pass%20word@", "user:@"])
@pytest.mark.parametrize("target", [*PLAIN, *ODD])
def test_both_roads_send_the_same_bytes_as_requests(host: Host, sessions: Sessions, target: str, userinfo: str) -> None:
    origin = f"http://{userinfo}{host.where}"
    bare = by_requests(host, f"{origin}{target}")
    with kept_asked() as kept:
        get(sessions, f"{origin}/first")
        get(sessions, f"{origin}{target}")
    assert host.asked[1] == bare
    assert (b"\r\nAuthorization: Basic " in bare) is bool(userinfo)
    assert kept == [target] * (target in PLAIN)


HAPPENS = [*"az~.!$&'()*+,;=:@-_ é[|\\^%/?#", "%41", "%2F", "%2f", "%7E", "%C3", "%5B", "/.", "//", "/..", "?."]


@given(st.lists(st.sampled_from(HAPPENS), max_size=8).map(lambda parts: "http://example.org:80/" + "".join(parts)))
def test_what_is_taken_for_plain_requests_and_urllib3_send_as_it_stands(url: str) -> None:
    plain = session._PLAIN_URL.fullmatch(url)
    if plain is not None:
        request = requests.Request("GET", url).prepare()
        sent = session._Adapter().request_url(request, {})
        assert (plain[1], parse_url(sent).url) == (sent, sent)


def test_a_url_that_nearly_is_plain_is_told_at_once() -> None:
    assert session._PLAIN_URL.fullmatch("http://example.org/" + "a%20/" * 200_000 + "\n") is None


def test_headers_of_a_request_go_with_that_request_alone(host: Host, sessions: Sessions) -> None:
    for headers in ({}, {"Range": "bytes=1-"}, {}):
        get(sessions, f"{host.url}/file", headers)
    assert [b"\r\nRange: bytes=1-\r\n" in request for request in host.asked] == [False, True, False]
    assert host.asked[0] == host.asked[2]


def test_credentials_of_netrc_go_with_every_request(
    host: Host, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in "abc":
        get(sessions, f"{host.url}/{name}")
    basic = base64.b64encode(b"me:mine")
    assert all(b"\r\nAuthorization: Basic " + basic + b"\r\n" in request for request in host.asked)


def test_credentials_of_one_url_do_not_go_with_another_of_the_same_host(host: Host, sessions: Sessions) -> None:
    for userinfo in ("", "a:1@", "b:2@", ""):
        for name in "xy":
            get(sessions, f"http://{userinfo}{host.where}/{name}")
    sent = [[line for line in request.split(b"\r\n") if line.startswith(b"Auth")] for request in host.asked]
    expected = [[b"Authorization: Basic " + base64.b64encode(who)] for who in (b"a:1", b"b:2")]
    assert sent == [[], [], expected[0], expected[0], expected[1], expected[1], [], []]


def test_a_proxy_is_asked_for_the_whole_url_each_time(
    host: Host, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", host.url)
    for name in "abc":
        assert get(sessions, f"http://example.invalid/{name}") == (200, b"body")
    assert [request.split()[1] for request in host.asked] == [
        b"http://example.invalid/" + name for name in (b"a", b"b", b"c")
    ]


def test_what_the_environment_said_is_not_believed_for_ever(
    host: Host, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    with Host() as proxy, kept_asked() as kept:
        for name in "ab":
            get(sessions, f"{host.url}/{name}")
        monkeypatch.setenv("http_proxy", proxy.url)
        get(sessions, f"{host.url}/c")
        now[0] += ENVIRONMENT_S + 1
        for name in "de":
            get(sessions, f"{host.url}/{name}")
        assert [request.split()[1] for request in proxy.asked] == [f"{host.url}/{name}".encode() for name in "de"]
    assert kept == ["/b", "/c"]


def test_no_more_connections_are_kept_for_it_than_requests_keeps(sessions: Sessions) -> None:
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host()) for _ in range(DEFAULT_POOLSIZE + 3)]
        before = len(os.listdir("/proc/self/fd"))
        for name in "ab":
            for host in hosts:
                assert get(sessions, f"{host.url}/{name}") == (200, b"body")
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2 * DEFAULT_POOLSIZE, "the others are closed")


def test_a_thread_has_connections_of_its_own(host: Host, sessions: Sessions) -> None:
    with kept_asked() as kept:
        get(sessions, f"{host.url}/a")
        thread = threading.Thread(target=get, args=(sessions, f"{host.url}/b"))
        thread.start()
        thread.join(PATIENCE_S)
        assert (len(host.asked), kept) == (2, [])


def test_a_body_that_was_not_taken_whole_leaves_no_connection(host: Host, sessions: Sessions) -> None:
    host.answers["/half"] = reply(b"not the next one's head")
    with kept_asked() as kept:
        get(sessions, f"{host.url}/a")
        with sessions.get(f"{host.url}/half", {}, Cancellation()) as answer:
            assert answer.read(3) == b"not"
        assert get(sessions, f"{host.url}/c") == (200, b"body")
        assert kept == ["/half"]


# ----------------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("first", [True, False])
def test_a_redirect_is_followed_on_both_roads_without_asking_twice(host: Host, sessions: Sessions, first: bool) -> None:
    host.answers |= {
        "/moved": reply(status="302 Found", Location="/on"),
        "/on": reply(status="307 T", Location="/file"),
    }
    host.answers["/file"] = reply(b"the file")
    if not first:
        get(sessions, f"{host.url}/any")
    with kept_asked() as kept:
        assert get(sessions, f"{host.url}/moved") == (200, b"the file")
    assert [request.split()[1] for request in host.asked[-3:]] == [b"/moved", b"/on", b"/file"]
    assert kept == ["/moved"] * (not first)


@pytest.mark.parametrize("first", [True, False])
def test_credentials_do_not_go_on_to_another_host(host: Host, sessions: Sessions, first: bool) -> None:
    with Host() as other:
        host.answers["/moved"] = reply(
            status="302 Found", Location=f"{other.url.replace('127.0.0.1', 'localhost')}/file"
        )
        if not first:
            get(sessions, f"http://me:s3cret@{host.where}/any")
        assert get(sessions, f"http://me:s3cret@{host.where}/moved") == (200, b"body")
        assert b"\r\nAuthorization: " in host.asked[-1]
        assert b"Authorization" not in other.asked[0]


@pytest.mark.parametrize("first", [True, False])
def test_a_redirect_from_https_to_http_is_refused(
    host: Host, sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    certificate = a_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    with Host(serving_with(certificate)) as safe:
        safe.answers["/moved?s3cret"] = reply(status="301 Moved", Location=f"{host.url}/file?s3cret")
        if not first:
            assert get(sessions, f"{safe.url}/any") == (200, b"body")
        with pytest.raises(TransferError, match="from https to http") as caught:
            get(sessions, f"{safe.url}/moved?s3cret")
        assert not caught.value.transient
        assert "s3cret" not in str(caught.value)
    assert host.asked == []


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("length", [None, DRAIN_BYTES + 1])
def test_the_body_of_a_redirect_is_not_read_without_end(
    host: Host, sessions: Sessions, first: bool, length: int | None
) -> None:
    framing = "X: x" if length is None else f"Content-Length: {length}"
    host.answers["/moved"] = f"HTTP/1.1 302 Found\r\nLocation: /file\r\n{framing}\r\n\r\nand then nothing".encode()
    if not first:
        get(sessions, f"{host.url}/any")
    assert get(sessions, f"{host.url}/moved") == (200, b"body")


@pytest.mark.parametrize("first", [True, False])
def test_redirects_without_end_are_given_up(host: Host, sessions: Sessions, first: bool) -> None:
    host.answers["/moved"] = reply(status="302 Found", Location="/moved")
    if not first:
        get(sessions, f"{host.url}/any")
    with pytest.raises(TransferError, match="too many redirects") as caught:
        get(sessions, f"{host.url}/moved")
    assert not caught.value.transient


# ------------------------------------------------------------------------------------------------------------- the rest


def test_no_cookie_is_kept(host: Host, sessions: Sessions) -> None:
    host.default = reply(Set_Cookie="a=b; Path=/")
    host.answers["/moved"] = reply(status="302 Found", Location="/file", Set_Cookie="a=b; Path=/")
    for name in ("a", "b", "moved", "é", "c"):
        get(sessions, f"{host.url}/{name}")
    of_others = [request for request in host.asked if b"GET /file " not in request]  # it stays within the redirect
    assert len(of_others) == 5
    assert not any(b"cookie" in request.lower() for request in of_others)


def test_a_kept_connection_that_breaks_is_an_error_without_secrets_that_may_pass(
    host: Host, sessions: Sessions
) -> None:
    host.answers["/broken?s3cret"] = b"HTTP/1.1 200 OK\r\nno head\r\n\r\n"
    host.answers["/none?s3cret"] = b"SSH-2.0\r\n\r\n"
    for path in ("/none?s3cret", "/none?s3cret"):
        get(sessions, f"http://me:s3cret@{host.where}/any")
        with pytest.raises(TransferError) as caught:
            get(sessions, f"http://me:s3cret@{host.where}{path}")
        assert caught.value.transient
        assert "s3cret" not in f"{caught.value}{caught.value.hint}"
        assert host.where in str(caught.value)


def test_a_server_that_falls_silent_on_a_kept_connection_is_given_up(host: Host) -> None:
    sessions = Sessions(connect_timeout_s=PATIENCE_S, idle_timeout_s=0.05)
    host.answers["/silent"] = b"HTTP/1.1 200"
    get(sessions, f"{host.url}/any")
    with kept_asked(), pytest.raises(TransferError, match=r"not a byte for 0\.05 s") as caught:
        get(sessions, f"{host.url}/silent")
    assert caught.value.transient


def test_a_connection_that_is_reset_before_its_handshake_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Guarded._new_conn
    reset: set[int] = set()

    def resetting(conn: Guarded) -> socket.socket:
        sock = connect(conn)
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(PATIENCE_S * 1000)
        reset.add(os.fstat(sock.fileno()).st_ino)
        return sock

    monkeypatch.setattr(Guarded, "_new_conn", resetting)
    sessions = Sessions(connect_timeout_s=5, idle_timeout_s=5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/x"
        with pytest.raises(HostError) as caught, sessions.get(url, {}, Cancellation()):
            pass
        assert len(reset) == 1
        assert not reset & descriptors().keys(), "though the error, which knows all of it, still lives"
        assert caught.value.transient
