"""A process that may reconcile, and stamps when each of its steps began and ended.

    python -m tests.support.stamped DATA_DIR LOG [MUTANT]

The processes of one test share LOG. A line is a record: the process, the number of its step, what it tells (*begins*,
*ends*, or *refused*: it has asked for LOCK in vain), when (CLOCK_MONOTONIC, which all processes share), and the step.
A stamp is in the file before the step begins, also where the process is killed in the middle. Steps are those of a
`FileSystem`, and each fetch as a whole. MUTANT is a statement that breaks something first.

It does what stdin says, line by line, and answers each on stdout: `block NAME PATH` (the next such step waits in the
middle until `go on`; it says `blocked` then), `go on`, `close`.
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsdm.manager
import fsdm.reconcile.reconciler
import fsdm.transfer.fetcher
from fsdm import DataManager
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.layout import Layout
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.filesystem import FileSystem
from fsdm.store.leader_lock import ReconcilerLock
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.resume_record import Part

STANDBY_S = 0.02
STOP_S = 0.2  # so long a process waits for a hand that is in the middle of a step, before it goes on without


class Stamps:
    """The log, and the one step that is to wait in the middle."""

    def __init__(self, log: str) -> None:
        self._fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        self._numbers = itertools.count()
        self._block: tuple[str, str] | None = None
        self._go_on = threading.Event()

    def tell(self, what: str, number: int = -1, name: str = "", path: str = "") -> None:
        record = {"pid": os.getpid(), "step": number, "what": what, "at": time.monotonic_ns(), "name": name}
        os.write(self._fd, json.dumps(record | {"path": path}).encode() + b"\n")  # with O_APPEND, whole lines

    @contextmanager
    def step(self, name: str, path: str) -> Iterator[None]:
        number = next(self._numbers)
        self.tell("begins", number, name, path)
        try:
            if self._block is not None and name == self._block[0] and self._block[1] in path:
                self._block = None
                say("blocked")
                self._go_on.wait()
            yield
        finally:
            self.tell("ends", number, name, path)

    def block(self, name: str, path: str) -> None:
        self._go_on.clear()
        self._block = (name, path)

    def go_on(self) -> None:
        self._go_on.set()


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def stamp(stamps: Stamps) -> None:
    """Have every step of this process stamped."""

    class StampedFileSystem(FileSystem):
        """Its steps may be made of others: they are stamped one inside the other."""

    for name in ("mkdir", "rename", "unlink", "fsync_dir", "fsync_file", "write", "erase"):
        setattr(StampedFileSystem, name, _stamped(stamps, name))

    class StampedFetcher(HttpFetcher):
        def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
            with stamps.step("fetch", source.url):
                return super().fetch(source, part, fs, stop)

    class StampedLock(ReconcilerLock):
        def __init__(self, layout: Layout) -> None:
            try:
                super().__init__(layout)
            except BaseException:
                stamps.tell("refused")
                raise

    fsdm.reconcile.reconciler.FileSystem = StampedFileSystem
    fsdm.reconcile.reconciler.HttpFetcher = StampedFetcher
    fsdm.manager.ReconcilerLock = StampedLock
    fsdm.manager.STANDBY_S = STANDBY_S
    Reconciler.stop.__defaults__ = (STOP_S,)


def _stamped(stamps: Stamps, name: str) -> Any:
    original = getattr(FileSystem, name)

    def step(self: FileSystem, *arguments: Any, **keywords: Any) -> Any:
        path = next(argument for argument in arguments if isinstance(argument, str))
        with stamps.step(name, path):
            return original(self, *arguments, **keywords)

    return step


def main(data_dir: str, log: str, mutant: str = "") -> None:
    stamps = Stamps(log)
    stamp(stamps)
    exec(mutant, globals())
    with DataManager(data_dir) as dm:
        say("ready")
        for line in sys.stdin:
            match line.split():
                case ["block", name, path]:
                    stamps.block(name, path)
                case ["go", "on"]:
                    stamps.go_on()
                case ["close"]:
                    dm.close()
            say(line.strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
