"""Servers that are in use: what they serve arrives, also where they are killed amid a transfer and started again."""

import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.errors import HostError, TransferError
from fsdm.model.limits import HttpVersion
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.resume_record import Part
from fsdm.transfer.sink import Sink
from tests.support.chunks import content
from tests.support.real_servers import KINDS, RealServer, real_server
from tests.support.servers import an_engine, certificate, get, no_environment
from tests.support.transports import transport

__all__ = ["certificate", "no_environment", "transport"]  # fixtures

pytestmark = pytest.mark.usefixtures("transport", "no_environment")

SIZE = 48 << 20  # more than all buffers between a server and a client hold
DATA = content("a file", 1 << 20) * (SIZE >> 20)
AMID = 8 << 20
TEXT = b"0123456789" * 100


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A directory of a large and a small file; its parents may be entered by any user, as Apache's."""
    with tempfile.TemporaryDirectory(prefix="fsdm-") as name:
        os.chmod(name, 0o755)
        for path, data in ((Path(name) / "large.bin", DATA), (Path(name) / "small.txt", TEXT)):
            path.write_bytes(data)
            os.utime(path, (1e9, 1e9))  # a validator of a file that has just changed is a weak one
        yield Path(name)


@pytest.fixture(params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path: Path, files: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealServer]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    with real_server(KINDS[request.param], tmp_path, files, certificate) as server:
        yield server


def fetch(fetcher: HttpFetcher, url: str, part: Part) -> FileEntry:
    return fetcher.fetch(FileSource(url=url), part, FileSystem(durable=False), Cancellation())


@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_transfer_goes_on_from_where_its_server_was_killed(
    server: RealServer, transport: str, http_version: HttpVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if http_version == "2" and (transport == "requests" or not server.url.startswith("https:")):
        pytest.skip("HTTP/2 is spoken by libcurl, over TLS")
    part, put = Part(str(tmp_path / "file")), Sink.put

    def put_and_kill(sink: Sink, data: bytes | memoryview) -> None:
        put(sink, data)
        if sink.size >= AMID:
            server.kill()

    with monkeypatch.context() as patched:
        patched.setattr(Sink, "put", put_and_kill)
        with pytest.raises(HostError) as caught:
            fetch(HttpFetcher(per_file=1, http_version=http_version), f"{server.url}/large.bin", part)
    assert caught.value.transient
    here = os.path.getsize(part.path)
    assert AMID <= here < SIZE
    part.same_boot = True
    server.start()
    again = HttpFetcher(per_file=1, http_version=http_version)
    if server.url.startswith("https:") and transport == "libcurl":
        assert get(again.engine, f"{server.url}/protocol")[1].startswith(f"HTTP/{http_version}".encode())
    came = again.received_bytes
    entry = fetch(again, f"{server.url}/large.bin", part)
    assert (entry.size, again.received_bytes - came) == (SIZE, SIZE - here)
    assert hashlib.sha256(Path(part.path).read_bytes()).digest() == hashlib.sha256(DATA).digest()


def test_range_and_end_of_a_file_and_one_that_is_not_there(server: RealServer, tmp_path: Path) -> None:
    engine, url = an_engine(), f"{server.url}/small.txt"
    assert get(engine, url, {"Range": "bytes=3-5"}) == (206, b"345")
    assert get(engine, url, {"Range": f"bytes={len(TEXT)}-"})[0] == 416
    with pytest.raises(TransferError, match="HTTP 404") as caught:
        fetch(HttpFetcher(), f"{server.url}/none", Part(str(tmp_path / "none")))
    assert not caught.value.transient


def test_bytes_come_as_they_are_from_a_server_that_would_pack_them(server: RealServer) -> None:
    engine, url = an_engine(), f"{server.url}/small.txt"
    assert get(engine, url) == (200, TEXT)
    status, packed = get(engine, url, {"Accept-Encoding": "gzip"})
    assert (status, gzip.decompress(packed)) == (200, TEXT), "nor is unpacked what was asked for"
