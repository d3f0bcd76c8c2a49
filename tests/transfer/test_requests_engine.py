"""Requests over a session of one's own: what it adds goes to its server alone, and no error shows secrets."""

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth
from requests.utils import select_proxy

from fsdm import DataManager, Limits, Source
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import HostError, InvalidInputError, PolicyError, StoppedError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.transfer.fetcher import HttpEngine, HttpFetcher
from fsdm.transfer.http.head import Head
from fsdm.transfer.http.source_settings import Sources
from tests.support import PATIENCE_S, eventually
from tests.support import Source as Server
from tests.support.servers import Host, InThread, an_engine, fields, get, reply

Sessions = requests.Session | Callable[[], requests.Session]


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def by(session: Sessions, **how: Any) -> HttpEngine:
    return an_engine(transport="requests", session=session, **how)


class Signed(AuthBase):
    """Signs each request, in a header of its own."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["X-Signature"] = f"s3cret of {request.headers.get('Range', 'all')}"
        return request


def signing() -> requests.Session:
    """A session that adds to each request all that one may add."""
    session = requests.Session()
    session.auth = Signed()
    session.headers["PRIVATE-TOKEN"] = "s3cret"
    session.params = {"key": "s3cret"}
    session.cookies.set("login", "s3cret")
    return session


def test_session_adds_what_is_its_own(host: Host) -> None:
    assert get(by(signing()), host.url, {"Range": "bytes=1-"}) == (200, b"body")
    for what in (b"X-Signature: s3cret of bytes=1-", b"PRIVATE-TOKEN: s3cret", b"/?key=s3cret ", b"login=s3cret"):
        assert what in host.asked[0]
    assert b"Accept-Encoding: identity" in host.asked[0]


@pytest.mark.parametrize("back", [False, True])
def test_what_a_session_adds_does_not_go_to_another_server_nor_back_from_there(host: Host, back: bool) -> None:
    with Host() as other:
        host.answers["/moved?key=s3cret"] = reply(status="302 Found", Location="/here")
        host.answers["/here?key=s3cret"] = reply(status="302 Found", Location=f"{other.url}/file")
        if back:
            other.answers["/file"] = reply(status="302 Found", Location=f"{host.url}/last")
        assert get(by(signing()), f"{host.url}/moved", {"Range": "bytes=1-"}) == (200, b"body")
        assert all(b"X-Signature" in request for request in host.asked[:2])
        for request in [*other.asked, *host.asked[2:]]:
            assert b"s3cret" not in request
            assert b"Range: bytes=1-" in request
        assert len(host.asked) == 2 + back


def test_client_certificate_is_not_for_another_server(host: Host, tmp_path: Path) -> None:
    sent: list[object] = []

    class Watched(HTTPAdapter):
        def send(self, *args: Any, **how: Any) -> requests.Response:
            sent.append(how["cert"])
            return super().send(*args, **how | {"cert": None})

    session = requests.Session()
    session.cert = str(tmp_path / "client.pem")
    session.mount("http://", Watched())
    with Host() as other:
        host.default = reply(status="302 Found", Location=f"{other.url}/file")
        assert get(by(session), host.url) == (200, b"body")
    assert sent == [session.cert, None]


def test_answer_that_the_auth_of_a_session_takes_up_is_taken_up(host: Host) -> None:
    session = requests.Session()
    session.auth = HTTPDigestAuth("me", "mine")
    asks = reply(status="401 Unauthorized", WWW_Authenticate='Digest realm="r", nonce="n", qop="auth"')
    answers = iter([asks, reply(b"the file")])
    host.answers = type("Answers", (dict,), {"get": lambda self, path, default: next(answers)})()
    assert get(by(session), host.url) == (200, b"the file")
    assert [b'Digest username="me"' in request for request in host.asked] == [False, True]


def test_hooks_of_a_session_are_called(host: Host) -> None:
    seen: list[int] = []
    for hook in (lambda r, **_: seen.append(r.status_code), [lambda r, **_: seen.append(r.status_code)]):
        session = requests.Session()
        session.hooks["response"] = hook
        get(by(session), host.url)
    assert seen == [200, 200]


def test_session_that_overrides_its_requests_is_asked(host: Host) -> None:
    class Overriding(requests.Session):
        def request(self, method: str | bytes, url: str | bytes, *args: Any, **how: Any) -> requests.Response:
            how["headers"] = {**how["headers"], "Authorization": "Bearer token"}
            return super().request(method, url, *args, **how)

    get(by(Overriding()), host.url)
    assert b"Authorization: Bearer token" in host.asked[0]


def test_headers_of_a_source_go_on_top_of_what_its_session_adds(host: Host) -> None:
    session = signing()
    headers = {"Authorization": "Bearer token", "PRIVATE-TOKEN": "other"}
    sources = Sources([Source(match=f"{host.url}/a", headers=headers), Source(match=host.url, headers={"X-T": "t"})])
    get(by(session, sources=sources), f"{host.url}/a")
    session.auth = ("me", "mine")
    for path in ("/a", "/b"):
        get(by(session, sources=sources), host.url + path)
    sent = [[fields(request, name) for request in host.asked] for name in (b"x-signature", b"private-token", b"x-t")]
    assert sent == [[[b"s3cret of all"], [], []], [[b"other"], [b"other"], [b"s3cret"]], [[], [], [b"t"]]]
    basic = b"Basic " + base64.b64encode(b"me:mine")
    assert [fields(request, b"authorization") for request in host.asked] == [[b"Bearer token"]] * 2 + [[basic]]


def test_way_of_a_source_is_in_place_of_that_of_its_session(host: Host, tmp_path: Path) -> None:
    seen: list[tuple[object, ...]] = []

    class Watched(HTTPAdapter):
        def send(self, request: Any, *args: Any, **how: Any) -> requests.Response:
            seen.append((how["verify"], how["cert"], select_proxy(request.url, how["proxies"])))
            return super().send(request, *args, **how | {"verify": True, "cert": None, "proxies": {}})

    session = requests.Session()
    session.trust_env = False
    session.verify, session.cert, session.proxies = "session.ca", "session.pem", {"http": "http://session"}
    session.mount("http://", Watched())
    path = tmp_path / "a.pem"
    path.touch(0o600)
    sources = Sources([Source(match=f"{host.url}/a", ca=path, client_cert=path, proxy="")])
    with Host() as other:
        other.default = reply(status="302 Found", Location=f"{host.url}/a")
        for url in (f"{host.url}/a", f"{host.url}/b", other.url):
            get(by(session, sources=sources), url)
    own = (str(path), (str(path), str(path)), "")
    of_session = ("session.ca", "session.pem", "http://session")
    assert seen == [own, of_session, of_session, own]


def test_credentials_of_a_url_win_over_those_of_the_session(host: Host) -> None:
    session = requests.Session()
    session.auth = ("other", "other")
    get(by(session), f"http://me:mine@{host.where}/")
    assert b"Authorization: Basic bWU6bWluZQ==" in host.asked[0]


@pytest.mark.parametrize("trusts", [True, False])
def test_netrc_is_for_a_session_that_trusts_the_environment(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session = requests.Session()
    session.trust_env = trusts
    sources = Sources([Source(match=f"{host.url}/a", headers={"X-T": "t"})])
    for path in ("/a", "/b"):
        get(by(session, sources=sources), host.url + path)
    assert [bool(fields(request, b"authorization")) for request in host.asked] == [trusts] * 2


def test_each_session_of_a_factory_is_used_by_one_thread_at_a_time(host: Host) -> None:
    made: list[requests.Session] = []

    def factory() -> requests.Session:
        made.append(requests.Session())
        return made[-1]

    engine, both = by(factory), threading.Barrier(2, timeout=PATIENCE_S)

    def begin(_: Head) -> Callable[[memoryview], object]:
        both.wait()
        return bytes

    for _ in range(2):
        threads = [InThread(lambda: engine.get(host.url, {}, Cancellation(), begin)) for _ in range(2)]
        assert [thread.join() for thread in threads] == [None, None]
    assert len(made) == 2
    assert host.connections == 2


def test_session_of_a_request_that_was_left_is_not_used_by_another(host: Host) -> None:
    begun, gate, made = threading.Event(), threading.Event(), list[requests.Session]()

    class Waiting(HTTPAdapter):
        def send(self, *args: Any, **how: Any) -> requests.Response:
            begun.set()
            gate.wait(PATIENCE_S)
            return super().send(*args, **how)

    def factory() -> requests.Session:
        made.append(requests.Session())
        if len(made) == 1:
            made[0].mount("http://", Waiting())
        return made[-1]

    engine, stop = by(factory), Cancellation()
    left = InThread(lambda: get(engine, host.url, stop=stop))
    assert begun.wait(PATIENCE_S)
    stop.set()
    assert isinstance(left.join(), StoppedError)
    assert get(engine, host.url) == (200, b"body")
    assert len(made) == 2
    gate.set()
    eventually(lambda: not any(thread.name == "fsdm-request" for thread in threading.enumerate()), "it ends by itself")


def test_session_of_a_factory_is_kept_with_its_cookies_also_after_a_refused_answer(host: Host) -> None:
    made: list[requests.Session] = []

    def factory() -> requests.Session:
        made.append(signing())
        return made[-1]

    def refuse(_: Head) -> None:
        raise TransferError("it is too long")

    engine = by(factory)
    assert get(engine, host.url) == (200, b"body")
    with pytest.raises(TransferError, match="it is too long"):
        engine.get(host.url, {}, Cancellation(), refuse)
    assert get(engine, host.url) == (200, b"body")
    assert len(made) == 1
    assert [b"login=s3cret" in request for request in host.asked] == [True] * 3


@pytest.mark.parametrize("session", [requests.Session(), requests.Session, None], ids=["one", "factory", "plain"])
def test_policy_holds_for_each_url_and_each_redirect(host: Host, session: Any) -> None:
    engine = by(session, policy=Policy(hosts=(host.where,)))
    with Host() as other:
        host.answers["/out"] = reply(status="302 Found", Location=f"{other.url}/file")
        host.answers["/in"] = reply(status="302 Found", Location="/file")
        assert get(engine, f"{host.url}/in") == (200, b"body")
        for url in (f"{host.url}/out", f"{other.url}/file"):
            with pytest.raises(PolicyError, match=f"{other.where} is no host that is allowed"):
                get(engine, url)
        assert other.asked == []


@pytest.mark.parametrize("where", ["factory", "auth"])
def test_error_of_a_session_is_one_of_the_host_and_shows_none_of_its_words(host: Host, where: str) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no ticket for s3cret")

    session = requests.Session()
    session.auth = fail
    with pytest.raises(HostError, match="RuntimeError") as caught:
        get(by(fail if where == "factory" else session), host.url)
    assert caught.value.transient
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked ", b"X y\r\nTransfer-Encoding: chunked"])
def test_framing_that_http_client_does_not_see_is_no_bytes_of_a_file(host: Host, field: bytes) -> None:
    host.default = b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    with pytest.raises(HostError, match="Transfer-Encoding"):
        get(by(requests.Session()), host.url)


def test_addresses_cannot_be_denied_to_a_session(data_dir: Path) -> None:
    limits = Limits(deny_private=True)
    for make in (
        lambda: DataManager(data_dir, session=requests.Session(), limits=limits),
        lambda: Limits(deny_private=True, transport="requests"),
        lambda: by(requests.Session(), policy=Policy(deny_private=True)),
    ):
        with pytest.raises(InvalidInputError, match="deny_private: cannot be kept to by requests"):
            make()


def test_what_is_no_session_is_refused(data_dir: Path) -> None:
    with pytest.raises(InvalidInputError, match="session: must be a session, not str"):
        DataManager(data_dir, session="https://")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="session: must not be given beside a fetcher"):
        DataManager(data_dir, session=requests.Session(), fetcher=HttpFetcher())


@pytest.mark.parametrize("make", [requests.Session, lambda: requests.Session])
def test_chunk_comes_by_the_session_of_a_manager(source: Server, data_dir: Path, make: Callable[[], Sessions]) -> None:
    chunk = source.chunk(files=4)
    with DataManager(data_dir, session=make()) as dm:
        dm.download_chunk(chunk)
        dm.wait(chunk.id, timeout_s=PATIENCE_S)
        dm.change(Limits(jobs=2))
        assert dm.list_chunks() == [chunk.id]
    agents = {head["User-Agent"].partition("/")[0] for heads in source.heads.values() for head in heads}
    assert agents == {"python-requests"}
