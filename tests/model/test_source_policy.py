"""The policy of sources, by scheme, host and address; and that no way leads around it."""

import ipaddress
import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from fsdm import DataManager, Limits
from fsdm.model.errors import InvalidInputError, PolicyError, TransferError
from fsdm.model.source_policy import Policy, check_directory, check_pattern, check_source, is_public
from fsdm.transfer.http.engine import Engine
from fsdm.transfer.http.route import NONE, Route
from fsdm.transfer.http.sockets import Sockets
from tests.support import PATIENCE_S, Source, eventually, fsdm
from tests.support.chunks import failure
from tests.support.servers import Host, an_engine, get, no_environment, reply

__all__ = ["no_environment"]  # a fixture of all that is here

PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.0.1", "169.254.169.254", "172.31.0.1"),
    *("192.168.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::8.8.8.8", "fe80::1", "fe80::1%1", "fec0::1", "fd00:ec2::254", "ff02::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b:1::808:808", "2002:7f00:1::1"),
    *("2001:db8::1", "3fff::1", "2001::1", "2606:4700::1111%1", "no address", "", "2130706433", "0177.0.0.1"),
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


# ---------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_known_to_be_public_is_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public_whatever_they_wear(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_the_same_in_ipv6s_clothes(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    dressed = [f"::ffff:{address}", f"64:ff9b::{address}", str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))]
    assert {is_public(one) for one in dressed} == {is_public(str(address))}


@given(st.text(max_size=40) | st.ip_addresses().map(str))
def test_no_text_is_too_odd_to_be_judged(text: str) -> None:
    public = is_public(text)
    assert Policy(deny_private=False).addresses("h", [text]) == [text]
    if public:
        assert Policy(deny_private=True).addresses("h", [text]) == [text]
    else:
        with pytest.raises(PolicyError, match="--deny-private"):
            Policy(deny_private=True).addresses("h", [text])


def test_of_a_name_with_several_addresses_only_the_public_ones_are_asked() -> None:
    assert Policy(deny_private=True).addresses("h", ["10.0.0.1", "8.8.8.8"]) == ["8.8.8.8"]
    assert Policy(deny_private=True).addresses("h", []) == []


# -------------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    ("pattern", "url", "allowed"),
    [
        ("files.example.org", "https://files.example.org/x", True),
        ("files.example.org", "https://FILES.example.org./x", True),
        ("Files.Example.org", "http://files.example.org:8080/", True),
        ("files.example.org", "https://user:word@files.example.org/", True),
        ("files.example.org", "https://files.example.org@evil.net/", False),
        ("files.example.org", "https://files.example.org.evil.net/", False),
        ("files.example.org", "https://a.files.example.org/", False),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://badexample.org/", False),
        ("files.example.org:8080", "http://files.example.org:8080/", True),
        ("files.example.org:8080", "http://files.example.org/", False),
        ("files.example.org:443", "https://files.example.org/", True),
        ("files.example.org:80", "https://files.example.org/", False),
        ("files.example.org:80", "http://files.example.org:0/", False),
        ("127.0.0.1", "http://127.0.0.1:99/", True),
        ("127.0.0.1", "http://2130706433/", False),
        ("127.0.0.1", "http://0177.0.0.1/", False),
        ("[::1]:80", "http://[0:0::1]/", True),
        ("[::1]", "http://[::2]/", False),
    ],
)
def test_a_pattern_is_a_host_or_all_below_a_domain_and_perhaps_a_port(pattern: str, url: str, allowed: bool) -> None:
    policy = Policy(hosts=("other.example", pattern))
    if allowed:
        policy.check_url(url)
    else:
        with pytest.raises(PolicyError, match="--allow-host"):
            policy.check_url(url)


@pytest.mark.parametrize("url", ["ftp://h/", "file:///etc/passwd", "gopher://h/", "//h/", "", "h", "javascript:0"])
def test_only_http_and_https_are_asked_for_whatever_else_is_allowed(url: str) -> None:
    with pytest.raises(PolicyError, match="neither http nor https"):
        Policy().check_url(url)


