"""Objects of a store: signed for it alone, mended where it says how, and otherwise files like any other."""

import importlib.util
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fsdm import DataManager, Limits
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk
from fsdm.model.errors import PolicyError, StoppedError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.model.sources import Source
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.host_health import Hosts
from fsdm.transfer.http.handle import Handle
from fsdm.transfer.http.route import Route
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import Signature, Target, locate
from fsdm.transfer.schemes.aws_credentials import Chain, Keys
from fsdm.transfer.schemes.stores import STORES
from tests.support import PATIENCE_S
from tests.support.chunks import an_id, bring, chunk_dir, content, files_of
from tests.support.object_store import ObjectStore, signature_of
from tests.support.servers import Host, InThread, fetch, fields, get, proxying, reply

DATA = content("an object", 300_000)
SECRET = "se/cr+et:hush"
EVERYTHING = Policy(sources=("s3://*", "gs://*", "az://*"))


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        store.put_object("lake", "a/b", DATA)
        yield store


def of(store: ObjectStore | Host, match: str = "s3://lake/", **how: Any) -> Source:
    """The settings of a store, with the key that it takes."""
    keys = {"access_key_id": "AKID", "secret_access_key": SECRET}
    return Source(match=match, endpoint=store.url, **keys | how)


def a_fetcher(*sources: Source, directory: Path | str = ".", policy: Policy = EVERYTHING, **how: Any) -> HttpFetcher:
    patient = {"connect_timeout_s": PATIENCE_S, "idle_timeout_s": PATIENCE_S}
    return HttpFetcher(sources=Sources(sources, str(directory)), policy=policy, **patient | how)


def put(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return path.name


# ---------------------------------------------------------------------------------------------------------- what passes


@pytest.mark.parametrize("transport", ["libcurl", "requests"])
def test_object_comes_by_a_signed_request(store: ObjectStore, path: Path, transport: Any) -> None:
    entry = fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store), transport=transport))
    assert path.read_bytes() == DATA
    assert entry.etag is not None
    assert store.codes == []
    (head,) = store.heads["/lake/a/b"]
    assert "Range" not in head


@pytest.mark.parametrize("style", [None, True])
def test_mixture_of_schemes_makes_one_chunk(data_dir: Path, tmp_path: Path, store: ObjectStore, style: Any) -> None:
    here = tmp_path / "here"
    here.write_bytes(b"of this machine")
    store.put("/plain", b"by http")
    store.signed_only = False
    files = {
        "s3": "s3://lake/a/b",
        "mirrored": ["s3://lake/missing", f"{store.url}/plain"],
        "back": [f"{store.url}/missing", here.as_uri(), "s3://lake/a/b"],
    }
    chunk = DataChunk(id=an_id(), dataset_id=an_id(), block_range=(0, 9), files=files)
    limits = Limits(allow_sources=("s3://lake/*",), allow_dirs=(str(tmp_path / "other"), str(tmp_path)))
    with DataManager(data_dir, limits=limits, sources=[of(store, path_style=style)]) as dm:
        bring(dm, chunk)
    came = files_of(chunk_dir(data_dir, chunk) / "data")
    assert came == {"s3": DATA, "mirrored": b"by http", "back": b"of this machine"}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" %+&=?#/~;:"), min_size=1)
)
@example("a b%20c+d?e=f&g#h/é~'()*!$,;:@[]")
@example("%2F%25//a/")
@example("x?versionId=v.1-2_3")
def test_any_key_is_signed_as_it_is_read(store: ObjectStore, key: str) -> None:
    """A store takes no request whose signature is over another key."""
    if any(part in {".", ".."} for part in key.split("/")):
        return
    name, mark, _ = key.rpartition("?versionId=")
    url = store.put_object("lake", name if mark else key, DATA[:100])
    engine = a_fetcher(of(store)).schemes
    assert get(engine, url if not mark else f"s3://lake/{key}") == (200, DATA[:100]), store.codes


