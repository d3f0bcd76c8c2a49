"""Transfers over a real HTTP server that misbehaves: nothing but the bytes that are wanted passes for a file."""

import gzip
import hashlib
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from pydantic import ValidationError

from fsdm import DataManager
from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.rate_limit import LEAST_BYTES, Floor, Rate
from fsdm.model.documents import FileSource
from fsdm.model.errors import HostError, InvalidInputError, StoppedError, TransferError
from fsdm.model.sources import Source as Settings
from fsdm.store.filesystem import FileSystem
from fsdm.transfer import source_fetch as source_fetch_module
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.file_transfer import Transfer
from fsdm.transfer.http import exchange
from fsdm.transfer.http.head import Head
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import shown
from fsdm.transfer.resume_record import Part
from tests.support import PATIENCE_S, Recorder, Source, eventually
from tests.support.servers import CUT_SHORT, DATA, NO_ANSWER, InThread, answering, fetch, full_server

pytestmark = pytest.mark.usefixtures("transport")

SHA256 = hashlib.sha256(DATA).hexdigest()
BLAKE3 = blake3(DATA).hexdigest()
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connecting_to(port: int) -> int:
    """How many connections to a port of this machine have been asked for and not answered (proc(5), SYN_SENT)."""
    with open("/proc/net/tcp") as file:
        return sum(line.split()[2:4] == [f"0100007F:{port:04X}", "02"] for line in file)


# ---------------------------------------------------------------------------------------------------------- what passes


@pytest.mark.parametrize("known", [{}, {"size": len(DATA)}, {"sha256": SHA256}, {"size": len(DATA), "sha256": SHA256}])
def test_a_file_arrives_as_it_is(url: str, path: Path, known: dict[str, Any]) -> None:
    entry = fetch(url, path, **known)
    assert (entry.size, entry.blake3) == (len(DATA), BLAKE3)
    assert entry.sha256 == (SHA256 if "sha256" in known else None)
    assert path.read_bytes() == DATA


def test_an_empty_file_is_a_file(source: Source, path: Path) -> None:
    assert fetch(source.put("/empty", b""), path, size=0).size == 0
    assert path.read_bytes() == b""


def test_a_body_without_a_length_ends_with_the_connection(source: Source, url: str, path: Path) -> None:
    source.fault("/file", no_length=True)
    assert fetch(url, path).blake3 == BLAKE3


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Ty", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_answer_that_is_cut_off_in_its_head_is_no_empty_file(path: Path, head: bytes) -> None:
    with answering([head]) as (url, _), pytest.raises(TransferError, match="nothing came") as caught:
        fetch(url, path)
    assert caught.value.transient
    with answering([CHUNKED + b"0\r\n\r\n"]) as (url, _):
        assert fetch(url, path).size == 0, "an empty file says so"


def test_a_file_that_is_gzip_by_itself_stays_as_it_is(source: Source, path: Path) -> None:
    packed = gzip.compress(DATA)
    fetch(source.put("/file.gz", packed), path)
    assert path.read_bytes() == packed


def test_the_data_is_synced_after_its_last_byte(source: Source, url: str, path: Path) -> None:
    sizes: list[int] = []
    fs = Recorder(fsync_file=lambda path: sizes.append(os.path.getsize(path)))
    HttpFetcher().fetch(FileSource(url=url), Part(str(path)), fs, Cancellation())
    assert fs.steps == [("create", str(path)), ("fsync_file", str(path))]
    assert sizes == [len(DATA)]


# -------------------------------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    ("status", "transient"),
    [(404, False), (403, False), (410, False), (206, False), (429, True), (500, True), (503, True)],
)
def test_an_answer_that_is_not_200_is_no_file_whatever_its_page_says(
    source: Source, url: str, path: Path, status: int, transient: bool
) -> None:
    source.fault("/file", status=status)
    with pytest.raises(TransferError, match=f"HTTP {status}") as caught:
        fetch(url, path)
    assert caught.value.transient is transient
    assert bool(caught.value.hint) is not (transient or status == 206)
    assert not path.exists()