@pytest.mark.parametrize(
    "pattern", ["", "*", "*.", "http://h", "h/", "h:", "h:0", "h:65536", "a b", "*.[::1]", "a.*.b", "é.org", "h\n"]
)
def test_what_is_no_pattern_is_refused_at_once(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="no pattern of hosts"):
        check_pattern(pattern)
    with pytest.raises(InvalidInputError, match="no pattern of hosts"):
        Policy(hosts=(pattern,))


@pytest.mark.parametrize(
    ("pattern", "url", "allowed"),
    [
        ("s3://lake/public/*", "s3://lake/public/a", True),
        ("s3://lake/public/*", "S3://lake/public/a/b c?", True),
        ("s3://lake/public/*", "s3://lake/public/", True),
        ("s3://lake/public/*", "s3://lake/public", False),
        ("s3://lake/public/*", "s3://lake/publicity", False),
        ("s3://lake/public", "s3://lake/public", True),
        ("s3://lake/public", "s3://lake/public/a", True),
        ("s3://lake/public", "s3://lake/publicity", False),
        ("s3://lake/public/*", "s3://lake/public/../secret", False),
        ("s3://lake/public/*", "s3://lake/public/%2e%2E/secret", False),
        ("s3://lake/public/*", "s3://lake/public/%252e./secret", False),
        ("s3://lake/public/*", "s3://lake/public/..\\secret", False),
        ("s3://lake/public/*", "s3://lake/public/a..b", True),
        ("s3://lake", "s3://lake2/a", False),
        ("s3://lake", "s3://lake.evil/a", False),
        ("s3://lake", "s3://me@lake/a", False),
        ("s3://*", "s3://any/a", True),
        ("s3://", "s3://any/a", True),
        ("s3://*", "s3n://any/a", False),
        ("s3://*", "gs://any/a", False),
    ],
)
def test_pattern_of_sources_is_the_beginning_of_urls_by_segments(pattern: str, url: str, allowed: bool) -> None:
    policy = Policy(sources=("az://other/", pattern))
    if allowed:
        policy.check_other(url)
    else:
        with pytest.raises(PolicyError, match="refused by the policy") as caught:
            policy.check_other(url)
        assert "--allow-source" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        *((one, "no pattern of sources") for one in ("", "*", "lake", "s3:lake", "s3://a*", "s3://*/a", "s3://a/../b")),
        *((one, "no pattern of sources") for one in ("S3://lake", "s3://a\n", "s3://lake/a*b")),
        *((one, "needs no leave") for one in ("http://h/", "https://*")),
        ("file:///srv/*", "is a file of this machine"),
    ],
)
def test_what_is_no_pattern_of_sources_is_refused_at_once(pattern: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        check_source(pattern)
    with pytest.raises(InvalidInputError, match=said):
        Policy(sources=(pattern,))


@pytest.mark.parametrize("path", ["", "in", "/", "//", "/a/../b", "/./a", "/a\0", "~/in"])
def test_directory_that_is_not_named_in_full_cannot_be_allowed(path: str) -> None:
    with pytest.raises(InvalidInputError, match="no directory that can be allowed"):
        check_directory(path)
    with pytest.raises(InvalidInputError, match="no directory that can be allowed"):
        Policy(directories=(path,))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/srv/in/a", ("/srv/in", ["a"])),
        ("/srv/in/a/b", ("/srv/in", ["a", "b"])),
        ("/srv/in/deep/a", ("/srv/in/deep", ["a"])),
        ("/srv/in/..a", ("/srv/in", ["..a"])),
        *((path, None) for path in ("/srv/in", "/srv/in/", "/srv/inside/a", "/srv/a", "/", "", "srv/in/a")),
        *((path, None) for path in ("/srv/in/../a", "/srv/in/./a", "/srv/in//a", "/srv/in/a/..", "/srv/in/a\0")),
        *((path, None) for path in ("/srv/in/deep/../a", "/srv/../srv/in/a", "//srv/in/a")),
    ],
)
def test_path_below_an_allowed_directory_is_found_in_the_nearest_one(
    path: str, found: tuple[str, list[str]] | None
) -> None:
    policy = Policy(directories=("/srv/in/", "/srv/in/deep"))
    if found is None:
        with pytest.raises(PolicyError, match="--allow-dir"):
            policy.find_directory(path)
    else:
        assert policy.find_directory(path) == found


