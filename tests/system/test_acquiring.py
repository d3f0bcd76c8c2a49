"""A registered chunk is fetched when somebody asks for it, once, and by nobody when nobody waits any more."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdm import (
    Client,
    DataChunk,
    DataManager,
    Event,
    FetchFailedError,
    Limits,
    TransferError,
    UnknownChunkError,
    WaitTimeoutError,
)
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileSource
from fsdm.model.layout import CACHED, Layout
from fsdm.model.limits import Recover
from fsdm.model.state import RACY_NS
from fsdm.store import acquiring
from fsdm.store.acquiring import Acquirer, Asking, asked_by
from fsdm.store.filesystem import FileSystem
from fsdm.store.flock import Claim
from fsdm.store.markers import known_chunk
from fsdm.transfer.resume_record import Part
from tests.support import fsdm
from tests.support.chunks import a_want, bring, chunk_dir, entries, failure, files_of, put_failure, touch_delete
from tests.support.locks import waiting_at
from tests.support.source import Source, expected
from tests.support.waiting import PATIENCE_S, eventually

MANY = 64

WAITER = """
import sys
from fsdm import Client
with Client(sys.argv[1]) as client:
    print("asks", flush=True)
    with client.acquire(sys.argv[2]) as ref:
        print(sorted(path.name for path in ref.path.iterdir()), flush=True)
        sys.stdin.read()