VECTORS = [  # Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header", its examples
    ("/test.txt", "bytes=0-9", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
    ("/?lifecycle", "", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ("/?max-keys=2&prefix=J", "", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
]
EXAMPLE_KEY, EXAMPLE_SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(("path", "span", "signature"), VECTORS)
def test_published_signatures_are_made_and_known_by_the_stand_in(path: str, span: str, signature: str) -> None:
    asked, target = list[bytes](), Target.of(f"http://examplebucket.s3.amazonaws.com{path}")
    headers = {"X-Amz-Date": "20130524T000000Z"} | ({"Range": span} if span else {})
    signed = Signature("aws:amz:us-east-1:s3", EXAMPLE_KEY, EXAMPLE_SECRET, {})

    def serve(client: socket.socket) -> None:
        asked.append(client.recv(65536))
        client.sendall(reply(b""))

    with proxying(serve) as proxy:
        route = Route(0.0, proxy, "", "", "", None, ())
        handle = Handle(PATIENCE_S, PATIENCE_S, "1.1")
        lines = [f"{name}: {value}".encode() for name, value in headers.items()]
        request = Target(
            *(target.url, "s3://examplebucket", target.scheme, target.host, target.port, None),
            server=target.server,
            path=target.path,
            signature=signed,
        )
        handle.get(request, route, lines, lambda _: None, lambda _: None, Cancellation(), Hosts().get(target.url))
        handle.close()
    (authorization,) = fields(asked[0], b"authorization")
    assert authorization.decode().endswith(f"Signature={signature}")
    names = "host;range;x-amz-content-sha256;x-amz-date" if span else "host;x-amz-content-sha256;x-amz-date"
    sent = {name: fields(asked[0], name.encode())[0].decode() for name in names.split(";")}
    assert signature_of(EXAMPLE_SECRET, "us-east-1", path, sent, names) == signature


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1),
    st.dictionaries(st.from_regex(r"[a-z-]{1,9}\Z"), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))),
)
def test_stand_in_signs_as_botocore_does(key: str, query: dict[str, str]) -> None:
    pytest.importorskip("botocore")
    from urllib.parse import quote, urlencode

    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"http://store.example/lake/{quote(key, '/~')}?{urlencode(query, quote_via=quote)}"
    request = AWSRequest("GET", url, headers={"Range": "bytes=1-"})
    S3SigV4Auth(Credentials(EXAMPLE_KEY, EXAMPLE_SECRET), "s3", "eu-west-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()} | {"host": "store.example"}
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    mine = signature_of(EXAMPLE_SECRET, "eu-west-1", url, headers, signed)
    assert headers["authorization"].endswith(f"Signature={mine}")


# ---------------------------------------------------------------------------------------------------- resume and bounds


def test_object_that_broke_off_is_gone_on_with(store: ObjectStore, path: Path) -> None:
    store.fault("/lake/a/b", cut_at=200_000)
    fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store)))
    assert path.read_bytes() == DATA
    assert store.codes == []
    assert [head.get("Range") for head in store.heads["/lake/a/b"]] == [None, "bytes=200000-"]
    assert "If-Range" in store.heads["/lake/a/b"][1], "which was under the signature"


def test_stop_ends_a_signed_request_at_once(store: ObjectStore, path: Path) -> None:
    fault, stop = store.fault("/lake/a/b", stall_at=1000), Cancellation()
    thread = InThread(lambda: fetch("s3://lake/a/b", path, stop, fetcher=a_fetcher(of(store))))
    assert fault.stalled.wait(PATIENCE_S)
    stop.set()
    assert isinstance(thread.join(), StoppedError)


