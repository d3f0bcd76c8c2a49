"""`LOCK`: taken by the process that reconciles, and read by those that ask which one it is."""

from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

from fsdm.model.errors import DataDirectoryError, ReconcilerRunsError
from fsdm.store.filesystem import SAFE
from fsdm.store.flock import EXCLUSIVE, SHARED, close_fd, open_fd, same_file, try_flock

if TYPE_CHECKING:
    from fsdm.model.layout import Layout


class ReconcilerLock:
    """`LOCK`, held: this process alone writes outside the directories of markers.

    `trash/` is locked with it: LOCK may be removed by hand while its holder is in the middle of a step.
    """

    def __init__(self, layout: Layout) -> None:
        """Take LOCK: ReconcilerRunsError where it is held, DataDirectoryError where it is refused."""
        self._path = layout.lock
        deadline = monotonic() + 0.05
        while True:
            self.fd, self._trash_fd = _open_lock(layout, os.O_RDWR | os.O_CREAT), -1
            try:
                if try_flock(self.fd, EXCLUSIVE) and self.is_ours() and self._lock_trash(layout):
                    break
                # a process asked who reconciles, or LOCK was removed and made again since its open: try once more
                if monotonic() > deadline:
                    raise _runs_already(layout, os.pread(self.fd, 4096, 0).decode(errors="replace").strip())
            except BaseException:
                self.close()
                raise
            self.close()
            sleep(0.005)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": round(time(), 3)}
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps(owner).encode() + b"\n", 0)

    def is_ours(self) -> bool:
        """Return whether LOCK is still the file that this process holds: it may have been removed."""
        return same_file(self.fd, self._path)

    def close(self) -> None:
        """Release LOCK; do nothing in a forked child."""
        close_fd(self.fd)
        close_fd(self._trash_fd)

    def _lock_trash(self, layout: Layout) -> bool:
        with suppress(FileExistsError):
            os.mkdir(layout.trash)
        self._trash_fd = open_fd(layout.trash)
        return try_flock(self._trash_fd, EXCLUSIVE)


def _open_lock(layout: Layout, flags: int) -> int:
    """Open LOCK without waiting, and without following a symlink. May raise FileNotFoundError."""
    try:
        fd = open_fd(layout.lock, flags | SAFE)
    except FileNotFoundError:
        raise
    except OSError as e:
        hint = "only its owner reconciles a data directory; to be a client: DataManager(…, reconcile=False)"
        raise DataDirectoryError(f"{layout.lock} cannot be opened: {e.strerror}", hint=hint) from e
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    close_fd(fd)
    raise DataDirectoryError(f"{layout.lock} is not a file", hint="remove it, and start again")


def _runs_already(layout: Layout, owner: str) -> ReconcilerRunsError:
    return ReconcilerRunsError(
        f"{layout.root} is reconciled by another process: {describe_holder(owner) or 'it has not said who it is yet'}",
        owner=owner,
        hint="use `fsdm run --wait` or DataManager(…) to take over when it ends; no file needs to be removed",
    )


def read_lock(layout: Layout) -> str | None:
    """Read the JSON of LOCK's holder; None for none. DataDirectoryError where it is refused."""
    try:
        fd = _open_lock(layout, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if try_flock(fd, SHARED):
            return None
        return os.pread(fd, 4096, 0).decode(errors="replace").strip() or "unknown"
    finally:
        close_fd(fd)


def find_reconciler(layout: Layout) -> LockHolder | None:
    """Return the process that reconciles, as far as this user may know; None for none."""
    try:
        says = read_lock(layout)
    except DataDirectoryError as e:
        return LockHolder(says=f"not known: {e}")
    return None if says is None else LockHolder.parse(says)


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that reconciles; a field is None where it is not known."""

    pid: int | None = None
    host: str | None = None
    since: float | None = None  # seconds since the epoch
    says: str = field(default="", compare=False)  # the text of LOCK; a sentence, where this user may not read it

    @classmethod
    def parse(cls, says: str) -> LockHolder:
        """Parse the text of LOCK as far as it can be understood."""
        kinds: dict[str, Any] = {"pid": int, "host": str, "since": int | float}
        try:
            document = json.loads(says)
            known = {name: document[name] for name, kind in kinds.items() if isinstance(document.get(name), kind)}
        except (ValueError, AttributeError, RecursionError):
            known = {}
        return cls(**known, says=says)

    def __str__(self) -> str:
        if self.pid is None:
            return "not known"
        return f"pid {self.pid} on {self.host}" if self.host else f"pid {self.pid}"


def describe_holder(says: str | None) -> str:
    """Format the text of LOCK for people; a text that is no JSON is a sentence already."""
    if says is None:
        return "none"
    owner = LockHolder.parse(says)
    return says if owner.pid is None else str(owner)
