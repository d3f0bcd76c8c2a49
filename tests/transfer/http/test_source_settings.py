"""The settings of sources: whom they go to, what they are read from, and that nobody else gets them."""

import base64
import os
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.rate_limit import Rate
from fsdm.model.errors import HostError, InvalidInputError, PolicyError, StoppedError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.model.sources import Source
from fsdm.transfer.fetcher import HttpEngine
from fsdm.transfer.http.head import Head
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import Target
from tests.support import PATIENCE_S, eventually
from tests.support.servers import Host, InThread, a_certificate, an_engine, fields, get, reply, serving_with, tunnel

SECRET = "hush-1234"
both_engines = pytest.mark.usefixtures("transport")


def put(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return path.name


def engine_of(*sources: Source, directory: Path | str = ".", policy: Policy | None = None) -> HttpEngine:
    return an_engine(policy or Policy(), sources=Sources(sources, str(directory)))


def sent(host: Host, name: bytes = b"authorization") -> list[list[bytes]]:
    return [fields(request, name) for request in host.asked]


# --------------------------------------------------------------------------------------------------------- what matches

MATCHES = ["http://lake.example", "https://lake.example/a", "https://lake.example/a/b/", "https://lake.example:8443/"]


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://lake.example", 0),
        ("http://lake.example/", 0),
        ("http://lake.example?a", 0),
        ("http://lake.example/x/y", 0),
        ("HTTP://LAKE.example:80/x", 0),
        ("http://me:pw@lake.example/x", 0),
        ("http://lake.example@evil.example/", None),
        ("http://lake.example:81/", None),
        ("http://lake.example.evil/", None),
        ("http://xlake.example/", None),
        ("http://lake.example./", None),
        ("https://lake.example/", None),
        ("https://lake.example/a", 1),
        ("https://lake.example/a?b", 1),
        ("https://lake.example:443/a/", 1),
        ("https://lake.example/%61/x", 1),
        ("https://lake.example/ab", None),
        ("https://lake.example/A", None),
        ("https://lake.example/a%2Fb", None),
        ("https://lake.example//a", None),
        ("https://lake.example/a/b", 1),
        ("https://lake.example/a/b/", 2),
        ("https://lake.example/a/b/c", 2),
        ("https://lake.example/a/bc", 1),
        ("https://lake.example:8443/a", 3),
        # what climbs may lead anywhere
        ("https://lake.example/a/../secret", None),
        ("https://lake.example/x/../a/y", None),
        ("https://lake.example/a/b/./c", None),
        ("https://lake.example/a/%2e%2E/secret", None),
        ("https://lake.example/a/.%2e/secret", None),
        ("https://lake.example/a/%252e%252e/secret", None),
        ("https://lake.example/a/..%2fsecret", None),
        ("https://lake.example/a/..;x=y/secret", None),
        ("https://lake.example/a/..\\secret", None),
        ("https://lake.example/a/%5c..%5csecret", None),
        ("https://lake.example/a/..", None),
        ("https://lake.example/a/...", 1),
        ("https://lake.example/a/.hidden", 1),
        ("https://lake.example/a?b=/../c", 1),
        ("http://lake.example/x/../y", 0),
        ("https://lake.example:8443/a/../b", 3),
    ],
)
def test_longest_prefix_of_whole_segments_holds(url: str, match: int | None) -> None:
    sources = Sources([Source(match=prefix, headers={"X": str(at)}) for at, prefix in enumerate(MATCHES)])
    assert sources.of(Target.of(url)).headers.get("X") == (None if match is None else str(match))
    reverse = Sources([Source(match=prefix, headers={"X": prefix}) for prefix in reversed(MATCHES)])
    assert reverse.of(Target.of(url)).headers.get("X") == (None if match is None else MATCHES[match])