def test_bounds_of_a_source_hold_for_a_store(store: ObjectStore, path: Path) -> None:
    fetcher = a_fetcher(of(store, connections=1, bytes_per_s=1e9))
    assert fetcher.sources.group("s3://lake/a/b") == ("s3://lake/", 1)
    counted = list[int]()
    bounds = fetcher.sources.bounds_of("s3://lake/a/b")
    took = bounds.rate.took
    bounds.rate.took = lambda count, wait: counted.append(count) or took(count, wait)  # type: ignore[method-assign,func-returns-value]
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert sum(counted) == len(DATA)


def test_store_that_is_busy_slows_its_bucket_down(store: ObjectStore, path: Path) -> None:
    store.fault("/lake/a/b", status=503, headers={"Retry-After": "7"}, body=b"<Code>SlowDown</Code>")
    fetcher = a_fetcher(of(store))
    with pytest.raises(TransferError, match="HTTP 503") as caught:
        fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert (caught.value.transient, caught.value.retry_after_s, caught.value.cause) == (True, 7.0, "http_5xx")
    with pytest.raises(TransferError, match=r"^s3://lake: HTTP 503"):
        fetch("s3://lake/other", path, fetcher=fetcher)


# ------------------------------------------------------------------------------------------------------- what is mended


@pytest.mark.parametrize("says", [True, False], ids=["in a field", "in its words"])
def test_region_that_a_store_names_is_signed_for_and_remembered(store: ObjectStore, path: Path, says: bool) -> None:
    store.region, store.says_region = "eu-north-1", says
    fetcher = a_fetcher(of(store))
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert path.read_bytes() == DATA
    assert store.codes == ["AuthorizationHeaderMalformed"]


def test_region_is_mended_once(store: ObjectStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = iter(f"eu-north-{number}" for number in range(9))
    judge = store._judge
    monkeypatch.setattr(store, "_judge", lambda handler: (setattr(store, "region", next(regions)), judge(handler))[1])
    with pytest.raises(TransferError, match=r"HTTP 400 Bad Request \(AuthorizationHeaderMalformed\)"):
        fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store)))
    assert len(store.codes) == 2


@pytest.mark.parametrize("ahead_s", [-86_400, 86_400])
def test_clock_of_a_store_is_gone_by(store: ObjectStore, path: Path, ahead_s: float) -> None:
    store.ahead_s = ahead_s
    fetcher = a_fetcher(of(store))
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert store.codes == ["RequestTimeTooSkewed"]
    store.ahead_s = 0
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert store.codes == ["RequestTimeTooSkewed"] * 2, "and by ours again, once it is right"
    assert path.read_bytes() == DATA


