"""Processes that share a data directory: whichever end the writer meets, no two write.

Each process stamps its steps (see `stamped`), and what they have stamped is compared when all is over. A new step is a
row in `STEPS`: who carries it out, and the name and path by which `stamped` knows it. A new deed, which befalls the
first process in the midst of one, is a function like `is_killed`, with the steps that it is tried at in `BEFALLS`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from fsdm import DataManager
from tests.support import PATIENCE_S, Source, eventually, expected, owner
from tests.support.chunks import chunk_dir, entries, files_of, put_want, touch_delete

ENOUGH = 3  # so many times somebody has asked for LOCK in vain: it would have got it


class TwoWriteError(AssertionError):
    """Two processes were in the middle of a step at the same time."""


@dataclass
class Log:
    """The stamps of the processes of a test, and when some of them were killed."""

    path: Path
    killed_at: dict[int, int] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def count(self, what: str, *, but: int = -1) -> int:
        """How many records tell this, but for those of one process."""
        return sum(record["what"] == what and record["pid"] != but for record in self.records())

    def writers(self) -> set[int]:
        return {record["pid"] for record in self.records() if record["what"] == "begins"}

    def check(self) -> None:
        """See that no step of a process begins before those of all others have ended.

        Raises:
            TwoWriteError: naming both.
        """
        steps: dict[tuple[int, int], list[Any]] = {}
        for record in self.records():
            key, told = (record["pid"], record["step"]), f"{record['pid']}: {record['name']} {record['path']}"
            if record["what"] == "begins":  # one that was cut off goes on until its process is killed
                steps[key] = [record["at"], max(record["at"], self.killed_at.get(record["pid"], 0)), told]
            elif record["what"] == "ends":
                steps[key][1] = record["at"]
        last: dict[int, list[Any]] = {}  # of each process, the step that ends last of those that have begun
        for (pid, _), step in sorted(steps.items(), key=lambda item: item[1]):
            for other, theirs in last.items():
                if other != pid and theirs[1] > step[0]:
                    raise TwoWriteError(f"{step[2]} begins while {theirs[2]} is not over")
            last[pid] = max(last.get(pid, step), step, key=lambda one: one[1])


class Writer:
    """A process that may reconcile, told what to do. A context manager that kills it."""

    def __init__(self, data_dir: Path, log: Log, mutant: str = "") -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stamped", data_dir, log.path, mutant],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        try:
            self.hears("ready")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def tell(self, what: str) -> None:
        print(what, file=self._process.stdin, flush=True)
        self.hears(what)

    def hears(self, what: str) -> None:
        assert self._process.stdout.readline().strip() == what

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        eventually(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt")

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process.returncode is None:
            self._log.killed_at[self.pid] = time.monotonic_ns()
            self._process.kill()
            self._process.communicate()


def others_have_tried(log: Log, this: Writer, before: int) -> bool:
    """Whether others have asked for LOCK in vain often enough; or have got it, which is to be found out."""
    return log.count("refused", but=this.pid) >= before + ENOUGH or bool(log.writers() - {this.pid})


def wait_for_the_others(log: Log, this: Writer) -> None:
    before = log.count("refused", but=this.pid)
    eventually(lambda: others_have_tried(log, this, before), "the others have asked for LOCK")


def is_closed(data_dir: Path, log: Log, first: Writer) -> None:
    """It is told to end, and one worker does not."""
    first.tell("close")
    wait_for_the_others(log, first)
    first.tell("go on")


def is_killed(data_dir: Path, log: Log, first: Writer) -> None:
    """It is frozen in the middle, for a while, and then killed."""
    first.stop()
    wait_for_the_others(log, first)
    first.kill()


def loses_lock(data_dir: Path, log: Log, first: Writer) -> None:
    """LOCK is removed, so that another one can be made; the worker ends long after."""
    os.unlink(data_dir / "LOCK")
    wait_for_the_others(log, first)
    first.tell("go on")


def loses_lock_while_it_is_frozen(data_dir: Path, log: Log, first: Writer) -> None:
    """… and it cannot even see that, until somebody thaws it."""
    first.stop()
    os.unlink(data_dir / "LOCK")
    wait_for_the_others(log, first)
    first.go_on()
    first.tell("go on")


Deed = Callable[[Path, Log, Writer], None]

# a worker of each kind, by the step that it is in the middle of; and the loop itself
STEPS = {
    "lane": "fetch /",
    "fetcher": "write /READY",
    "worker": "unlink /.judged-",
    "eraser": "erase /trash/",
    "loop": "mkdir /failed",
}


def befalls(deed: Deed, step: str, data_dir: Path, source: Source, mutant: str) -> None:
    """A process is in the middle of a step, another one is ready to take over, and this befalls the first.

    Raises:
        TwoWriteError: that one did not wait.
    """
    here, then = source.chunk(), source.chunk(start=10, end=20)
    log = Log(data_dir.parent / "log")
    with Writer(data_dir, log, mutant) as first:
        put_want(data_dir, here)
        eventually(lambda: chunk_dir(data_dir, here).exists() and not entries(data_dir / "want"))
        first.tell(f"block {STEPS[step]}")
        put_want(data_dir, then)
        touch_delete(data_dir, here.id)
        first.hears("blocked")
        with Writer(data_dir, log, mutant) as second:  # only now: one that shares LOCK might do all of it alone
            deed(data_dir, log, first)
            eventually(lambda: not entries(data_dir / "want") and not entries(data_dir / "delete"), "it goes on")
            first.kill()
            eventually(lambda: owner(data_dir) == second.pid and second.pid in log.writers())
            assert files_of(chunk_dir(data_dir, then) / "data") == expected(then, source)
            assert not chunk_dir(data_dir, here).exists()
    log.check()


BEFALLS = [(deed, "worker") for deed in (is_killed, loses_lock, loses_lock_while_it_is_frozen)]


@pytest.mark.parametrize(("deed", "step"), [*((is_closed, step) for step in STEPS), *BEFALLS])
def test_next_writer_waits_for_the_last_step(data_dir: Path, source: Source, deed: Deed, step: str) -> None:
    befalls(deed, step, data_dir, source, "")


MUTANTS = {
    "lets go at once": "fsdm.manager._end = lambda reconciler, lock: (lock.close(), reconciler.stop())",
    "lets go after a while": "fsdm.manager._close_when_ended = lambda reconciler, lock: lock.close()",
    "shares LOCK": (
        "fsdm.store.data_dir.check_flock = lambda *_, **__: None; "
        "fsdm.store.leader_lock._lock = lambda fd: fsdm.store.flock.try_flock(fd, fsdm.store.flock.SHARED)"
    ),
    "LOCK alone": "ReconcilerLock._lock_trash = lambda self, layout: True",
}

FOUND = [
    *((is_closed, "lets go at once"), (is_closed, "lets go after a while"), (is_killed, "shares LOCK")),
    *((loses_lock, "lets go at once"), (loses_lock, "LOCK alone"), (loses_lock_while_it_is_frozen, "LOCK alone")),
]


@pytest.mark.parametrize(("deed", "mutant"), FOUND)
def test_writer_that_does_not_wait_is_found(data_dir: Path, source: Source, deed: Deed, mutant: str) -> None:
    with pytest.raises(TwoWriteError):
        befalls(deed, "worker", data_dir, source, MUTANTS[mutant])


ROUNDS = 12
STANDING_BY = 2


def test_killed_writers_are_succeeded_and_no_two_write_at_once(data_dir: Path, source: Source) -> None:
    throw, log = random.Random(3), Log(data_dir.parent / "log")
    chunks = [source.chunk(start=n, end=n + 1) for n in range(6)]
    with ExitStack() as stack:
        writers: dict[int, Writer] = {}

        def replenish() -> None:
            writer = stack.enter_context(Writer(data_dir, log))
            writers[writer.pid] = writer

        for _ in range(1 + STANDING_BY):
            replenish()
        for number in range(ROUNDS):
            first = writers[eventually(lambda: owner(data_dir) in writers and owner(data_dir))]
            steps = log.count("begins")
            for chunk in throw.sample(chunks, 3):
                put_want(data_dir, chunk) if throw.random() < 0.7 else touch_delete(data_dir, chunk.id)
            some = throw.randrange(1, 40)
            eventually(lambda steps=steps, some=some: log.count("begins") >= steps + some, "it writes")
            ends(number, throw, data_dir, log, first)
            del writers[first.pid]
            replenish()
        for chunk in chunks:
            put_want(data_dir, chunk)
        with DataManager(data_dir, reconcile=False) as client:
            client.wait_converged(3 * PATIENCE_S)
            assert client.list_chunks() == [chunk.id for chunk in chunks]
        assert all(files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source) for chunk in chunks)
    log.check()
    assert len(log.writers()) > ROUNDS // 2


def ends(number: int, throw: random.Random, data_dir: Path, log: Log, first: Writer) -> None:
    """Have the writer end, or kill it, frozen or not; now and then, remove LOCK before."""
    if number % 3 == 2:
        (data_dir / "LOCK").unlink(missing_ok=True)
    if number % 4 == 3:
        first.tell("close")
    elif throw.random() < 0.5:
        first.stop()
        before = log.count("refused", but=first.pid)
        eventually(lambda: log.count("refused", but=first.pid) > before, "the others have asked for LOCK")
    first.kill()
