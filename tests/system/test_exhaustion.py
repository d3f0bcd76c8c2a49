"""Resources that run out for a while: they stop nothing else, and all recovers by itself."""

import errno
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataManager
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.layout import Layout
from fsdm.store.leader_lock import read_lock
from fsdm.transfer.fetcher import HttpFetcher
from tests.support import PATIENCE_S, Source, begun, eventually, expected, owner, ran
from tests.support.chunks import bring, chunk_dir, entries, failure, files_of, put_want, touch_delete
from tests.support.known_faults import Fault, arrive, available, child, command, must_find

WITHOUT_DESCRIPTORS = """
import os, resource, threading
from fsdm import DataManager
from fsdm.reconcile.loop import Loop
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
taken, step, failed = [], Loop.step, threading.Semaphore(0)

def counted(self, timeout_s):
    try:
        return step(self, timeout_s)
    except OSError:
        failed.release()
        raise

Loop.step = counted
with DataManager(sys.argv[1]) as dm:
    for line in sys.stdin:
        if line == "suffer\\n" and not all(failed.acquire(timeout=PATIENCE_S) for _ in range(2)):
            break
        if line == "exhaust\\n":
            while True:
                try:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
        while line == "release\\n" and taken:
            os.close(taken.pop())
        print(line, end="", flush=True)
"""


def test_process_without_descriptors_goes_on_once_there_are_some(data_dir: Path, source: Source) -> None:
    here, then, last = (source.chunk(start=n, end=n + 1) for n in range(3))
    with child(WITHOUT_DESCRIPTORS, data_dir) as tell:
        arrive(data_dir, here)
        tell("exhaust")
        put_want(data_dir, then)
        touch_delete(data_dir, here.id)
        tell("suffer")
        tell("release")
        put_want(data_dir, last)
        for chunk in (then, last):
            eventually(lambda chunk=chunk: available(data_dir, chunk))
            assert files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source)
        eventually(lambda: not chunk_dir(data_dir, here).exists() and not entries(data_dir / "delete"))


class NoThreads:
    """The system gives no threads to those whose names begin so, until it does again."""

    def __init__(self, put: pytest.MonkeyPatch, prefix: str) -> None:
        start = threading.Thread.start
        self._refused = threading.Semaphore(0)
        self.over = threading.Event()

        def refuse(thread: threading.Thread) -> None:
            if not self.over.is_set() and thread.name.startswith(prefix):
                self._refused.release()
                raise RuntimeError("can't start new thread")
            start(thread)

        put.setattr(threading.Thread, "start", refuse)

    def refuse_twice(self) -> bool:
        """Wait until somebody has asked in vain, and then once more."""
        return all(self._refused.acquire(timeout=PATIENCE_S) for _ in range(2))


OF_DELETES = {"fsdm-worker", "fsdm-erase"}