@pytest.mark.parametrize(
    ("matches", "said"),
    [
        (
            ["https://a/x", "http://a/x", "HTTPS://A:443/x"],
            r"source 3 \(HTTPS://A:443/x\): match: source 1 .* the same",
        ),
        (["https://a/x/../y"], r"source 1 \(https://a/x/../y\): match: a path with . or .. may lead anywhere"),
        (["https://a/%2e%2e"], r"source 1 .*: match: a path with"),
        (["https://a:99999/"], "source 1 .*: its host and port cannot be read"),
    ],
)
def test_prefix_that_cannot_be_taken_is_named(matches: list[str], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Sources([Source(match=match) for match in matches])


STORES = ["s3://lake/public", "s3://lake/", "s3://", "file:///srv/in/", "az://box/a b"]


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3://lake/public/a", 0),
        ("S3://lake/public", 0),
        ("s3://lake/public?x", 1),
        ("s3://lake/publicity", 1),
        ("s3://lake/p%75blic/a", 1),
        ("s3://lake/public/../a", 1),
        ("s3://lake/", 1),
        ("s3://Lake/a", 2),
        ("s3://lake.example/a", 2),
        ("s3n://lake/a", None),
        ("file:///srv/in/a", 3),
        ("file:///srv/inside/a", None),
        ("az://box/a b/c", 4),
        ("az://box/a%20b/c", None),
    ],
)
def test_url_of_another_scheme_is_matched_as_it_is(url: str, match: int | None) -> None:
    sources = [Source(match=one, **({"endpoint": "https://h"} if one[:2] == "az" else {})) for one in STORES]
    bounds = Sources(sources).bounds_of(url)
    names = [one if one.count("/") > 2 else f"{one}/" for one in STORES]
    assert bounds.name == ("" if match is None else names[match])


@pytest.mark.parametrize("how", [{"unsigned": True}, {"access_key_id": "A", "secret_access_key": SECRET}])
def test_authorization_does_not_go_with_a_signature(tmp_path: Path, how: dict[str, Any]) -> None:
    token = put(tmp_path / "token", f"Authorization: Bearer {SECRET}")
    with pytest.raises(InvalidInputError, match="Authorization does not go with access-key-id") as caught:
        Sources([Source(match="s3://lake/", headers_file=token, **how)], str(tmp_path))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["", "two\nlines", "tab\tbed\x01", "ü"])
def test_secret_that_cannot_be_one_is_refused_at_once(tmp_path: Path, text: str) -> None:
    secret = put(tmp_path / "secret", text)
    with pytest.raises(InvalidInputError, match=r"secret-access-key-file: it (is empty|has more)"):
        Sources([Source(match="s3://lake/", access_key_id="A", secret_access_key_file=secret)], str(tmp_path))


def test_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret", SECRET, 0o640)
    with pytest.raises(InvalidInputError, match=r"secret-access-key-file: .* may be read by others"):
        Sources([Source(match="s3://lake/", access_key_id="A", secret_access_key_file=secret)], str(tmp_path))


# ------------------------------------------------------------------------------------------------------- what is sent


@both_engines
def test_headers_go_with_each_request_below_the_prefix_and_no_other(tmp_path: Path) -> None:
    with Host() as host:
        engine = engine_of(Source(match=f"{host.url}/a", headers={"Authorization": f"Bearer {SECRET}", "X-T": "t"}))
        for path in ("/a/x", "/ab", "/a", "/", "/a/../b"):
            get(engine, host.url + path, {"Range": "bytes=1-"})
        assert sent(host) == [[b"Bearer " + SECRET.encode()], [], [b"Bearer " + SECRET.encode()], [], []]
        assert sent(host, b"x-t") == [[b"t"], [], [b"t"], [], []]
        assert sent(host, b"range") == [[b"bytes=1-"]] * 5