def test_token_that_has_been_replaced_meanwhile_is_read_anew(
    store: ObjectStore, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.tokens["AKID"], store.expired = "new", {"old"}
    source = of(store, session_token_file=put(tmp_path / "token", "old\n"))
    judge = store._judge
    monkeypatch.setattr(store, "_judge", lambda handler: (judge(handler), put(tmp_path / "token", "new"))[0])
    fetch("s3://lake/a/b", path, fetcher=a_fetcher(source, directory=tmp_path))
    assert store.codes == ["ExpiredToken"]


def test_token_that_stays_expired_is_said_to_be_so(store: ObjectStore, tmp_path: Path, path: Path) -> None:
    store.tokens["AKID"], store.expired = "old", {"old"}
    source = of(store, session_token_file=put(tmp_path / "token", "old"))
    with pytest.raises(TransferError, match=r"HTTP 400 Bad Request \(ExpiredToken\)"):
        fetch("s3://lake/a/b", path, fetcher=a_fetcher(source, directory=tmp_path))
    assert store.codes == ["ExpiredToken"]


# -------------------------------------------------------------------------------------------------- what is not told to


@pytest.mark.parametrize("how", [{"secret_access_key": "wrong"}, {"access_key_id": "NOBODY"}])
def test_refusal_is_told_without_a_secret(store: ObjectStore, path: Path, how: dict[str, str]) -> None:
    with pytest.raises(TransferError) as caught:
        fetch("s3://lake/a/b?versionId=hush", path, fetcher=a_fetcher(of(store, **how)))
    told = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert str(caught.value).startswith("s3://lake/a/b: HTTP 403 Forbidden (")
    assert caught.value.cause == "http_403"
    for secret in ("hush", "wrong", SECRET, store.url):
        assert secret not in str(caught.value)
    assert SECRET not in told


def test_settings_and_what_is_made_of_them_show_no_secret(tmp_path: Path) -> None:
    source = Source(
        match="s3://lake/",
        access_key_id="AKID",
        secret_access_key="hush",
        session_token_file=put(tmp_path / "token", "hush2"),
    )
    engine = a_fetcher(source, directory=tmp_path).schemes._find("s3")
    settings = Sources([source], str(tmp_path)).of(locate("s3://lake/a"))
    find = partial(STORES["s3"].find, "s3://lake/a")
    target = engine._target(find, locate("s3://lake/a"), settings.access, engine._keys(settings, None))
    assert target.signature.secret == "hush"
    assert target.signature.headers == {"X-Amz-Security-Token": "hush2"}
    assert "hush" not in repr((source, settings, target, target.signature))
    assert source.has_secret


def test_redirect_of_a_store_is_not_followed(store: ObjectStore, path: Path) -> None:
    with Host() as other:
        store.fault("/lake/a/b", status=307, headers={"Location": f"{other.url}/lake/a/b"})
        with pytest.raises(TransferError, match="HTTP 307"):
            fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store)))
        assert other.asked == []


def test_key_of_one_bucket_does_not_go_to_another(store: ObjectStore, path: Path, tmp_path: Path) -> None:
    sources = [of(store), Source(match="s3://public/", endpoint=store.url, unsigned=True)]
    store.put_object("public", "x", b"open to all")
    store.signed_only = False
    fetcher = a_fetcher(*sources)
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    fetch("s3://public/x", tmp_path / "x", fetcher=fetcher)
    fetch(f"{store.url}/lake/a/b", tmp_path / "y", fetcher=fetcher)
    signed = [["Authorization" in head for head in store.heads[at]] for at in ("/lake/a/b", "/public/x")]
    assert signed == [[True, False], [False]], "nor to a URL of http, though it leads to the same bytes"


def test_connection_of_a_signed_request_signs_no_other(store: ObjectStore, path: Path) -> None:
    store.signed_only = False
    fetcher = a_fetcher(of(store))
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    fetcher.sources.change([Source(match="s3://lake/", endpoint=store.url, unsigned=True)])
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert ["Authorization" in head for head in store.heads["/lake/a/b"]] == [True, False]


def test_store_that_is_not_allowed_is_not_asked(store: ObjectStore, path: Path) -> None:
    for policy in (Policy(), Policy(sources=("s3://lake/public/*",))):
        with pytest.raises(PolicyError, match=r"^s3://lake/a/b: refused by the policy"):
            fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store), policy=policy))
    for policy in (Policy(hosts=("other.example",), sources=("s3://*",)), Policy((), True, ("s3://*",))):
        with pytest.raises(PolicyError, match=r"^s3://lake/a/b: refused by the policy"):
            fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store), policy=policy))
    assert store.asked.total() == 0


def test_netrc_of_an_endpoint_is_not_used(
    store: ObjectStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / put(tmp_path / "netrc", "machine 127.0.0.1 login me password hush")))
    fetch("s3://lake/a/b", path, fetcher=a_fetcher(of(store)))
    store.signed_only = False
    source = Source(match="s3://lake/", endpoint=store.url, unsigned=True)
    fetch("s3://lake/a/b", path, fetcher=a_fetcher(source))
    assert "Authorization" not in store.heads["/lake/a/b"][-1]


# -------------------------------------------------------------------------------------------------------- other stores