def test_an_error_page_that_says_200_is_not_taken_for_the_file(source: Source, path: Path) -> None:
    url = source.put("/file", b"<html>Service Unavailable</html>")
    with pytest.raises(TransferError, match=f"32 bytes are offered, {len(DATA)} are wanted") as caught:
        fetch(url, path, size=len(DATA))
    assert not caught.value.transient
    assert not path.exists()


@pytest.mark.parametrize("known", [{}, {"size": len(DATA)}, {"sha256": SHA256}])
def test_a_body_that_is_cut_short_is_no_file_and_may_come_next_time(
    source: Source, url: str, path: Path, known: dict[str, Any]
) -> None:
    for cut_at in (0, 1, len(DATA) - 1):
        source.fault("/file", cut_at=cut_at, no_ranges=True)
        with pytest.raises(TransferError, match=CUT_SHORT) as caught:
            fetch(url, path, **known)
        assert (caught.value.transient, caught.value.cause) == (True, "connection")
        path.unlink(missing_ok=True)


def test_a_body_without_a_length_that_is_too_short_or_too_long_is_no_file(source: Source, url: str, path: Path) -> None:
    source.fault("/file", no_length=True)
    with pytest.raises(TransferError, match=f"{len(DATA)} bytes came, {len(DATA) + 1} are wanted") as caught:
        fetch(url, path, size=len(DATA) + 1)
    assert caught.value.transient
    path.unlink()
    with pytest.raises(TransferError, match="more than the 1000 bytes") as caught:
        fetch(url, path, size=1000)
    assert not caught.value.transient
    assert path.stat().st_size <= 1001, "it ends before it fills the disk"


@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_size_other_than_the_declared_one_is_refused_before_a_byte_is_written(
    url: str, path: Path, off_by: int
) -> None:
    with pytest.raises(TransferError, match="are offered"):
        fetch(url, path, size=len(DATA) + off_by)
    assert not path.exists()


def test_bytes_with_another_digest_are_no_file(url: str, path: Path) -> None:
    with pytest.raises(TransferError, match=f"sha256 is {SHA256}, wanted is {'0' * 64}") as caught:
        fetch(url, path, sha256="0" * 64, size=len(DATA))
    assert not caught.value.transient
    assert caught.value.hint


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "gzip, identity"])
def test_an_encoding_that_was_not_asked_for_is_refused(source: Source, url: str, path: Path, encoding: str) -> None:
    source.fault("/file", headers={"Content-Encoding": encoding})
    with pytest.raises(TransferError, match="unasked") as caught:
        fetch(url, path)
    assert not caught.value.transient
    assert not path.exists()


def test_a_chunked_body_that_is_cut_is_no_file(path: Path) -> None:
    with answering([CHUNKED + b"5\r\nabc"]) as (url, _), pytest.raises(TransferError, match=CUT_SHORT) as caught:
        fetch(url, path)
    assert caught.value.transient


def test_a_server_that_does_not_speak_http_is_an_error_that_may_pass(path: Path) -> None:
    with (
        answering([b"SSH-2.0-OpenSSH_9.6\r\n"]) as (url, _),
        pytest.raises(TransferError, match=r"what answers does not speak HTTP|HTTP/0.9") as caught,
    ):
        fetch(url, path)
    assert caught.value.transient


def test_a_connection_that_is_refused_may_come_next_time(path: Path) -> None:
    with pytest.raises(TransferError, match="Connection refused") as caught:
        fetch(f"http://127.0.0.1:{refused_port()}/file", path)
    assert caught.value.transient


def test_redirects_without_end_are_given_up(path: Path) -> None:
    with (
        answering(itertools.repeat(REDIRECT % b"/again")) as (url, _),
        pytest.raises(TransferError, match="too many redirects") as caught,
    ):
        fetch(url, path)
    assert not caught.value.transient