def test_malformed_pattern_ends_manager_and_command_without_lock(data_dir: Path) -> None:
    with pytest.raises(InvalidInputError, match="no pattern of hosts"):
        DataManager(data_dir, limits=Limits(allow_hosts=("*",)))
    with DataManager(data_dir) as dm:
        assert dm.reconciling
    done = fsdm("run", "-d", data_dir, "--once", "--allow-host", "http://h/")
    assert (done.returncode, "no pattern of hosts" in done.stderr) == (2, True)


# ------------------------------------------------------------------------------------------------------ on the network


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def ask(policy: Policy, url: str, engine: Engine | None = None) -> bytes:
    return get(engine or an_engine(policy), url)[1]


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let names resolve to given answers, one after the other; return the names asked for."""

    def names(**answers: list[list[str]]) -> list[str]:
        asked: list[str] = []
        real = socket.getaddrinfo

        def lookup(name: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            label = name.partition(".")[0]
            if label not in answers:
                return real(name, port, *args, **kwargs)
            asked.append(name)
            found = answers[label].pop(0) if len(answers[label]) > 1 else answers[label][0]
            return [row for address in found for row in real(address, port, *args, **kwargs)]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        return asked

    return names


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that anything was about to connect to; none is reached."""
    tried: list[str] = []

    def refuse(sockets: Sockets, purpose: int, address: Any) -> Any:
        if (sock := allowed(sockets, purpose, address)) != pycurl.SOCKET_BAD:
            tried.append(address.addr[0])
            sock.close()
        return pycurl.SOCKET_BAD

    allowed = Sockets.opens
    monkeypatch.setattr(Sockets, "opens", refuse)
    return tried


LOOPBACK = ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]"]


@pytest.mark.parametrize("name", [*LOOPBACK, "[::ffff:7f00:1]"])
def test_loopback_is_refused_however_it_is_written(name: str, host: Host) -> None:
    url = f"http://{name}:{host.where.partition(':')[2]}/"
    with pytest.raises(PolicyError, match="not a public address") as e:
        ask(Policy(deny_private=True), url)
    assert not e.value.transient
    assert host.asked == []


def test_name_is_judged_by_its_address_at_each_connection(
    resolves: Callable[..., list[str]], connected: list[str]
) -> None:
    asked = resolves(rebind=[["8.8.8.8"], ["127.0.0.1"], ["10.0.0.1", "9.9.9.9"]])
    engine = an_engine(Policy(deny_private=True))
    with pytest.raises(TransferError, match="connect to") as first:
        ask(Policy(), "http://rebind.example/", engine)
    assert not isinstance(first.value, PolicyError)
    with pytest.raises(PolicyError, match=r"rebind.example is at 127.0.0.1"):
        ask(Policy(), "http://rebind.example/", engine)
    with pytest.raises(TransferError, match="connect to"):
        ask(Policy(), "http://rebind.example/", engine)
    assert len(asked) == 3, "each connection asks once, and connects to what it was told"
    assert connected == ["8.8.8.8", "9.9.9.9"]


def test_address_that_is_connected_to_is_judged_whatever_the_look_up_said(host: Host) -> None:
    port = host.where.partition(":")[2]
    engine, url = an_engine(Policy(deny_private=True)), f"http://elsewhere.example:{port}"
    addresses = (f"+elsewhere.example:{port}:127.0.0.1",)
    engine._hosts.get(url).routes[NONE] = Route(math.inf, "", DEFAULT_CA_BUNDLE_PATH, "", "", None, addresses)
    with pytest.raises(PolicyError, match=r"elsewhere.example is at 127.0.0.1"):
        get(engine, url)
    assert host.asked == []


