"""`LOCK`: taken by the process that reconciles, and read by those that ask which one it is."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.errors import DataDirectoryError, ReconcilerRunsError
from fsdm.model.units import lasting
from fsdm.store.filesystem import SAFE
from fsdm.store.flock import SHARED, LockDescriptor, open_fd, same_file, try_flock

if TYPE_CHECKING:
    from fsdm.model.layout import Layout


BEAT_S: Final = 10.0
SILENT_S: Final = 30.0  # without a beat, after which a holder that beats is said to be stuck


class ReconcilerLock(LockDescriptor):
    """`LOCK`, held: this process alone writes outside the directories of markers.

    `trash/` is locked with it: LOCK may be removed by hand while its holder is in the middle of a step.
    """

    def __init__(self, layout: Layout) -> None:
        """Take LOCK: ReconcilerRunsError where it is held, DataDirectoryError where it is refused."""
        self._path, self._trash = layout.lock, LockDescriptor()
        super().__init__()
        try:
            self._take(layout, monotonic() + 0.05)
        except BaseException:
            self.close()
            raise

    def _take(self, layout: Layout, deadline: float) -> None:
        flags = os.O_RDWR | os.O_CREAT
        while True:
            try:
                fd = _open_lock(self, layout, flags)
            except FileNotFoundError:
                if flags & os.O_CREAT:
                    raise
                raise _runs_already(layout, "") from None  # it has gone since, perhaps with the data directory
            flags = os.O_RDWR  # what stood there at first may be another directory by now
            if _lock(fd) and self.is_ours() and self._lock_trash(layout):
                break
            # a process asked who reconciles, or LOCK was removed and made again since its open: try once more
            if monotonic() > deadline:
                raise _runs_already(layout, os.pread(fd, 4096, 0).decode(errors="replace").strip())
            self.close()
            sleep(0.005)
        self._owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": round(time(), 3)}
        self._next_beat = 0.0
        os.ftruncate(fd, 0)
        self._write(self._owner)

    def beat(self) -> None:
        """Show by the mtime of LOCK that its holder goes on; each `BEAT_S`, however often this is called."""
        if monotonic() >= self._next_beat:
            self._next_beat = monotonic() + BEAT_S
            with suppress(OSError):  # a disk that is read-only shows that by itself
                self._write({**self._owner, "beats_s": BEAT_S})

    def _write(self, owner: dict[str, Any]) -> None:
        if self.fd is not None:
            os.pwrite(self.fd, json.dumps(owner).encode() + b"\n", 0)

    def is_ours(self) -> bool:
        """Return whether LOCK is still the file that this process holds: it may have been removed."""
        return self.fd is not None and same_file(self.fd, self._path)

    def close(self) -> None:
        """Release LOCK; do nothing in a forked child."""
        super().close()
        self._trash.close()

    def _lock_trash(self, layout: Layout) -> bool:
        with suppress(FileExistsError):
            os.mkdir(layout.trash)
        self._trash.fd = fd = open_fd(layout.trash)
        return _lock(fd)


def _lock(fd: int) -> bool:
    """Take the exclusive lock of who reconciles, without waiting; return whether it is held now."""
    from portalocker import AlreadyLocked, LockException, LockFlags  # here: who only reads LOCK needs none of it
    from portalocker.portalocker import FlockLocker

    try:
        FlockLocker().lock(fd, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
    except AlreadyLocked:
        return False
    except LockException as e:
        raise OSError(errno.ENOLCK, f"flock is refused: {e}") from e
    return True


def _open_lock(lock: LockDescriptor, layout: Layout, flags: int) -> int:
    """Open LOCK without waiting, and without following a symlink. May raise FileNotFoundError."""
    try:
        lock.fd = fd = open_fd(layout.lock, flags | SAFE)
    except FileNotFoundError:
        raise
    except OSError as e:
        hint = "only its owner reconciles a data directory; to be a client: DataManager(…, reconcile=False)"
        raise DataDirectoryError(f"{layout.lock} cannot be opened: {e.strerror}", hint=hint) from e
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    lock.close()
    raise DataDirectoryError(f"{layout.lock} is not a file", hint="remove it, and start again")


def _runs_already(layout: Layout, owner: str) -> ReconcilerRunsError:
    return ReconcilerRunsError(
        f"{layout.root} is reconciled by another process: {describe_holder(owner) or 'it has not said who it is yet'}",
        owner=owner,
        hint="use `fsdm run --wait` or DataManager(…) to take over when it ends; no file needs to be removed",
    )


def read_lock(layout: Layout) -> str | None:
    """Read the JSON of LOCK's holder; None for none. DataDirectoryError where it is refused."""
    read = _read(layout)
    return None if read is None else read[0]


def _read(layout: Layout) -> tuple[str, float] | None:
    """Read what LOCK says while it is held, and its mtime in seconds since the epoch."""
    lock = LockDescriptor()
    try:
        fd = _open_lock(lock, layout, os.O_RDONLY)
        if try_flock(fd, SHARED):
            return None
        return os.pread(fd, 4096, 0).decode(errors="replace").strip() or "unknown", os.fstat(fd).st_mtime
    except FileNotFoundError:
        return None
    finally:
        lock.close()


def find_reconciler(layout: Layout) -> LockHolder | None:
    """Return the process that reconciles, as far as this user may know; None for none."""
    try:
        read = _read(layout)
    except DataDirectoryError as e:
        return LockHolder(says=f"not known: {e}")
    return None if read is None else replace(LockHolder.parse(read[0]), beat_at=read[1])


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that reconciles; a field is None where it is not known."""

    pid: int | None = None
    host: str | None = None
    since: float | None = None  # seconds since the epoch
    beats_s: float | None = None  # how often the mtime of LOCK is set
    beat_at: float | None = None  # and when it was
    says: str = field(default="", compare=False)  # the text of LOCK; a sentence, where this user may not read it

    @classmethod
    def parse(cls, says: str) -> LockHolder:
        """Parse the text of LOCK as far as it can be understood."""
        kinds: dict[str, Any] = {"pid": int, "host": str, "since": int | float, "beats_s": int | float}
        try:
            document = json.loads(says)
            known = {name: document[name] for name, kind in kinds.items() if isinstance(document.get(name), kind)}
        except (ValueError, AttributeError, RecursionError):
            known = {}
        return cls(**known, says=says)

    def trouble(self, now: float) -> str | None:
        """Say that the holder does not go on, as far as that can be seen; `now` is in seconds since the epoch."""
        stopped = self.pid is not None and self.host == socket.gethostname() and _is_stopped(self.pid)
        silent_s = 0.0 if self.beats_s is None or self.beat_at is None else now - self.beat_at
        if not stopped and silent_s <= SILENT_S:
            return None
        what = "is stopped by a signal" if stopped else "does not go on"
        last = f" (its last sign of life was {lasting(silent_s)} ago)" if silent_s > 0 else ""
        return f"the reconciler, {self}, {what}{last}: nothing is carried out"

    def __str__(self) -> str:
        if self.pid is None:
            return "not known"
        return f"pid {self.pid} on {self.host}" if self.host else f"pid {self.pid}"


def _is_stopped(pid: int) -> bool:
    """Tell whether a process of this pid namespace is stopped (SIGSTOP, a debugger), by proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in {b"T", b"t"}
    except OSError:  # it has ended, or hides
        return False


def describe_holder(says: str | None) -> str:
    """Format the text of LOCK for people; a text that is no JSON is a sentence already."""
    if says is None:
        return "none"
    owner = LockHolder.parse(says)
    return says if owner.pid is None else str(owner)