"""


def waiter(data_dir: Path, chunk: DataChunk) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WAITER, str(data_dir), chunk.id]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "asks\n"
    return process


def is_forgotten(data_dir: Path) -> bool:
    return not any(entries(data_dir / where) for where in ("acquire", "partial", "failed", "want"))


def test_miss_is_fetched_and_a_hit_is_not(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    dm.register(chunk)
    for _ in range(2):
        with dm.acquire(chunk.id, PATIENCE_S) as ref:
            assert files_of(ref.path) == expected(chunk, source)
    assert set(source.asked.values()) == {1}
    assert (chunk_dir(data_dir, chunk) / CACHED).exists()
    eventually(lambda: is_forgotten(data_dir))
    assert entries(data_dir / "known") == [chunk.id]


def test_hit_writes_nothing(data_dir: Path, dm: DataManager, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, wanted = source.chunk(), source.chunk(start=10, end=20)
    dm.register(chunk)
    dm.acquire(chunk.id, PATIENCE_S).close()
    bring(dm, wanted)
    eventually(lambda: is_forgotten(data_dir))
    dm.acquire((chunk.dataset_id, 0), PATIENCE_S).close()
    opened = []
    monkeypatch.setattr(
        os,
        "open",
        lambda path, flags, *rest, real=os.open, **kw: opened.append(flags) or real(path, flags, *rest, **kw),
    )
    for what in (chunk.id, (chunk.dataset_id, 0), wanted.id, (wanted.dataset_id, 10)):
        dm.acquire(what, PATIENCE_S).close()
    assert opened
    assert not any(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) for flags in opened)


def test_use_of_what_may_be_evicted_is_noted_once_a_minute(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    dm.register(chunk)
    dm.acquire(chunk.id, PATIENCE_S).close()
    cached = chunk_dir(data_dir, chunk) / CACHED
    eventually(lambda: is_forgotten(data_dir))
    os.utime(cached, (1, 1))
    dm.acquire(chunk.id, PATIENCE_S).close()
    eventually(lambda: cached.stat().st_mtime > 1)
    before = (data_dir / "acquire" / chunk.id).stat().st_ctime_ns
    dm.acquire(chunk.id, PATIENCE_S).close()
    assert (data_dir / "acquire" / chunk.id).stat().st_ctime_ns == before


def test_many_that_ask_are_answered_by_one_fetch(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    gate = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10).gate
    dm.register(chunk)
    with ThreadPoolExecutor(MANY) as pool:
        asked = [pool.submit(dm.acquire, chunk.id, PATIENCE_S) for _ in range(MANY)]
        eventually(lambda: source.asked[f"/{chunk.id}/blocks.parquet"])
        gate.set()
        refs = [one.result() for one in asked]
    assert {ref.path for ref in refs} == {chunk_dir(data_dir, chunk) / "data"}
    assert sum(source.asked.values()) == 1


def test_processes_that_ask_hold_it_after_one_fetch(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    dm.register(chunk)
    waiters = [waiter(data_dir, chunk) for _ in range(6)]
    eventually(fault.stalled.is_set)
    fault.gate.set()
    for process in waiters:
        assert process.stdout is not None
        assert process.stdout.readline() == "['blocks.parquet']\n"
    touch_delete(data_dir, chunk.id)
    for process in waiters:
        assert chunk_dir(data_dir, chunk).exists()
        process.communicate("")
    assert not dm.wait(chunk.id, PATIENCE_S)
    assert sum(source.asked.values()) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_last_waiter_that_goes_ends_the_fetch(data_dir: Path, source: Source, how: int) -> None:
    chunk, events = source.chunk(files=1), list[Event]()
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    with DataManager(data_dir, on_event=events.append) as dm:
        dm.register(chunk)
        one, two = waiter(data_dir, chunk), waiter(data_dir, chunk)
        eventually(fault.stalled.is_set)
        path = str(data_dir / "acquire" / chunk.id)
        eventually(lambda: waiting_at(path) == 2)
        one.send_signal(how)
        one.communicate()
        dm.wait_converged(PATIENCE_S)
        assert asked_by(path) == "held"
        assert entries(data_dir / "partial") == [chunk.id], "another one still waits for it"
        two.send_signal(how)
        two.communicate()
        eventually(lambda: is_forgotten(data_dir))
    assert [event.text for event in events if event.kind in {"stopped", "failed"}] == ["nobody waits for it"]
    assert sum(source.asked.values()) == 1


def test_each_waiter_gets_the_outcome_of_its_attempt(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    path = f"/{chunk.id}/blocks.parquet"
    fault = source.fault(path, status=404)
    dm.register(chunk)
    with pytest.raises(FetchFailedError, match="404") as failed:
        dm.acquire(chunk.id, PATIENCE_S)
    assert failed.value.failure.id == chunk.id
    del source.faults[path]
    dm.acquire(chunk.id, PATIENCE_S).close()  # it is tried anew at once, and is not told of the failure before
    assert fault.status == 404
    assert source.asked[path] == 2


@pytest.mark.parametrize("recover", ["now", "never"])
def test_who_waits_for_what_is_put_off_goes_on_waiting(data_dir: Path, recover: Recover) -> None:
    """Its server is left to others that wait for it: nothing has been tried, so that is no outcome."""
    reasons = [TransferError("others wait", transient=True, is_postponed=True)]

    class Postponing:
        def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> None:
            if reasons:
                raise reasons.pop()
            Path(part.path).write_bytes(b"here")

    chunk = a_want()
    with (
        DataManager(data_dir, fetcher=Postponing(), limits=Limits(recover=recover)) as dm,
        ThreadPoolExecutor(1) as pool,
    ):
        dm.register(chunk)
        asked = pool.submit(dm.acquire, chunk.id, PATIENCE_S)
        said = eventually(lambda: failure(data_dir, chunk.id))
        assert (said["postponed"], said["attempts"], said["last_at"], "given_up" in said) == (1, 0, 0.0, False)
        touched = Asking(dm.layout, chunk.id)
        eventually(touched.join)  # who joins has it tried at once, as ever
        with asked.result() as ref:
            assert [path.read_bytes() for path in ref.path.iterdir()] == [b"here"] * len(chunk.files)
        touched.close()


def test_who_waits_reads_the_registration_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, elsewhere = a_want(), range(40, 50)
    with Client(layout.root) as client:
        client.register(chunk)
        eventually(lambda: time.time_ns() - os.stat(layout.known_marker(chunk.id)).st_ctime_ns > RACY_NS)
        waits = Acquirer(layout, chunk.place, lambda place: None)
        read: list[str] = []
        monkeypatch.setattr(acquiring, "known_chunk", lambda *of: read.append(of[1]) or known_chunk(*of))
        for _ in range(5):
            assert not waits.look()
        assert read == [chunk.id]
        client.register(chunk.model_copy(update={"block_range": elsewhere}))
        assert not waits.look()
        assert (len(read), waits.place.block_range) == (2, elsewhere), "another one is read"
        client.delete_chunk(chunk.id)
        with pytest.raises(UnknownChunkError):
            waits.look()
        waits.close()


def test_who_joins_after_a_failure_has_it_tried_anew(data_dir: Path, dm: DataManager, source: Source) -> None:
    """A marker stays as long as one waiter does, whatever that one has been told."""
    chunk = source.chunk(files=1)
    path = f"/{chunk.id}/blocks.parquet"
    source.fault(path, status=404)
    dm.register(chunk)
    first = Asking(dm.layout, chunk.id)
    eventually(first.join)
    eventually(lambda: failure(data_dir, chunk.id))
    del source.faults[path]
    dm.acquire(chunk.id, PATIENCE_S).close()
    assert source.asked[path] == 2
    first.close()
    eventually(lambda: is_forgotten(data_dir))


def test_failure_that_comes_as_a_waiter_joins_is_its_own(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would wait until the next attempt: the failure speaks of the marker as it was touched."""
    chunk = a_want()

    def fails_now(fd: int, *, real: Callable[..., None] = os.utime, **times: object) -> None:
        real(fd, **times)
        now = time.time()
        says = {"kind": "transfer", "error": "no way", "first_at": now, "last_at": now, "attempts": 1}
        put_failure(Path(layout.root), chunk.id, id=chunk.id, **says)

    with Client(layout.root) as client:
        client.register(chunk)
        monkeypatch.setattr(os, "utime", fails_now)
        with pytest.raises(FetchFailedError, match="no way"):
            client.acquire(chunk.id, PATIENCE_S)