@pytest.mark.parametrize("kept", [False, True], ids=["a new connection", "a kept connection"])
def test_a_redirect_is_under_the_same_policy(host: Host, kept: bool) -> None:
    with Host() as other:
        host.answers["/x"] = reply(b"", "302 Found", Location=f"{other.url}/secret")
        assert ask(Policy(), f"{host.url}/x") == b"body"
        other.asked.clear()
        policy = Policy(hosts=(host.where,))
        before, engine = host.connections, an_engine(policy) if kept else None
        assert ask(policy, f"{host.url}/y", engine) == b"body"
        with pytest.raises(PolicyError, match=rf"^{host.url}/x: .*{other.where} is no host"):
            ask(policy, f"{host.url}/x", engine)
        assert (host.connections - before, other.asked) == (1 if kept else 2, [])


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x", "gopher://h:70/x", "data:text/plain,x"])
def test_a_redirect_to_another_scheme_is_refused(host: Host, target: str) -> None:
    host.answers["/x"] = reply(b"", "302 Found", Location=target)
    with pytest.raises(TransferError, match="only http and https are followed") as e:
        ask(Policy(), f"{host.url}/x")
    assert not e.value.transient


def test_redirect_to_a_private_address_is_refused(
    host: Host, resolves: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "127.0.0.1"
    monkeypatch.setattr("fsdm.model.source_policy.is_public", lambda address: address == first)
    port = host.where.partition(":")[2]
    host.answers["/x"] = reply(b"", "302 Found", Location=f"http://inner.example:{port}/latest/meta-data")
    asked = resolves(inner=[["127.0.0.2"]])
    with pytest.raises(PolicyError, match=r"inner.example is at 127.0.0.2"):
        ask(Policy(deny_private=True), f"{host.url}/x")
    assert len(host.asked) == len(asked) == 1


def test_proxy_gets_allowed_hosts_only_and_nothing_with_deny_private(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:secret@{host.where}")
    policy = Policy(hosts=("files.example",))
    assert ask(policy, "http://files.example/x") == b"body"
    assert host.asked[0].startswith(b"GET http://files.example/x HTTP/1.1")
    with pytest.raises(PolicyError, match="--allow-host"):
        ask(policy, "http://evil.example/x")
    with pytest.raises(PolicyError, match=f"the proxy http://{host.where}") as e:
        ask(Policy(deny_private=True), "http://files.example/x")
    assert "secret" not in str(e.value)
    assert len(host.asked) == 1


# ------------------------------------------------------------------------------------------------------------ the whole


def test_refused_want_fails_for_good_and_holds_up_no_other(data_dir: Path, source: Source) -> None:
    with Source() as other:
        good, refused = source.chunk(files=1), other.chunk(start=10, end=20, files=1)
        allowed = source.url.removeprefix("http://")
        with DataManager(data_dir, limits=Limits(allow_hosts=(allowed,))) as dm:
            dm.download_chunk(refused)
            dm.download_chunk(good)
            assert dm.wait(good.id, PATIENCE_S)
            told = eventually(lambda: failure(data_dir, refused.id))
            assert "refused by the policy" in told["error"]
            assert "--allow-host" in told["error"]
            assert (told["kind"], told["transient"]) == ("transfer", False)
        assert not other.asked
        with DataManager(data_dir) as dm:
            dm.download_chunk(refused)
            assert dm.wait(refused.id, PATIENCE_S), "without the policy it is taken"


def test_a_mirror_that_is_allowed_serves_where_the_first_source_is_refused(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    name, file = next(iter(chunk.files.items()))
    mirrored = file.model_copy(update={"url": "http://refused.example/x", "mirrors": (file.url,)})
    chunk = chunk.model_copy(update={"files": {name: mirrored}})
    with DataManager(data_dir, limits=Limits(allow_hosts=("127.0.0.1",))) as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)


def test_the_command_line_takes_the_policy(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    (data_dir / "want").mkdir(parents=True)
    (data_dir / "want" / chunk.id).write_bytes(chunk.to_json())
    done = fsdm("run", "-d", data_dir, "--once", "--deny-private")
    assert (done.returncode, "127.0.0.1, which is not a public address" in done.stderr) == (4, True)
    (data_dir / "want" / chunk.id).touch()
    done = fsdm("run", "-d", data_dir, "--once", "--allow-host", "files.example", "--allow-host", "127.0.0.1")
    assert done.returncode == 0, done.stderr