def test_bucket_of_gs_is_asked_by_key_or_by_token(store: ObjectStore, path: Path, tmp_path: Path) -> None:
    store.region = "auto"
    fetch("gs://lake/a/b", path, fetcher=a_fetcher(of(store, "gs://lake/")))
    assert path.read_bytes() == DATA
    token = put(tmp_path / "token", "Authorization: Bearer hush\n")
    with Host() as host:
        source = Source(match="gs://lake/", endpoint=host.url, headers_file=token)
        fetch("gs://lake/a b", path, fetcher=a_fetcher(source, directory=tmp_path))
        assert [fields(one, b"authorization") for one in host.asked] == [[b"Bearer hush"]]
        assert host.asked[0].startswith(b"GET /lake/a%20b HTTP")


def test_container_of_az_is_asked_by_signature_or_by_token(path: Path, tmp_path: Path) -> None:
    sas = put(tmp_path / "sas", "?sv=1&sig=hush%3D\n")
    token = put(tmp_path / "token", "Authorization: Bearer hush\n")
    with Host() as host:
        sources = [
            Source(match="az://box/", endpoint=f"{host.url}/account", sas_file=sas),
            Source(match="az://other/", endpoint=host.url, headers_file=token),
        ]
        fetcher = a_fetcher(*sources, directory=tmp_path)
        fetch("az://box/a", path, fetcher=fetcher)
        fetch("az://other/a", path, fetcher=fetcher)
        assert host.asked[0].startswith(b"GET /account/box/a?sv=1&sig=hush%3D HTTP")
        assert fields(host.asked[0], b"authorization") == []
        assert fields(host.asked[1], b"authorization") == [b"Bearer hush"]
        assert [fields(one, b"x-ms-version") for one in host.asked] == [[b"2023-11-03"]] * 2
        host.default = reply(b"<Code>AuthenticationFailed</Code>", "403 Forbidden")
        with pytest.raises(TransferError, match=r"^az://box/a: HTTP 403 Forbidden \(AuthenticationFailed\)$") as caught:
            fetch("az://box/a", path, fetcher=fetcher)
        assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["gs://lake/a", "az://lake/a"])
def test_store_without_anything_to_ask_with_is_an_error_of_its_settings(path: Path, url: str) -> None:
    source = Source(match=url[:9] + "/", endpoint="http://127.0.0.1:1")
    with pytest.raises(TransferError) as caught:
        fetch(url, path, fetcher=a_fetcher(source))
    assert (caught.value.cause, caught.value.transient) == ("settings", True)


@pytest.mark.parametrize("code", ["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"])
def test_object_that_is_archived_is_waited_for(store: ObjectStore, path: Path, code: str) -> None:
    store.fault("/lake/a/b", status=403, body=f"<Error><Code>{code}</Code></Error>".encode())
    fetcher = a_fetcher(of(store))
    with pytest.raises(TransferError, match=rf"^s3://lake/a/b: it is archived \({code}\)$") as caught:
        fetch("s3://lake/a/b", path, fetcher=fetcher)
    error = caught.value
    assert (error.cause, error.transient, error.retry_after_s) == ("not_ready", True, 900.0)
    assert "restored" in error.hint
    store.put_object("lake", "other", b"here")
    assert fetch("s3://lake/other", path.with_name("other"), fetcher=fetcher).size == 4, "its bucket is asked on"
    fetch("s3://lake/a/b", path, fetcher=fetcher, mirrors=["s3://lake/other"])
    assert path.read_bytes() == b"here"


# --------------------------------------------------------------------------------------------------- botocore's chain


