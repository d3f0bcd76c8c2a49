"""Locks held by other processes and by forks."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fsdm.store.flock import Claim
from tests.support.waiting import PATIENCE_S

HOLD_LOCK = """
import sys
from fsdm.model.layout import Layout
from fsdm.store.leader_lock import ReconcilerLock
lock = ReconcilerLock(Layout(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process; it has written its first line, and is killed at the end."""
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        assert running.stdout.readline(), "it ended without a word"
        yield running
    finally:
        running.kill()
        running.wait()
        running.stdin.close()
        running.stdout.close()


def python(script: str, *args: object) -> tuple[str, ...]:
    """Return the command that runs a script in another Python."""
    return (sys.executable, "-c", script, *map(str, args))


def in_a_fork(work: Callable[[], object]) -> str:
    """Return the result of `work` in a forked child, or the name of its exception."""
    with forked(work) as told:
        return told()


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[Callable[[], str]]:
    """Fork a child that does `work` and lives until the end of the block; yield its result."""
    out, say = os.pipe()
    wait, let_go = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns where a test runner has threads
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(PATIENCE_S))  # a child that hangs says nothing
            os.close(let_go)
            try:
                text = str(work())
            except BaseException as e:
                text = type(e).__name__
            os.write(say, text.encode() or b" ")
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(say)
    os.close(wait)
    try:
        yield lambda: os.read(out, 4096).decode()
    finally:
        os.close(let_go)
        os.waitpid(pid, 0)
        os.close(out)


def can_lock(path: str) -> bool:
    """Return whether the exclusive lock on a directory is free."""
    claim = Claim(path)
    try:
        return claim.take()
    finally:
        claim.close()


def waiting_at(path: str | os.PathLike[str]) -> int:
    """Count the shared flocks on a file, as the kernel lists them; none where there is no file."""
    try:
        inode = os.stat(path).st_ino
    except FileNotFoundError:
        return 0
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sum(lock[3] == "READ" and lock[5].rpartition(":")[2] == str(inode) for lock in locks if lock[1] == "FLOCK")