@both_engines
def test_headers_are_those_of_file_and_environment_at_that_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    name = put(token, "# of the lake\n\nAuthorization: Bearer one\r\nX-A:b: c \n")
    monkeypatch.setenv("LAKE_TOKEN", "x1\n")
    with Host() as host:
        engine = engine_of(
            Source(match=host.url, headers_file=name, headers_env={"X-Token": "LAKE_TOKEN"}), directory=tmp_path
        )
        get(engine, host.url)
        before = token.stat()
        put(token, "# of the lake\n\nAuthorization: Bearer two\r\nX-A:b: c \n")
        os.utime(token, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size, inode and mtime
        monkeypatch.setenv("LAKE_TOKEN", "x2")
        get(engine, host.url)
        other = tmp_path / "other"
        put(other, "Authorization: Bearer three\n")
        other.rename(token)
        get(engine, host.url)
        (tmp_path / "data").mkdir()
        put(tmp_path / "data" / "token", "Authorization: Bearer four\n")
        token.unlink()
        token.symlink_to("data/token")  # as Kubernetes has its secrets
        get(engine, host.url)
        assert sent(host) == [[b"Bearer " + word] for word in (b"one", b"two", b"three", b"four")]
        assert sent(host, b"x-a") == [[b"b: c"], [b"b: c"], [], []]
        assert sent(host, b"x-token") == [[b"x1"], [b"x2"], [b"x2"], [b"x2"]]


def basic(userinfo: str) -> list[bytes]:
    return [b"Basic " + base64.b64encode(userinfo.encode())]


@both_engines
def test_own_user_of_a_url_wins_over_its_source_and_that_over_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "netrc", "machine 127.0.0.1 login net password rc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    put(tmp_path / "pw", "pä:ss\r\n")
    with Host() as host:
        engine = engine_of(
            Source(match=f"{host.url}/user", user="mé", password_file="pw"),
            Source(match=f"{host.url}/header", headers={"authorization": "Bearer x", "X-T": "t"}),
            Source(match=f"{host.url}/other", headers={"X-T": "t"}),
            directory=tmp_path,
        )
        for path in ("/user", "/header", "/other", "/none"):
            get(engine, host.url + path)
            get(engine, f"http://own:1@{host.where}{path}")
        own = basic("own:1")
        assert sent(host) == [
            basic("mé:pä:ss"), own, [b"Bearer x"], own, basic("net:rc"), own, basic("net:rc"), own
        ]  # fmt: skip
        assert sent(host, b"x-t") == [[], [], [b"t"], [b"t"], [b"t"], [b"t"], [], []]


# ----------------------------------------------------------------------------------------------------------- redirects


@both_engines
def test_nothing_of_a_source_goes_on_to_what_does_not_match(tmp_path: Path) -> None:
    put(tmp_path / "pw", SECRET)
    with Host() as host, Host() as other:
        engine = engine_of(
            Source(match=f"{host.url}/a/", user="me", password_file="pw", headers={"X-T": SECRET, "Cookie": SECRET}),
            Source(match=f"{host.url}/b/", headers={"X-B": "b"}),
            Source(match=f"{other.url}/own/", headers={"X-Other": "o"}),
            directory=tmp_path,
        )
        moves = {"/a/1": f"{other.url}/file", "/a/2": f"{other.url}/own/file", "/a/3": "/b/file", "/a/4": "/a/5"}
        host.answers |= {path: reply(status="302 Found", Location=to) for path, to in moves.items()}
        for path in moves:
            assert get(engine, host.url + path) == (200, b"body")
        assert SECRET.encode() not in b"".join(other.asked)
        assert basic(f"me:{SECRET}")[0] not in b"".join(other.asked)
        assert sent(other, b"x-other") == [[], [b"o"]]
        assert [request.split()[1] for request in host.asked if b"X-T: " not in request] == [b"/b/file"]
        assert [request.split()[1] for request in host.asked if b"Cookie" not in request] == [b"/b/file"]
        assert [request.split()[1] for request in host.asked if b"X-B: " in request] == [b"/b/file"]


@both_engines
def test_redirect_into_a_source_gets_what_that_one_has() -> None:
    with Host() as host, Host() as lake:
        host.answers["/moved"] = reply(status="302 Found", Location=f"{lake.url}/a/file")
        get(engine_of(Source(match=f"{lake.url}/a", headers={"X-T": "t"})), f"{host.url}/moved")
        assert (sent(host, b"x-t"), sent(lake, b"x-t")) == ([[]], [[b"t"]])


# ------------------------------------------------------------------------------------------------------ TLS and proxies


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two certificates of clients, with their keys; "one" and "two" stand in them."""
    return [a_certificate(tmp_path_factory.mktemp("clients"), f"DNS:{name}") for name in ("one", "two")]


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def asking(request: pytest.FixtureRequest, certificate: Path, clients: list[Path]) -> Iterator[Host]:
    """A server that asks for a certificate, and takes a connection without one."""
    tls = serving_with(certificate)
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion[request.param]
    tls.verify_mode = ssl.CERT_OPTIONAL
    for client in clients:
        tls.load_verify_locations(f"{client}.crt")
    with Host(tls) as host:
        yield host


@both_engines
def test_certificate_of_a_client_is_shown_by_its_source_alone(
    asking: Host, certificate: Path, clients: list[Path]
) -> None:
    one, two = clients
    ca = f"{certificate}.crt"
    two_key = two.with_name(f"{two.name}.key")
    two_key.chmod(0o600)
    one.chmod(0o600)
    engine = engine_of(
        Source(match=f"{asking.url}/one", client_cert=one, ca=ca),
        Source(match=f"{asking.url}/two", client_cert=f"{two}.crt", client_key=two_key, ca=ca),
        Source(match=f"{asking.url}/", ca=ca),
    )
    asking.answers |= {
        "/one/moved": reply(status="302 Found", Location="/two/file"),
        "/two/moved": reply(status="302 Found", Location="/file"),
    }
    for path in ("/one", "/two", "/file", "/one", "/one", "/two/moved", "/one/moved"):
        assert get(engine, asking.url + path) == (200, b"body")
    assert asking.clients == ["one", "two", "", "one", "one", "two", "", "one", "two"]


@both_engines
def test_certificate_that_is_demanded_is_needed(certificate: Path, clients: list[Path]) -> None:
    tls = serving_with(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(f"{clients[0]}.crt")
    clients[0].chmod(0o600)
    ca = f"{certificate}.crt"
    with Host(tls) as host:
        with pytest.raises(HostError):
            get(engine_of(Source(match=host.url, ca=ca)), host.url)
        assert get(engine_of(Source(match=host.url, ca=ca, client_cert=clients[0])), host.url) == (200, b"body")
        assert host.clients == ["one"]


ASKING_ON_A_TERMINAL = """
import os, sys
from fsdm.model.errors import HostError
from fsdm.model.sources import Source
from fsdm.transfer.http.source_settings import Sources
from tests.support.servers import an_engine, get

os.open(sys.argv[1], os.O_RDWR)  # of a new session: it is its terminal from now on
try:
    get(an_engine(sources=Sources([Source(**{how})]), transport="{transport}"), {how}["match"])
except HostError as e:
    print(e.cause)
"""


@pytest.mark.parametrize("is_alone", [True, False])
def test_key_under_a_password_is_an_error_and_asks_nobody(
    certificate: Path, tmp_path: Path, transport: str, is_alone: bool
) -> None:
    key, encrypted = f"{certificate}.key", tmp_path / "key"
    command = ["openssl", "ec", "-aes256", "-passout", f"pass:{SECRET}", "-in", key, "-out", encrypted]
    subprocess.run(command, check=True, capture_output=True)
    encrypted.chmod(0o600)
    master, terminal = os.openpty()
    with Host(serving_with(certificate)) as host:
        how = {"match": host.url, "ca": f"{certificate}.crt"}
        if is_alone:
            how |= {"client_cert": f"{certificate}.crt", "client_key": str(encrypted)}
        else:
            encrypted.write_bytes(encrypted.read_bytes() + Path(f"{certificate}.crt").read_bytes())
            how |= {"client_cert": str(encrypted)}
        script = ASKING_ON_A_TERMINAL.format(how=how, transport=transport)
        command = [sys.executable, "-c", script, os.ttyname(terminal)]
        options = {"start_new_session": True, "capture_output": True, "text": True, "timeout": PATIENCE_S}
        done = subprocess.run(command, check=False, **options)
        assert (done.stdout, host.asked) == ("tls\n", []), done.stderr
    os.close(terminal)
    os.close(master)


@both_engines
def test_ca_of_a_source_is_for_its_urls_alone(certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "cas").mkdir()
    with Host(serving_with(certificate)) as host:
        sources = [
            Source(match=f"{host.url}/file", ca=f"{certificate}.crt"),
            Source(match=f"{host.url}/directory", ca=tmp_path / "cas"),  # there is none in it
        ]
        engine = engine_of(*sources)
        assert get(engine, f"{host.url}/file") == (200, b"body")
        for path in ("/directory", "/other"):
            with pytest.raises(HostError) as caught:
                get(engine, host.url + path)
            assert caught.value.cause == "tls"
        assert get(engine, f"{host.url}/file") == (200, b"body")
        assert len(host.asked) == 2


@both_engines
def test_proxy_of_a_source_is_in_place_of_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Host() as host, Host() as own, Host() as common:
        monkeypatch.setenv("http_proxy", common.url)
        engine = engine_of(
            Source(match=f"{host.url}/own", proxy=f"http://me:{SECRET}@{own.where}"),
            Source(match=f"{host.url}/none", proxy=""),
            Source(match=f"{host.url}/header", headers={"X-T": "t"}),
        )
        for path in ("/own", "/none", "/header", "/other", "/own"):
            assert get(engine, host.url + path) == (200, b"body")
        paths = [[request.split()[1] for request in one.asked] for one in (host, own, common)]
        at = host.url.encode()
        assert paths == [[b"/none"], [at + b"/own"] * 2, [at + b"/header", at + b"/other"]]
        assert sent(own, b"proxy-authorization") == [basic(f"me:{SECRET}")] * 2


@both_engines
def test_headers_are_not_told_to_the_proxy_of_a_tunnel(certificate: Path) -> None:
    with Host(serving_with(certificate)) as host, tunnel() as (url, asked):
        source = Source(match=host.url, headers={"X-T": SECRET}, ca=f"{certificate}.crt", proxy=url)
        assert get(engine_of(source), host.url) == (200, b"body")
        assert sent(host, b"x-t") == [[SECRET.encode()]]
        assert SECRET.encode() not in asked[0]


PROXIED = Source(match="http://example.invalid/", proxy=f"http://me:{SECRET}@127.0.0.1:1")


def test_proxy_of_a_source_is_under_the_policy() -> None:
    with pytest.raises(PolicyError, match=r"the proxy http://127\.0\.0\.1:1 hides"):
        get(engine_of(PROXIED, policy=Policy(deny_private=True)), "http://example.invalid/x")


@both_engines
def test_proxy_of_a_source_is_named_without_its_password() -> None:
    with pytest.raises(HostError, match=r"refused \(by way of the proxy http://127\.0\.0\.1:1\)") as caught:
        get(engine_of(PROXIED), "http://example.invalid/x")
    assert SECRET not in str(caught.value)


# ------------------------------------------------------------------------------------------------ what cannot be used

SAY: dict[str, tuple[dict[str, Any], str]] = {
    "no headers-file": ({"headers_file": "none"}, "headers-file: {0}/none: No such file"),
    "a directory": ({"headers_file": "."}, "headers-file: {0}/. is no file"),
    "no colon": ({"headers_file": "bare"}, "headers-file: line 2 is no line of Name: value"),
    "no name": ({"headers_file": "nameless"}, "headers-file: the name of header 1 is no name of a header"),
    "fsdm's own": ({"headers_file": "own"}, "headers-file: Range is for fsdm to send"),
    "twice": ({"headers_file": "good", "headers": {"x-t": "a"}}, "headers-file: X-T is given twice"),
    "not ASCII": ({"headers_file": "letters"}, "headers-file: the value of X-T is empty, or has more"),
    "readable": (
        {"headers_file": "readable"},
        "headers-file: {0}/readable may be read by others .*: chown .*chmod 600",
    ),
    "writable": ({"headers_file": "writable"}, "headers-file: {0}/writable may be read by others"),
    "too long": ({"headers_file": "long"}, "headers-file: {0}/long is no file, or has more than 65536 bytes"),
    "not set": ({"headers_env": {"X-T": f"NONE_{SECRET}"}}, "headers-env: the variable for X-T is not set"),
    "no password": ({"user": "me", "password_file": "none"}, "password-file: {0}/none: No such file"),
    "readable password": ({"user": "me", "password_file": "readable"}, "password-file: {0}/readable may be read"),
    "two passwords": ({"user": "me", "password_file": "bare"}, "password-file: it has more than one line"),
    "two authorities": (
        {"headers_file": "auth", "user": "me", "password_file": "good"},
        "user: Authorization is given",
    ),
    "no ca": ({"ca": "none"}, "ca: {0}/none: No such file"),
    "no certificate": ({"client_cert": "none"}, "client-cert: {0}/none: No such file"),
    "readable key": (
        {"client_cert": "good", "client_key": "readable"},
        "client-key: {0}/readable may be read by others",
    ),
    "readable certificate with its key": ({"client_cert": "readable"}, "client-cert: {0}/readable may be read"),
    "no proxy": ({"proxy": f"foo://me:{SECRET}@h"}, "proxy: it is no URL of a proxy"),
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    put(tmp_path / "good", f"X-T: {SECRET}\n")
    put(tmp_path / "auth", f"Authorization: {SECRET}\n")
    put(tmp_path / "bare", f"X-T: {SECRET}\n{SECRET}\n")
    put(tmp_path / "nameless", f"Bearer {SECRET}: x\n")
    put(tmp_path / "own", f"Range: {SECRET}\n")
    put(tmp_path / "letters", f"X-T: {SECRET}é\n")
    put(tmp_path / "readable", f"X-T: {SECRET}\n", 0o640)
    put(tmp_path / "writable", f"X-T: {SECRET}\n", 0o602)
    put(tmp_path / "long", f"X-T: {SECRET}\n" * 6000)
    return tmp_path


@pytest.mark.parametrize("how", SAY)
def test_what_cannot_be_used_is_said_at_the_start_without_a_value(files: Path, how: str) -> None:
    given, said = SAY[how]
    first = Source(match="http://lake.example/")
    with pytest.raises(InvalidInputError, match=said.format(files)) as caught:
        Sources([first, Source(match="https://lake.example/a", **given)], str(files))
    assert str(caught.value).startswith("source 2 (https://lake.example/a): ")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@both_engines
@pytest.mark.parametrize("how", ["gone", "readable", "no colon"])
def test_what_cannot_be_used_later_fails_what_needs_it_for_a_while(files: Path, how: str) -> None:
    with Host() as host:
        engine = engine_of(Source(match=f"{host.url}/a", headers_file="good"), directory=files)
        if how == "gone":
            (files / "good").unlink()
        else:
            put(files / "good", SECRET, 0o644 if how == "readable" else 0o600)
        with pytest.raises(
            TransferError, match=rf"{host.url}/a/x: source 1 \({host.url}/a\): headers-file: "
        ) as caught:
            get(engine, f"{host.url}/a/x")
        assert (caught.value.transient, caught.value.cause) == (True, "settings")
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert get(engine, f"{host.url}/b") == (200, b"body")
        put(files / "good", "X-T: t")
        assert get(engine, f"{host.url}/a/x") == (200, b"body")
        assert [request.split()[1] for request in host.asked] == [b"/b", b"/a/x"]


def test_change_that_cannot_be_taken_changes_nothing(files: Path) -> None:
    sources = Sources([Source(match="https://a/", headers={"X": "1"}, connections=1)], str(files))
    target, bounds = Target.of("https://a/x"), sources.bounds_of("https://a/x")
    with pytest.raises(InvalidInputError, match=r"source 2 \(https://b\): ca: "):
        sources.change(
            [Source(match="https://a/", headers={"X": "2"}, connections=2), Source(match="https://b", ca="none")]
        )
    assert (sources.of(target).headers, bounds.connections) == ({"X": "1"}, 1)
    sources.change([Source(match="https://a/", headers={"X": "2"}, connections=2, bytes_per_s=10)])
    assert (sources.of(target).headers, bounds.connections) == ({"X": "2"}, 2)
    assert sources.bounds_of("https://a/x") is bounds, "what runs counts"
    assert bounds.rate.is_capped
    sources.change([])
    assert sources.of(target).headers == {}


# -------------------------------------------------------------------------------------------------------------- bounds


class Gate:
    """Requests that wait in `begin` until they are let on; how many are there."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)
        self.inside = self.most = 0
        self._mutex = threading.Lock()

    def begin(self, _: Head) -> Callable[[memoryview], object]:
        with self._mutex:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.open.acquire(timeout=PATIENCE_S)
        with self._mutex:
            self.inside -= 1
        return bytes


@both_engines
def test_no_more_requests_are_open_at_once_than_connections_wherever_they_come_from() -> None:
    gate, stop = Gate(), Cancellation()
    with Host() as host, Host() as other:
        other.answers["/moved"] = reply(status="302 Found", Location=f"{host.url}/a/moved")
        engine = engine_of(Source(match=f"{host.url}/a", connections=2))
        urls = [f"{host.url}/a/{number}" for number in range(4)] + [f"{other.url}/moved"] * 2
        threads = [InThread(lambda url=url: engine.get(url, {}, stop, gate.begin)) for url in urls]  # type: ignore[misc]
        eventually(lambda: gate.inside == 2)
        assert get(engine, f"{host.url}/b") == (200, b"body"), "another is not held up"
        for _ in urls:
            gate.open.release()
        assert [thread.join() for thread in threads] == [None] * 6
        assert (gate.most, len(host.asked)) == (2, 7)


def test_request_that_waits_for_others_is_stopped(url: str) -> None:
    looked = threading.Event()

    class Looked(Cancellation):
        def check(self) -> None:
            looked.set()
            super().check()

    bounds, stop = Sources([Source(match=url, connections=1)]).bounds_of(url), Looked()

    def wait() -> None:
        with bounds.request(stop):
            raise AssertionError("it is let in")

    with bounds.request(Cancellation()):
        waiting = InThread(wait)
        assert looked.wait(PATIENCE_S)
        stop.set()
        assert isinstance(waiting.join(), StoppedError)
    with bounds.request(Cancellation()):
        pass


def test_requests_begin_no_faster_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [100.0], list[float]()

    def wait(self: Cancellation, seconds: float, event: threading.Event | None = None) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(Cancellation, "wait", wait)
    with Host() as host, Host() as other:
        match = f"{host.url}/a"
        sources = Sources([Source(match=match, requests_per_s=2)])
        bounds = sources.bounds_of(match)
        bounds.pace = Rate(2, clock=lambda: now[0])
        other.answers["/moved"] = reply(status="302 Found", Location=f"{host.url}/a/moved")
        engine = an_engine(sources=sources)
        for url in (*(f"{host.url}/a/{number}" for number in range(9)), f"{other.url}/moved"):
            get(engine, url)
        assert sum(waits) == pytest.approx(10 / 2), "ten requests, also one that was redirected here"
        get(engine, f"{host.url}/b")
        assert sum(waits) == pytest.approx(10 / 2), "another is not held up"
    sources.change([Source(match=match, requests_per_s=7)])
    assert bounds.pace.is_capped
    sources.change([Source(match=match)])
    assert not bounds.pace.is_capped


def test_request_that_waits_for_its_second_is_stopped_and_leaves_its_place() -> None:
    bounds, stop = (
        Sources([Source(match="http://h/", requests_per_s=0.001, connections=1)]).bounds_of("http://h/"),
        Cancellation(),
    )
    stop.set()
    with pytest.raises(StoppedError), bounds.request(stop):
        raise AssertionError("it is let in")
    assert bounds._running == 0