def test_chunk_is_where_it_stands_whatever_has_been_registered_since(dm: DataManager, source: Source) -> None:
    chunk = source.chunk(start=0, end=10)
    dm.register(chunk)
    dm.acquire(chunk.id, PATIENCE_S).close()
    dm.register(chunk.model_copy(update={"block_range": range(10, 20)}))
    with pytest.raises(UnknownChunkError):
        dm.acquire((chunk.dataset_id, 15), PATIENCE_S)
    path = dm.layout.path(chunk.place)
    claim = Claim(path)
    assert claim.take()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(dm.acquire, chunk.id, PATIENCE_S)
        eventually(lambda: waiting_at(dm.layout.acquire_marker(chunk.id)) == 1)
        claim.close()
        with asked.result() as ref:
            assert str(ref.path) == f"{path}/data"


def test_what_is_not_registered_is_unknown(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    for what in (chunk.id, bytes.fromhex(chunk.id), (chunk.dataset_id, 0)):
        with pytest.raises(UnknownChunkError, match="register"):
            dm.acquire(what, PATIENCE_S)
    assert entries(data_dir / "acquire") == []


def test_waiter_is_told_where_its_chunk_is_deleted(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    dm.register(chunk)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(dm.acquire, chunk.id, PATIENCE_S)
        eventually(fault.stalled.is_set)
        touch_delete(data_dir, chunk.id)
        with pytest.raises(UnknownChunkError):
            asked.result()
    assert not dm.wait(chunk.id, PATIENCE_S)
    eventually(lambda: is_forgotten(data_dir))


def test_timeout_says_how_it_stands_and_asks_no_more(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    dm.register(chunk)
    with pytest.raises(WaitTimeoutError, match="has not come"):
        dm.acquire(chunk.id, 0.2)
    eventually(lambda: is_forgotten(data_dir))


def test_among_what_is_here_and_registered_one_is_responsible(data_dir: Path, dm: DataManager, source: Source) -> None:
    wide, narrow, narrowest = (
        source.chunk(start=0, end=100),
        source.chunk(start=40, end=60),
        source.chunk(start=50, end=55),
    )
    bring(dm, wide)
    with dm.acquire((wide.dataset_id, 50), PATIENCE_S) as ref:
        assert ref.id == wide.id
    dm.register(narrow)
    dm.register(narrowest)
    for block, responsible in ((39, wide), (45, narrow), (52, narrowest), (55, narrow), (60, wide)):
        with dm.acquire((wide.dataset_id, block), PATIENCE_S) as ref:
            assert ref.id == responsible.id
    (data_dir / "known" / narrow.id).write_bytes(narrow.model_copy(update={"block_range": range(70, 80)}).to_json())
    os.unlink(data_dir / "known" / narrowest.id)
    with dm.acquire((wide.dataset_id, 52), PATIENCE_S) as ref:
        assert ref.id == narrowest.id, "it is here"
    with pytest.raises(UnknownChunkError):
        dm.acquire((wide.dataset_id, 100), PATIENCE_S)


def test_touch_and_wait_are_the_shells_form(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    dm.register(chunk)
    (data_dir / "acquire" / chunk.id).touch()
    assert dm.wait(chunk.id, PATIENCE_S)
    assert entries(data_dir / "acquire") == [chunk.id], "it stands for a while"
    assert dm.list_chunks() == [chunk.id]


def test_touch_for_what_nobody_knows_goes(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    (data_dir / "acquire" / chunk.id).touch()
    assert not dm.wait(chunk.id, PATIENCE_S)
    eventually(lambda: entries(data_dir / "acquire") == [])


def test_registration_that_cannot_be_read_is_told(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    dm.register(chunk)
    with ThreadPoolExecutor(1) as pool:
        fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
        asked = pool.submit(dm.acquire, chunk.id, PATIENCE_S)
        eventually(fault.stalled.is_set)
        (data_dir / "known" / chunk.id).write_text("{")
        fault.gate.set()
        with pytest.raises(FetchFailedError, match="known/"):
            asked.result()
    eventually(lambda: is_forgotten(data_dir))


def test_want_of_what_was_acquired_keeps_it(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    dm.register(chunk)
    dm.acquire(chunk.id, PATIENCE_S).close()
    assert (chunk_dir(data_dir, chunk) / CACHED).exists()
    bring(dm, chunk)
    assert not (chunk_dir(data_dir, chunk) / CACHED).exists()
    assert set(source.asked.values()) == {1}


def test_fetch_that_a_crash_cut_off_is_forgotten_where_its_waiter_ended_too(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    with DataManager(data_dir) as dm:
        dm.register(chunk)
        process = waiter(data_dir, chunk)
        eventually(fault.stalled.is_set)
    process.kill()
    process.communicate()
    assert entries(data_dir / "acquire") == entries(data_dir / "partial") == [chunk.id]
    with DataManager(data_dir):
        eventually(lambda: is_forgotten(data_dir))
    assert sum(source.asked.values()) == 1


def test_acquire_on_a_loop_can_be_cancelled(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk, other = source.chunk(files=1), source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    dm.register(chunk)
    dm.register(other)

    async def main() -> None:
        task = asyncio.create_task(dm.acquire_async(chunk.id, PATIENCE_S))
        await asyncio.to_thread(eventually, fault.stalled.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (await dm.acquire_async(other.id, PATIENCE_S)).close()

    asyncio.run(main())
    eventually(lambda: is_forgotten(data_dir))


def test_acquire_becomes_a_command_that_holds_the_chunk(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    dm.register(chunk)
    ran = fsdm(
        "acquire",
        "-d",
        data_dir,
        "--timeout",
        60,
        chunk.dataset_id,
        5,
        "--",
        "ls",
        str(chunk_dir(data_dir, chunk) / "data"),
    )
    assert (ran.returncode, ran.stdout) == (0, "blocks.parquet\n"), ran.stderr
    assert fsdm("acquire", "-d", data_dir, chunk.dataset_id, 10, "--", "true").returncode == 3
    assert fsdm("acquire", "-d", data_dir, chunk.dataset_id, 5).returncode == 2
    known = source.chunk(files=1)
    dm.register(known)
    for words in ([known.id], [known.id[:12]]):
        ran = fsdm("acquire", "-d", data_dir, *words, "--", "sh", "-c", "echo $FSDM_CHUNK_ID")
        assert (ran.returncode, ran.stdout) == (0, f"{known.id}\n"), ran.stderr


def test_closed_client_waits_no_more(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    dm.register(chunk)
    client = Client(data_dir)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.acquire, chunk.id)
        eventually(fault.stalled.is_set)
        client.close()
        assert asked.exception() is not None
    eventually(lambda: is_forgotten(data_dir))