def test_a_server_that_falls_silent_is_given_up_after_the_idle_timeout(source: Source, url: str, path: Path) -> None:
    fault = source.fault("/file", stall_at=10)
    with pytest.raises(TransferError, match="not a byte for") as caught:
        fetch(url, path, fetcher=HttpFetcher(idle_timeout_s=0.05))
    assert (caught.value.transient, caught.value.cause) == (True, "timeout")
    assert fault.stalled.is_set()
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(TransferError, match=r"not a byte for 0\.05 s"):
        fetch(
            f"http://127.0.0.1:{mute.getsockname()[1]}/", path, fetcher=HttpFetcher(idle_timeout_s=0.05)
        )  # the kernel accepts


@pytest.mark.parametrize(
    "make", [lambda path, other: path.write_bytes(b"old"), lambda path, other: path.symlink_to(other)]
)
def test_a_file_or_symlink_that_is_there_already_is_replaced_and_not_written_through(
    url: str, path: Path, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    other = tmp_path / "outside"
    other.write_bytes(b"untouched")
    make(path, other)
    fetch(url, path)
    assert other.read_bytes() == b"untouched"
    assert path.read_bytes() == DATA
    assert not path.is_symlink()


def test_a_symlink_that_leads_nowhere_is_not_followed_either(url: str, path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "outside")
    fetch(url, path)
    assert not (tmp_path / "outside").exists()


def test_what_the_disk_refuses_is_no_fault_of_the_transfer(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        fetch(url, path)


# ------------------------------------------------------------------------------------------------------ cap and floor


@pytest.mark.parametrize(("bytes_per_s", "given_up"), [(500, True), (1000, True), (1100, False), (250_000, False)])
def test_a_transfer_is_given_up_below_the_floor_and_not_above_it(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch, bytes_per_s: float, given_up: bool
) -> None:
    monkeypatch.setattr(exchange, "BLOCK_BYTES", 16384)

    def clock() -> float:
        return (path.stat().st_size if path.exists() else 0) / bytes_per_s

    monkeypatch.setattr(source_fetch_module, "Floor", partial(Floor, clock=clock))
    if given_up:
        with pytest.raises(HostError, match="less than 1024 bytes a second") as caught:
            fetch(url, path)
        assert (caught.value.transient, caught.value.cause) == (True, "slow")
        assert path.stat().st_size < len(DATA), "it does not wait for all of it"
    else:
        assert fetch(url, path).blake3 == BLAKE3


class Paced(Cancellation):
    """A Stop whose waits move a clock instead of taking time, but for those for an event."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.longest_s = 0.0

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        if event is not None:
            super().wait(seconds, event)
            return
        self.now += seconds
        self.longest_s = max(self.longest_s, seconds)


@pytest.mark.parametrize("of", ["all", "its source", "the source that it is redirected to"])
@pytest.mark.parametrize("bytes_per_s", [20_000, 1_000_000])
def test_all_transfers_together_keep_to_the_cap(
    source: Source, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_per_s: float, of: str
) -> None:
    pace, count = Paced(), 5
    rate = Rate(bytes_per_s, clock=lambda: pace.now)
    sources = Sources([Settings(match=url, bytes_per_s=bytes_per_s)])
    fetcher = HttpFetcher(floor_bytes_per_s=10 * bytes_per_s, sources=sources)
    if of == "all":
        fetcher.rate = rate
        fetcher.sources.change([])
    else:
        sources.bounds_of(url).rate = rate
    if of.startswith("the"):
        source.fault("/moved", status=302, headers={"Location": url})
        url = source.put("/moved", b"")
    monkeypatch.setattr(source_fetch_module, "Floor", partial(Floor, window_s=0.1, clock=lambda: pace.now))
    for number in range(count):
        assert fetch(url, tmp_path / str(number), pace, fetcher=fetcher).blake3 == BLAKE3
    assert pace.now == pytest.approx(count * len(DATA) / bytes_per_s, rel=0.01, abs=0.11), "and the floor waits as well"
    assert pace.longest_s <= 1.02 * max(0.05, LEAST_BYTES / bytes_per_s), "and they come evenly"


def test_cap_of_a_source_leaves_the_others_alone(url: str, source: Source, path: Path) -> None:
    fetcher, pace = HttpFetcher(sources=Sources([Settings(match=url, bytes_per_s=1.0)])), Paced()
    fetch(source.put("/other", DATA), path, pace, fetcher=fetcher)
    assert pace.now == 0.0


@pytest.mark.parametrize(("bounds", "splits"), [({}, True), ({"connections": 1}, False), ({"bytes_per_s": 1e9}, False)])
def test_file_of_a_source_that_is_bounded_comes_over_one_connection(
    source: Source, url: str, path: Path, bounds: dict[str, Any], splits: bool
) -> None:
    fetcher = HttpFetcher(sources=Sources([Settings(match=source.url, **bounds)]))
    may_split: list[bool] = []

    class Looking(source_fetch_module.SourceFetch):
        def _look(self, head: Head) -> Callable[[], None]:
            return lambda: may_split.append(self._may_split)

    transfer = Transfer(FileSource(url=url), Part(str(path)), FileSystem(), durable=False)
    with closing(transfer), fetcher.hosts.enter(url, Cancellation().wait) as request:
        Looking(fetcher, url, transfer, Cancellation(), request).bring()
    assert set(may_split) == {splits}


# -------------------------------------------------------------------------------------------------- whose failure it is


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_time_gets_it_for_all_its_files(
    source: Source, url: str, path: Path, status: int
) -> None:
    fetcher = HttpFetcher()
    source.fault("/file", status=status, headers={"Retry-After": "120"})
    with pytest.raises(TransferError, match=f"HTTP {status}") as caught:
        fetch(url, path, fetcher=fetcher)
    assert caught.value.retry_after_s == 120
    source.put("/other", DATA)
    with pytest.raises(TransferError, match=f"{source.url}: HTTP {status} .*; it is left alone for a while") as caught:
        fetch(source.url + "/other", path, fetcher=fetcher)
    assert caught.value.retry_after_s == pytest.approx(120, abs=PATIENCE_S)
    assert source.asked == {"/file": 1}


@pytest.mark.parametrize("status", [404, 500])
def test_an_answer_about_one_file_says_nothing_of_the_others(source: Source, url: str, path: Path, status: int) -> None:
    fetcher = HttpFetcher()
    source.fault("/file", status=status)
    with pytest.raises(TransferError, match=f"HTTP {status}") as caught:
        fetch(url, path, fetcher=fetcher)
    assert not isinstance(caught.value, HostError)
    assert fetch(source.put("/other", DATA), path, fetcher=fetcher).blake3 == BLAKE3


@pytest.mark.parametrize(
    ("answer", "of_the_host", "transient"),
    [
        (b"", True, True),  # it ends at once
        (b"SSH-2.0-OpenSSH_9.6\r\n", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", True, True),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000 + b"\r\n", True, True),
        (b"HTTP/1.1 200 OK\r\nETag: " + b"x" * 400_000 + b"\r\n\r\n", True, True),
        (REDIRECT % b"http://name.invalid/", True, True),
        (REDIRECT % b"http://a..b/", True, True),
        (REDIRECT % b"http://%b/" % (b"a" * 70), True, True),
        (REDIRECT % b"ftp://h/", False, False),
        (REDIRECT % b"http://[::1/", False, False),
        (REDIRECT % b"http://h:99999/", False, False),
        (REDIRECT % b"/\xff", False, False),
        (b"HTTP/1.1 404 \x1b[2J\r\nContent-Length: 0\r\n\r\n", False, False),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", False, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Encoding: \x1b[2J\r\n\r\nx", False, False),
    ],
)
def test_a_failure_is_the_hosts_or_the_files(path: Path, answer: bytes, of_the_host: bool, transient: bool) -> None:
    with answering([answer]) as (url, _), pytest.raises(TransferError) as caught:
        fetch(f"{url}/file", path)
    assert isinstance(caught.value, HostError) is of_the_host
    assert caught.value.transient is transient
    assert str(caught.value).startswith(f"{url}/file: ")
    assert str(caught.value).isprintable()
    if isinstance(caught.value, HostError):
        assert str(caught.value) == f"{url}/file: {caught.value.what}", "which shows no URL"


def test_a_redirect_with_credentials_to_what_is_no_url_is_the_files_failure(path: Path) -> None:
    with (
        answering([REDIRECT % b"http://127.0.0.1:99999/"]) as (url, _),
        pytest.raises(TransferError, match="redirected to what is no URL of http or https") as caught,
    ):
        fetch(url.replace("//", "//user:hush@"), path)
    assert not caught.value.transient
    assert "hush" not in str(caught.value)


def test_a_host_that_has_failed_is_not_asked_again_at_once(path: Path) -> None:
    fetcher, host = HttpFetcher(), f"http://127.0.0.1:{refused_port()}"
    for what in ("Connection refused", "Connection refused; it is left alone for a while"):
        with pytest.raises(TransferError, match=what):
            fetch(f"{host}/file", path, fetcher=fetcher)


def test_a_host_that_does_not_answer_holds_up_nobody_elses_files(source: Source, data_dir: Path) -> None:
    fetcher = HttpFetcher(connect_timeout_s=10 * PATIENCE_S)
    with full_server() as port, DataManager(data_dir, fetcher=fetcher) as dm:
        before = connecting_to(port)
        for number in range(20):
            dead = source.chunk(start=number, end=number + 1, files=1)
            where = {name: FileSource(url=f"http://127.0.0.1:{port}/{number}") for name in dead.files}
            dm.download_chunk(dead.model_copy(update={"files": where}))
        eventually(lambda: connecting_to(port) > before, "they are tried")
        good = source.chunk(start=100, end=101)
        dm.download_chunk(good)
        dm.wait(good.id, timeout_s=PATIENCE_S)
        assert dm.list_chunks() == [good.id]


# ----------------------------------------------------------------------------------------------------- kept connections


@contextmanager
def ending(kept: bytes, fresh: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that answers one request; what it says then, on that connection and on others, before it ends them.

    Its URL, and the numbers of the connections that requests came over.
    """
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                for number in itertools.count():
                    connection, _ = server.accept()
                    with connection:
                        while connection.recv(65536):
                            asked.append(number)
                            connection.sendall(FIRST if len(asked) == 1 else kept if number == 0 else fresh)
                            if len(asked) > 1:
                                break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)


FIRST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecond"


def test_a_kept_connection_that_its_server_ends_when_it_is_asked_again_is_no_failure(path: Path) -> None:
    fetcher = HttpFetcher()
    with ending(b"", SECOND) as (url, asked):
        fetch(url, path, fetcher=fetcher)
        fetch(url, path.with_name("second"), fetcher=fetcher)
    assert path.with_name("second").read_bytes() == b"second"
    assert asked == [0, 0, 1]


def test_a_new_connection_that_ends_without_an_answer_is_a_failure(path: Path) -> None:
    fetcher = HttpFetcher()
    with ending(b"", b"") as (url, asked):
        fetch(url, path, fetcher=fetcher)
        with pytest.raises(HostError, match=NO_ANSWER) as caught:
            fetch(url, path.with_name("second"), fetcher=fetcher)
        assert caught.value.cause == "connection"
        assert asked == [0, 0, 1], "once"
        with pytest.raises(HostError, match=NO_ANSWER):
            fetch(url, path.with_name("second"))
        assert asked == [0, 0, 1, 2], "it was not a kept one"


def test_a_kept_connection_that_ends_amid_an_answer_is_a_failure(path: Path) -> None:
    fetcher = HttpFetcher()
    with ending(SECOND[:-2], SECOND) as (url, asked):
        fetch(url, path, fetcher=fetcher)
        with pytest.raises(HostError, match=CUT_SHORT):
            fetch(url, path.with_name("second"), fetcher=fetcher)
    assert asked == [0, 0]


# ------------------------------------------------------------------------------------------------------------- stopping


def test_a_stop_ends_a_transfer_that_waits_for_a_byte(source: Source, url: str, path: Path) -> None:
    fault, stop = source.fault("/file", stall_at=10), Cancellation()
    transfer = InThread(lambda: fetch(url, path, stop))
    assert fault.stalled.wait(PATIENCE_S)
    stop.set()
    assert isinstance(transfer.join(), StoppedError)
    assert stop.is_set()


@pytest.mark.parametrize("stall_at", [0, 10])
def test_stop_of_a_body_without_a_length_is_not_taken_for_its_end(
    source: Source, url: str, path: Path, stall_at: int
) -> None:
    fault, stop = source.fault("/file", stall_at=stall_at, no_length=True), Cancellation()
    transfer = InThread(lambda: fetch(url, path, stop))
    assert fault.stalled.wait(PATIENCE_S)
    eventually(path.exists, "the head of the answer has come")
    stop.set()
    assert isinstance(transfer.join(), StoppedError)


def test_a_stop_ends_a_transfer_that_waits_to_be_connected(path: Path) -> None:
    stop, fetcher = Cancellation(), HttpFetcher(connect_timeout_s=10 * PATIENCE_S)
    with full_server() as port:
        before = connecting_to(port)
        transfer = InThread(lambda: fetch(f"http://127.0.0.1:{port}/", path, stop, fetcher=fetcher))
        eventually(lambda: connecting_to(port) > before, "it is connecting")
        stop.set()
        assert isinstance(transfer.join(), StoppedError)
    assert not path.exists()


def test_a_stop_that_came_before_the_connection_lets_nothing_begin(source: Source, url: str, path: Path) -> None:
    stop = Cancellation()
    stop.set()
    with full_server() as port:
        for one in (url, f"http://127.0.0.1:{port}/"):
            with pytest.raises(StoppedError):
                fetch(one, path, stop, fetcher=HttpFetcher(connect_timeout_s=10 * PATIENCE_S))
    assert not path.exists()


def test_a_stop_in_the_middle_of_a_body_that_flows_is_heeded(source: Source, path: Path) -> None:
    url, stop = source.put("/big", bytes(8 << 20)), Cancellation()
    with pytest.raises(StoppedError):
        HttpFetcher().fetch(FileSource(url=url), Part(str(path)), Recorder(create=lambda _: stop.set()), stop)
    assert path.stat().st_size < 8 << 20


# -------------------------------------------------------------------------------------------------------------- secrets


def test_no_error_shows_the_secrets_that_a_url_may_carry(source: Source, tmp_path: Path) -> None:
    host = source.url.removeprefix("http://")
    source.put("/file", DATA)
    source.put("/cut", DATA)
    source.fault("/cut", cut_at=5)
    source.put("/packed", DATA)
    source.fault("/packed", headers={"Content-Encoding": "gzip"})
    with answering(REDIRECT % to for to in (b"file:///x?s3cret", b"http://s3cret.invalid:1/", b"/none?s3cret")) as (
        redirecting,
        _,
    ):
        cases: list[tuple[str, dict[str, Any]]] = [
            (f"{host}/none", {}),
            (f"{host}/file", {"size": 1}),
            (f"{host}/file", {"sha256": "0" * 64}),
            (f"{host}/cut", {}),
            (f"{host}/packed", {}),
            (f"127.0.0.1:{refused_port()}/file", {}),
            (redirecting.removeprefix("http://") + "/moved", {}),
        ]
        for number, (where, known) in enumerate(cases):
            with pytest.raises(TransferError) as caught:
                fetch(f"http://user:s3cret@{where}?token=s3cret#s3cret", tmp_path / str(number), **known)
            assert "s3cret" not in f"{caught.value} {caught.value.hint}"
            assert where in str(caught.value)
    assert "user" not in shown("https://user@example.org/a")


@pytest.mark.parametrize("port", ["99999", "abc"])
def test_port_that_is_none_is_an_invalid_url_or_a_transfer_error(path: Path, port: str) -> None:
    with pytest.raises((InvalidInputError, ValidationError, TransferError)):
        fetch(f"http://127.0.0.1:{port}/x", path)


def test_stop_between_a_connection_and_its_use_ends_the_transfer(path: Path) -> None:
    class Told(Cancellation):
        def guard(self, cut: Callable[[], None]) -> None:
            super().guard(cut)
            self.set()

    with full_server() as port:
        fetcher = HttpFetcher(connect_timeout_s=10 * PATIENCE_S)
        transfer = InThread(lambda: fetch(f"http://127.0.0.1:{port}/", path, Told(), fetcher=fetcher))
        assert isinstance(transfer.join(), StoppedError)