@pytest.mark.parametrize("workers", ["fsdm-fetch", "fsdm-worker", "fsdm-erase", "fsdm-connection", "fsdm-"])
def test_work_without_a_thread_is_done_once_there_is_one(
    data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, workers: str
) -> None:
    chunk = source.chunk(files=3)  # all but the last are for other threads
    with DataManager(data_dir) as dm:
        none = NoThreads(monkeypatch, workers)
        dm.download_chunk(chunk)
        if workers in OF_DELETES:
            assert dm.wait(chunk.id, PATIENCE_S)
            dm.delete_chunk(chunk.id)
        assert none.refuse_twice()
        none.over.set()  # and nothing else is asked for that would start one
        if workers not in OF_DELETES:
            assert dm.wait(chunk.id, PATIENCE_S)
            assert files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source)
            dm.delete_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        eventually(lambda: not entries(data_dir / "trash"))
    assert all(caplog.text.count(f"{name} goes on") <= 1 for name in ("fsdm-fetch", "fsdm-worker", "fsdm-erase"))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_takeover_without_a_thread_leaves_lock(data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = source.chunk()
    with DataManager(data_dir) as first, DataManager(data_dir) as second:
        none = NoThreads(monkeypatch, "fsdm-reconciler")
        first.close()
        assert none.refuse_twice()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            DataManager(eventually(lambda: read_lock(Layout(data_dir)) is None and data_dir))
        second.download_chunk(chunk)
        none.over.set()
        assert second.wait(chunk.id, PATIENCE_S)
        assert second.reconciling


class Failing(HttpFetcher):
    """Raises for the files of one chunk, until it does no more."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__()
        self.where = where
        self.error = error
        self.raised = 0

    def fetch(self, source: FileSource, *rest: Any) -> FileEntry:
        if self.where in source.url and self.raised < 2:
            self.raised += 1
            raise self.error
        return super().fetch(source, *rest)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_without_memory_holds_up_none_and_retries(data_dir: Path, source: Source, error: BaseException) -> None:
    bad, *good = [source.chunk(start=n, end=n + 1, files=1) for n in range(4)]
    with DataManager(data_dir, fetcher=Failing(bad.id, error)) as dm:
        dm.download_chunk(bad)
        told = eventually(lambda: failure(data_dir, bad.id))
        assert "Memory" in told["error"] or "memory" in told["error"]
        for chunk in good:
            dm.download_chunk(chunk)
        for chunk in (*good, bad):
            assert dm.wait(chunk.id, PATIENCE_S)
            assert files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source)


@pytest.fixture
def remountable(small_disk: Path, tmp_path: Path) -> Iterator[Path]:
    """A data directory on a disk that can be made read-only: LOCK, which is open, is elsewhere."""
    data_dir, lock = small_disk / "data", tmp_path / "LOCK"
    with DataManager(data_dir):
        pass
    lock.touch()
    subprocess.run(["mount", "--bind", lock, data_dir / "LOCK"], check=True)
    yield data_dir
    subprocess.run(["umount", data_dir / "LOCK"], check=True)


def test_read_only_disk_keeps_chunks_in_service_and_resumes_by_itself(remountable: Path, source: Source) -> None:
    data_dir, disk = remountable, remountable.parent
    here, gone, then = (source.chunk(start=n, end=n + 1) for n in range(3))
    with DataManager(data_dir) as dm:
        for chunk in (here, gone):
            bring(dm, chunk)
        faults = [source.fault(f"/{then.id}/{name}", status=503) for name in then.files]
        dm.download_chunk(then)
        with dm.find_chunk(gone.dataset_id, 1) as ref:
            dm.delete_chunk(gone.id)
            eventually(lambda: dm.reconciler.loop.troubles().get(gone.id) == "refs hold it")
            eventually(lambda: failure(data_dir, then.id))
            eventually(lambda: ran("mount", "-o", "remount,ro", disk).returncode == 0)
            for fault in faults:
                fault.status = 200
            ref.close()
        eventually(lambda: "Read-only" in dm.reconciler.loop.troubles().get(then.id, ""))
        assert dm.list_chunks() == [here.id]
        with dm.find_chunk(here.dataset_id, 0) as ref:
            assert files_of(ref.path) == expected(here, source)
        assert chunk_dir(data_dir, gone).exists()
        eventually(lambda: dm.reconciler.loop.disk.outage.tries > 2, "a probe was refused, and the next one is due")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert dm.wait(then.id, 3 * PATIENCE_S)
        dm.wait_converged(3 * PATIENCE_S)
        assert dm.list_chunks() == [here.id, then.id]
        eventually(lambda: not entries(data_dir / "failed"))


RUN = """
from fsdm.cli.main import main
main(["run", "-d", sys.argv[1]])
"""


WATCHES = 6  # the data directory, and five of markers


@pytest.mark.parametrize("what", ["watches", "instances"])
def test_without_inotify_scans_serve_meanwhile(data_dir: Path, source: Source, tmp_path: Path, what: str) -> None:
    most = f"/proc/sys/user/max_inotify_{what}"
    run = command(RUN, data_dir)
    script = f'echo 0 > {most} && exec "$@"'
    with DataManager(data_dir):
        pass
    errors = tmp_path / "stderr"
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *run]
    with errors.open("w") as file, begun(unshare, stderr=file) as process:
        eventually(lambda: owner(data_dir) == process.pid or process.poll() is not None)
        if process.poll() is not None:
            pytest.skip(f"no user namespace with a limit of its own: {errors.read_text()}")
        for number in range(2):
            arrive(data_dir, source.chunk(start=number, end=number + 1))
        lines = errors.read_text().splitlines()
        assert len([line for line in lines if "limit reached" in line]) == (WATCHES if what == "watches" else 1)
        subprocess.run(["nsenter", "-t", str(process.pid), "-U", "sh", "-c", f"echo 1000 > {most}"], check=True)
        eventually(lambda: watches(process.pid) == WATCHES, "it watches again")


def watches(pid: int) -> int:
    """How many a process has: proc(5), fdinfo."""
    count = 0
    for fd in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            count += fd.read_text().count("inotify wd:")
        except FileNotFoundError:
            continue
    return count


STARVED = test_process_without_descriptors_goes_on_once_there_are_some
THREADLESS = test_work_without_a_thread_is_done_once_there_is_one
UNWATCHED = test_without_inotify_scans_serve_meanwhile
WORKERS, WATCHER = "concurrency.workers:Workers", "reconcile.watcher:Watcher"
FAULTS = [
    # a pass that fails is the last one
    Fault(STARVED, "reconcile.loop:Loop.run", "except Exception as e:", "except ZeroDivisionError as e:"),
    # what nobody thought of leaves its id busy
    Fault(
        test_worker_without_memory_holds_up_none_and_retries,
        *("reconcile.executor:Executor._carry_out", "except Exception as e:", "except OSError as e:"),
        {"error": MemoryError()},
    ),
    # a probe that fails is the last one
    Fault(
        test_read_only_disk_keeps_chunks_in_service_and_resumes_by_itself,
        *("reconcile.disk_outage:DiskOutage._probe", "except OSError as e:", "except FileNotFoundError as e:"),
    ),
    # a thread that is refused ends the pass, or is told of again and again, or is never started
    Fault(
        THREADLESS, f"{WORKERS}._start_thread", "except RuntimeError", "except ValueError", {"workers": "fsdm-fetch"}
    ),
    Fault(THREADLESS, f"{WORKERS}._start_thread", "if not self._short:", "if True:", {"workers": "fsdm-fetch"}),
    Fault(THREADLESS, f"{WORKERS}.replenish", "self._call()", "pass", {"workers": "fsdm-worker"}),
    # what was offered without a thread for it is lost
    Fault(THREADLESS, f"{WORKERS}.offer", "return bool(self._threads)", "return True", {"workers": "fsdm-connection"}),
    # who cannot take over keeps LOCK
    Fault(
        test_takeover_without_a_thread_leaves_lock,
        *("manager:DataManager._take_over", "_end(reconciler, lock)", "pass"),
    ),
    # without inotify there is no reconciler; it is asked for once
    Fault(
        UNWATCHED, f"{WATCHER}._begin", "except (OSError, RuntimeError)", "except RuntimeError", {"what": "instances"}
    ),
    Fault(UNWATCHED, f"{WATCHER}.arm", "if not self._is_on", "if self._told or not self._is_on", {"what": "watches"}),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_known_fault_is_found(fault: Fault, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    must_find(fault, request, monkeypatch)
