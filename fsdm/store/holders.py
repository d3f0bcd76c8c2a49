"""Who holds a chunk's directory: the processes that have a flock on it, as proc(5) shows them.

Two sources. `/proc/PID/fdinfo/N` has a line for each lock of that descriptor: so it tells a holder from somebody who
only looks into the directory, and finds the forks and children that have inherited a lock; but only of processes whose
descriptors this user may see. `/proc/locks` names the process that took a lock, whosever it is, but not who has it now,
and none that is outside this pid namespace. What neither can tell is said (`Holders.unseen`), never guessed. The kernel
does not record since when a lock is held: so nothing here says that.

Nothing is locked, opened for reading, or changed: a look delays no reader, and rings no reconciler. Processes may come
and go meanwhile. The reconciler's claim is not a holder, and neither is a process that waits for a lock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fsdm.store.filesystem import user_name
from fsdm.store.leader_lock import who_reconciles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.model.layout import Layout, Place

PROC: Final = "/proc"
COMMAND_MAX: Final = 160  # characters, of which so many are of its beginning …
COMMAND_HEAD: Final = 100
COMMAND_READ_BYTES: Final = 1 << 16
_FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC  # its inode (linux/proc_ns.h): from there every process is visible

Mode = Literal["shared", "exclusive"]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a lock on a chunk's directory.

    `started_at`: when the process began, in seconds since the epoch. `inherited`: another process took the lock, and
    this one has a copy of its descriptor.
    """

    pid: int
    command: str
    user: str
    started_at: float | None
    mode: Mode
    inherited: bool = False


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds a directory. `unseen` says, a sentence each, what could not be seen; empty where these are all."""

    found: tuple[Holder, ...] = ()
    unseen: tuple[str, ...] = ()


class _Lock(NamedTuple):
    pid: int  # of the process that took it
    mode: Mode
    inode: str  # as the kernel writes it: MAJOR:MINOR:INODE, the device in hex


@dataclass(slots=True)
class _Target:
    place: Place
    inode: str  # as in _Lock
    owners: dict[int, Mode] = field(default_factory=dict)  # who took a lock, by /proc/locks
    found: dict[int, _Lock] = field(default_factory=dict)  # who has one, by descriptors


def look_for_holders(layout: Layout, places: Iterable[Place], *, proc: str = PROC) -> dict[Place, Holders]:
    """Who holds the directories at these places, in one walk through /proc; those that are gone are left out.

    Raises:
        OSError: there is no proc(5) here.
    """
    owner = who_reconciles(layout)
    reconciler_pid = None if owner is None else owner.pid
    targets = _targets(layout, places, proc)
    by_inode = {target.inode: target for target in targets.values()}
    for lock in _locks(_read(f"{proc}/locks").splitlines()):
        if lock.inode in by_inode:
            by_inode[lock.inode].owners[lock.pid] = lock.mode
    all_visible = _sees_every_process(proc)
    denied = 0
    if targets and (not all_visible or any(target.owners for target in targets.values())):
        denied = _walk(targets, proc)
    boot_at = _boot_at(proc)
    found = {}
    for target in targets.values():
        unseen = []
        if not all_visible:
            unseen.append("processes outside this container (its pid namespace) cannot be seen from here")
        if denied and (target.owners or not all_visible):
            who = "1 process" if denied == 1 else f"{denied} processes"
            unseen.append(f"{who} may not be looked at by this user, and may have inherited a lock")
        found[target.place] = _holders(target, unseen, reconciler_pid, proc, boot_at)
    return found


def _targets(layout: Layout, places: Iterable[Place], proc: str) -> dict[tuple[int, int], _Target]:
    devices = _devices(_read(f"{proc}/self/mountinfo"))
    targets = {}
    for place in places:
        try:
            # O_PATH: no event, as a close would be, for the reconciler that watches a held directory
            fd = os.open(layout.path(place), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            found = os.fstat(fd)
            lines = _read(f"{proc}/self/fdinfo/{fd}").splitlines()
        finally:
            os.close(fd)
        says = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        # btrfs and overlay give stat(2) other numbers than those that locks are shown with: ask for the mount's
        device = devices.get(says.get("mnt_id", ""), (os.major(found.st_dev), os.minor(found.st_dev)))
        inode = f"{device[0]:02x}:{device[1]:02x}:{says.get('ino', found.st_ino)}"
        targets[found.st_dev, found.st_ino] = _Target(place, inode)
    return targets


def _devices(mountinfo: str) -> dict[str, tuple[int, int]]:
    devices = {}
    for line in mountinfo.splitlines():
        mount_id, _, device = line.split()[:3]
        major, minor = device.split(":")
        devices[mount_id] = int(major), int(minor)
    return devices


def _locks(lines: Iterable[str]) -> Iterator[_Lock]:
    """The flocks in lines of /proc/locks, or behind `lock:` of fdinfo; `->` is somebody who waits for one."""
    for line in lines:
        match line.split():
            case [_, "FLOCK", _, mode, pid, inode, *_]:
                yield _Lock(int(pid), "exclusive" if mode == "WRITE" else "shared", inode)


def _walk(targets: dict[tuple[int, int], _Target], proc: str) -> int:
    """Find the descriptors with a lock on a target; how many processes may not be looked at."""
    denied = 0
    for name in filter(str.isdigit, os.listdir(proc)):
        try:
            for fd in os.listdir(f"{proc}/{name}/fd"):
                _look_at(targets, int(name), fd, proc)
        except PermissionError:
            denied += bool(_command(name, proc, or_name=False))  # a thread of the kernel has none, and holds nothing
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return denied


def _look_at(targets: dict[tuple[int, int], _Target], pid: int, fd: str, proc: str) -> None:
    path = f"{proc}/{pid}/fd/{fd}"
    try:
        if not os.readlink(path).startswith("/"):  # a socket, a pipe …
            return
        says = _read(f"{proc}/{pid}/fdinfo/{fd}")
        if "FLOCK" not in says:
            return
        found = os.stat(path)  # only of what is locked: to stat a file of a server that is away would hang
    except PermissionError:
        raise
    except OSError:  # it has ended; or the file is on another disk, which fails
        return
    target = targets.get((found.st_dev, found.st_ino))
    if target is not None:
        lines = (line.removeprefix("lock:") for line in says.splitlines() if line.startswith("lock:"))
        for lock in _locks(lines):
            target.found[pid] = lock


def _holders(
    target: _Target, unseen: list[str], reconciler_pid: int | None, proc: str, boot_at: float | None
) -> Holders:
    found = []
    for pid, lock in target.found.items():
        inherited = lock.pid not in {pid, 0, -1}
        found.append(_holder(pid, lock.mode, proc, boot_at, inherited=inherited))
    served = {lock.pid for lock in target.found.values()}
    for pid, mode in target.owners.items():
        if pid in served:
            continue  # who has it was seen
        if pid > 0 and os.path.exists(f"{proc}/{pid}") and not _may_see(pid, proc):
            found.append(_holder(pid, mode, proc, boot_at, inherited=False))
        else:
            unseen.append(f"pid {pid} took a lock and has it no more; who has inherited it cannot be seen from here")
    claims = [holder for holder in found if holder.pid == reconciler_pid and holder.mode == "exclusive"]
    return Holders(tuple(sorted((h for h in found if h not in claims), key=lambda h: h.pid)), tuple(unseen))


def _holder(pid: int, mode: Mode, proc: str, boot_at: float | None, *, inherited: bool) -> Holder:
    command = _command(str(pid), proc) or "not known: it has just ended"
    return Holder(pid, command, _user(pid, proc), _started_at(pid, proc, boot_at), mode, inherited)


def _may_see(pid: int, proc: str) -> bool:
    try:
        os.listdir(f"{proc}/{pid}/fd")
    except PermissionError:
        return False
    except (FileNotFoundError, ProcessLookupError):
        return True
    return True


def _command(pid: str, proc: str, *, or_name: bool = True) -> str:
    """Its command line, bounded; or its name in brackets, where it has none."""
    try:
        command = _read(f"{proc}/{pid}/cmdline", COMMAND_READ_BYTES).replace("\0", " ").strip()
        if not command and or_name:
            command = f"[{_read(f'{proc}/{pid}/comm').strip()}]"
    except OSError:
        return ""
    return (
        command
        if len(command) <= COMMAND_MAX
        else f"{command[:COMMAND_HEAD]}…{command[COMMAND_HEAD - COMMAND_MAX + 1 :]}"
    )


def _user(pid: int, proc: str) -> str:
    try:
        uid = int(_read(f"{proc}/{pid}/status").partition("\nUid:")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return "not known"
    return user_name(uid)


def _started_at(pid: int, proc: str, boot_at: float | None) -> float | None:
    try:
        ticks = int(_read(f"{proc}/{pid}/stat").rpartition(")")[2].split()[19])  # the 22nd field: proc(5)
    except (OSError, ValueError, IndexError):
        return None
    return None if boot_at is None else boot_at + ticks / os.sysconf("SC_CLK_TCK")


def _boot_at(proc: str) -> float | None:
    try:
        return float(_read(f"{proc}/stat").partition("\nbtime ")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _sees_every_process(proc: str) -> bool:
    try:
        return os.stat(f"{proc}/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def _read(path: str, limit: int = -1) -> str:
    with open(path, "rb") as file:
        return file.read(limit).decode(errors="surrogateescape")
