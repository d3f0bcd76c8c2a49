"""Bounded waiting for another process or thread."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fsdm.store.marker_removal import CLOCK_REALTIME_COARSE

PATIENCE_S = 60.0  # longer than anything takes on a busy machine


def eventually(check: Callable[[], Any], what: str = "", patience_s: float = PATIENCE_S) -> Any:
    """Wait until `check` returns a true value, and return it; fail where it takes too long."""
    deadline = time.monotonic() + patience_s
    while True:
        seen = check()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not in time: {what or check}, last seen {seen!r}"
        time.sleep(0.005)


def descriptors() -> Counter[int]:
    """Count the descriptors of this process by inode; other threads may change theirs."""
    found = Counter[int]()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found[os.stat(f"/proc/self/fd/{fd}").st_ino] += 1
    return found


def wait_for_a_tick(path: str) -> None:
    """Wait until the clock that ctimes are taken from has gone on since this file was changed."""
    eventually(lambda: time.clock_gettime_ns(CLOCK_REALTIME_COARSE) > os.lstat(path).st_ctime_ns)


def next_tick(directory: str | os.PathLike[str]) -> None:
    """Wait until what is changed there from now on has later times than all that is there."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        wait_for_a_tick(file.name)