def test_key_is_found_where_the_tools_of_aws_find_it(
    store: ObjectStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botocore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    store.tokens["AKID"] = "token"
    fetcher = a_fetcher(Source(match="s3://lake/", endpoint=store.url))
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert path.read_bytes() == DATA
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    store.tokens["AKID"], store.expired = "another", {"token"}
    fetch("s3://lake/a/b", path, fetcher=fetcher)
    assert store.codes == ["ExpiredToken"], "it is asked for once more"


def test_chain_without_a_key_is_an_error_that_says_what_to_do(
    store: ObjectStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    fetcher = a_fetcher(Source(match="s3://lake/", endpoint=store.url))
    cases = {"botocore": r"no key"} if importlib.util.find_spec("botocore") else {}
    for module, said in (cases | {"botocore.session": "no botocore"}).items():
        if said == "no botocore":
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(TransferError, match=said) as caught:
            fetch("s3://lake/a/b", path, fetcher=fetcher)
        assert (caught.value.cause, caught.value.transient) == ("settings", True)
        assert "unsigned = true" in caught.value.hint
    assert store.asked.total() == 0


def test_stop_does_not_wait_for_the_chain(store: ObjectStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gate, stop = threading.Event(), threading.Event(), Cancellation()
    monkeypatch.setattr(Chain, "_ask", lambda self: (asked.set(), gate.wait(PATIENCE_S)))
    fetcher = a_fetcher(Source(match="s3://lake/", endpoint=store.url))
    thread = InThread(lambda: fetch("s3://lake/a/b", path, stop, fetcher=fetcher))
    assert asked.wait(PATIENCE_S)
    stop.set()
    assert isinstance(thread.join(), StoppedError)
    gate.set()


def test_chain_is_asked_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    botocore = pytest.importorskip("botocore.session")
    now, made = [0.0], list[int]()

    class Found:
        access_key, secret_key, token = "AKID", SECRET, None

        def get_frozen_credentials(self) -> "Found":
            made.append(1)
            return self

    monkeypatch.setattr(botocore.Session, "get_credentials", lambda self: Found())
    chain = Chain(clock=lambda: now[0])
    assert {chain.keys(Cancellation()) for _ in range(3)} == {Keys("AKID", SECRET, "")}
    assert len(made) == 1
    now[0] += 61
    chain.keys(Cancellation())
    assert len(made) == 2, "botocore itself sees to what is about to expire"


# ---------------------------------------------------------------------------------------------------------------- moto

MOTO = """
import sys, boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
url = "http://{}:{}".format(*server.get_host_and_port())
how = dict(aws_access_key_id="AKID", aws_secret_access_key="x", region_name="us-east-1", endpoint_url=url)
client = boto3.client("s3", **how)
client.create_bucket(Bucket="lake")
client.put_bucket_versioning(Bucket="lake", VersioningConfiguration={"Status": "Enabled"})
old = client.put_object(Bucket="lake", Key="a b/c+d", Body=b"old")["VersionId"]
client.put_object(Bucket="lake", Key="a b/c+d", Body=b"new" * 1000)
print(url, old, flush=True)
sys.stdin.read()
"""


def test_s3_of_other_hands_gives_its_objects(path: Path) -> None:
    """moto checks no signature; but it reads requests as others do who know S3."""
    pytest.importorskip("moto.server")
    pytest.importorskip("boto3")
    command = [sys.executable, "-W", "ignore", "-c", MOTO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url, old = server.stdout.readline().split()
            source = Source(match="s3://lake/", endpoint=url, access_key_id="AKID", secret_access_key="x")
            fetcher = a_fetcher(source)
            fetch("s3://lake/a b/c+d", path, fetcher=fetcher)
            assert path.read_bytes() == b"new" * 1000
            assert get(fetcher.schemes, "s3://lake/a b/c+d", {"Range": "bytes=3-8"}) == (206, b"newnew")
            assert get(fetcher.schemes, f"s3://lake/a b/c+d?versionId={old}") == (200, b"old")
            with pytest.raises(TransferError, match=r"^s3://lake/none: HTTP 404 Not Found \(NoSuchKey\)"):
                fetch("s3://lake/none", path, fetcher=fetcher)
        finally:
            server.terminate()
