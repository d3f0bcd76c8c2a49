"""One chunk's files: which are fetched beside each other, and when its manifest says that they are there."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.errors import StoppedError, TransferError
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.chunk_download import SMALL_BYTES
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.resume_record import Part
from fsdm.transfer.scheduler import Scheduler
from tests.support import PATIENCE_S, Recorder, Source, expected
from tests.support.chunks import an_id, content, files_of
from tests.support.servers import CHUNK, NAMES, InThread, _Closing, fetch_all


class Scripted:
    """A fetcher that does what it is told for each file, and remembers which were begun."""

    def __init__(self, script: Callable[[str, Cancellation], object]) -> None:
        self.begun: list[str] = []
        self._script = script

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        name = source.url.rpartition("/")[2]
        self.begun.append(name)
        self._script(name, stop)
        return FileEntry(size=len(name), blake3=blake3(name.encode()).hexdigest())


# ------------------------------------------------------------------------------------------------- one after the other


def test_all_files_of_a_chunk_arrive_and_its_manifest_says_what_they_are(source: Source, tmp_path: Path) -> None:
    chunk = source.chunk(files=4, start=5, end=9)
    fs, told = Recorder(), []
    manifest = fetch_all(
        HttpFetcher(), tmp_path, None, chunk=chunk, fs=fs, on_file=lambda name, entry: told.append(name)
    )
    assert files_of(tmp_path / "partial" / "data") == expected(chunk, source)
    assert manifest.satisfies(chunk)
    assert told == list(chunk.files)
    assert fs.names == ["mkdir", "mkdir"] + ["create", "fsync_file"] * 4 + ["fsync_dir"] * 2
    assert fs.steps[-2:] == [("fsync_dir", f"{tmp_path}/partial/data"), ("fsync_dir", f"{tmp_path}/partial")]


def test_one_file_that_fails_fails_the_chunk(source: Source, tmp_path: Path) -> None:
    chunk = source.chunk(files=3)
    source.fault(f"/{chunk.id}/logs.parquet", status=500)
    told: list[str] = []
    with pytest.raises(TransferError, match="logs"):
        fetch_all(HttpFetcher(), tmp_path, None, chunk=chunk, on_file=lambda name, entry: told.append(name))
    assert told == ["blocks.parquet"]
    assert source.asked[f"/{chunk.id}/traces.parquet"] == 0


def test_a_stop_between_two_files_asks_for_no_further_one(source: Source, tmp_path: Path) -> None:
    chunk, stop = source.chunk(files=2), Cancellation()
    with pytest.raises(StoppedError):
        fetch_all(HttpFetcher(), tmp_path, None, stop, chunk=chunk, on_file=lambda name, entry: stop.set())
    assert source.asked == {f"/{chunk.id}/blocks.parquet": 1}


def test_a_name_that_looks_like_an_option_or_a_path_is_just_a_name(source: Source, tmp_path: Path) -> None:
    data = content("a file")
    names = ["-rf", "a b", "..x", "é", "READY"]
    chunk = source.chunk(files=1).model_copy(
        update={"id": an_id(), "files": {name: FileSource(url=source.put("/x", data)) for name in names}}
    )
    fetch_all(HttpFetcher(), tmp_path, None, chunk=chunk)
    assert files_of(tmp_path / "partial" / "data") == dict.fromkeys(names, data)


# ---------------------------------------------------------------------------------------------------- beside each other


def test_the_files_of_a_chunk_are_fetched_beside_each_other(scheduler: Scheduler, tmp_path: Path) -> None:
    together = threading.Barrier(len(NAMES), timeout=PATIENCE_S)
    manifest = fetch_all(Scripted(lambda name, stop: together.wait()), tmp_path, scheduler)
    assert manifest.satisfies(CHUNK)


def test_a_manifest_has_the_order_of_the_want_whatever_comes_first(scheduler: Scheduler, tmp_path: Path) -> None:
    come = {name: threading.Event() for name in NAMES}
    backwards = dict(zip(NAMES, [*NAMES[1:], None], strict=True))  # each waits for the one after it
    told: list[str] = []

    def script(name: str, stop: Cancellation) -> None:
        before = backwards[name]
        assert before is None or come[before].wait(PATIENCE_S)

    def on_file(name: str, entry: FileEntry) -> None:
        told.append(name)
        come[name].set()

    manifest = fetch_all(Scripted(script), tmp_path, scheduler, on_file=on_file)
    assert told == NAMES[::-1]
    assert list(manifest.files) == NAMES
    assert {name: entry.blake3 for name, entry in manifest.files.items()} == {
        name: blake3(name.encode()).hexdigest() for name in NAMES
    }


def test_the_first_error_is_raised_and_only_when_no_file_is_on_its_way_any_more(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    failed, rest, fs = threading.Event(), threading.Event(), Recorder()
    waiting = threading.Semaphore(0)

    def script(name: str, stop: Cancellation) -> None:
        if name == "c":
            for _ in range(len(NAMES) - 1):
                assert waiting.acquire(timeout=PATIENCE_S)
            failed.set()
            raise TransferError("the first", transient=False)
        waiting.release()
        assert rest.wait(PATIENCE_S)
        if name == "b":
            raise TransferError("the second", transient=True)

    raised = threading.Event()

    def work() -> object:
        try:
            return fetch_all(Scripted(script), tmp_path, scheduler, fs=fs)
        finally:
            raised.set()

    transfer = InThread(work)
    assert failed.wait(PATIENCE_S)
    # the lane of the one that failed is free for another now: so its error is noted
    noted = threading.Event()
    scheduler.submit("another", noted.set, small=True)
    assert noted.wait(PATIENCE_S)
    assert not raised.wait(0.1), "it does not wait for the others"
    rest.set()
    assert str(transfer.join()) == "the first"
    assert "fsync_dir" not in fs.names


def test_no_file_is_begun_after_an_error(tmp_path: Path) -> None:
    def script(name: str, stop: Cancellation) -> None:
        if name == "a":
            raise OSError(28, "No space left on device")

    one_lane, fetcher = Scheduler("test", 1, 0), Scripted(script)
    with closing(_Closing(one_lane)), pytest.raises(OSError, match="No space left"):
        fetch_all(fetcher, tmp_path, one_lane)
    assert fetcher.begun == ["d", "a"]


def test_a_stop_that_came_before_lets_no_file_begin(tmp_path: Path) -> None:
    stop, fetcher = Cancellation(), Scripted(lambda name, stop: None)
    stop.set()
    with pytest.raises(StoppedError):
        fetch_all(fetcher, tmp_path, None, stop)
    assert fetcher.begun == []


def test_an_error_of_whoever_is_told_of_a_file_is_an_error_of_the_chunk(scheduler: Scheduler, tmp_path: Path) -> None:
    def on_file(name: str, entry: FileEntry) -> None:
        raise LookupError(name)

    with pytest.raises(LookupError):
        fetch_all(Scripted(lambda name, stop: None), tmp_path, scheduler, on_file=on_file)


def test_a_stop_ends_all_files_that_are_on_their_way_and_begins_none(source: Source, tmp_path: Path) -> None:
    chunk, stop, scheduler = source.chunk(files=4, size=300_000), Cancellation(), Scheduler("test", 3, 0)
    faults = [source.fault(f"/{chunk.id}/{name}", stall_at=1000) for name in chunk.files]
    with closing(_Closing(scheduler)):
        transfer = InThread(lambda: fetch_all(HttpFetcher(), tmp_path, scheduler, stop, chunk=chunk))
        for fault in faults[:3]:
            assert fault.stalled.wait(PATIENCE_S)
        stop.set()
        assert isinstance(transfer.join(), StoppedError)
    assert sum(source.asked.values()) == 3


def test_two_chunks_under_two_stops_share_the_lanes_and_are_stopped_by_themselves(
    source: Source, tmp_path: Path
) -> None:
    one, other, stop, scheduler = source.chunk(files=2), source.chunk(files=2), Cancellation(), Scheduler("test", 4, 0)
    faults = [source.fault(f"/{chunk.id}/{name}", stall_at=10) for chunk in (one, other) for name in chunk.files]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with closing(_Closing(scheduler)):
        stopped = InThread(lambda: fetch_all(HttpFetcher(), tmp_path / "one", scheduler, stop, chunk=one))
        whole = InThread(lambda: fetch_all(HttpFetcher(), tmp_path / "other", scheduler, chunk=other))
        for fault in faults:
            assert fault.stalled.wait(PATIENCE_S)
        stop.set()
        assert isinstance(stopped.join(), StoppedError)
        for fault in faults:
            fault.gate.set()
        whole.join()
    assert files_of(tmp_path / "other" / "partial" / "data") == expected(other, source)


@pytest.mark.parametrize(("size", "small"), [(None, False), (0, True), (SMALL_BYTES, True), (SMALL_BYTES + 1, False)])
def test_a_file_is_small_where_its_want_says_so_and_its_host_is_told(
    tmp_path: Path, size: int | None, small: bool
) -> None:
    told: list[tuple[bool, str]] = []

    class Told(Scheduler):
        def submit(self, chunk_id: str, work: Callable[[], None], *, small: bool, host: str = "", **how: Any) -> None:
            told.append((small, host))
            super().submit(chunk_id, work, small=small, host=host, **how)

    chunk = CHUNK.model_copy(update={"files": {"a": FileSource(url="http://user:pw@Example.org:80/a", size=size)}})
    scheduler = Told("test", 1, 0)
    with closing(_Closing(scheduler)):
        fetch_all(Scripted(lambda name, stop: None), tmp_path, scheduler, chunk=chunk)
    assert told == [(small, "http://example.org")]


def test_a_small_file_does_not_wait_for_the_large_ones_of_another_chunk(tmp_path: Path) -> None:
    scheduler, gate = Scheduler("test", 2, 1), threading.Event()
    small = CHUNK.model_copy(update={"files": {"a": FileSource(url="http://example.org/a", size=1)}})
    for name in ("large", "small"):
        (tmp_path / name).mkdir()
    with closing(_Closing(scheduler)):
        large = InThread(
            lambda: fetch_all(Scripted(lambda name, stop: gate.wait(PATIENCE_S)), tmp_path / "large", scheduler)
        )
        beside = InThread(
            lambda: fetch_all(Scripted(lambda name, stop: None), tmp_path / "small", scheduler, chunk=small)
        )
        try:
            assert beside.join() is not None
            assert large.result is None
        finally:
            gate.set()
        large.join()


def test_last_file_is_fetched_in_the_thread_of_its_chunk_and_the_others_beside_it(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    threads: dict[str, int] = {}
    together = threading.Barrier(len(NAMES))

    def script(name: str, stop: Cancellation) -> None:
        threads[name] = threading.get_ident()
        together.wait(PATIENCE_S)

    fetch_all(Scripted(script), tmp_path, scheduler)
    assert [name for name in NAMES if threads[name] == threading.get_ident()] == [NAMES[-1]]
    assert len(set(threads.values())) == len(NAMES)
