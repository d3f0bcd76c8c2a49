"""The holders of a chunk: the processes with a flock on its directory, by proc(5).

`/proc/PID/fdinfo/N` tells them exactly, where this user may see it; `/proc/locks` names those that took a lock. What
neither shows is told in `Holders.unseen`, never guessed. A look delays no reader, and wakes no reconciler.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fsdm.store.filesystem import DIRECTORY, opened, user_name
from fsdm.store.leader_lock import find_reconciler

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
    """A process that has a lock on a chunk's directory."""

    pid: int
    command: str
    user: str
    started_at: float | None  # when the process began, in seconds since the epoch
    mode: Mode
    inherited: bool = False  # another process took the lock, and this one has a copy of its descriptor


@dataclass(frozen=True, slots=True)
class Holders:
    """The holders that were found; `unseen` has a sentence for each kind that could not be seen."""

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
    takers: dict[int, Mode] = field(default_factory=dict)  # by /proc/locks
    holders: dict[int, _Lock] = field(default_factory=dict)  # by their descriptors


_Targets = dict[tuple[int, int], _Target]  # by device and inode, as stat(2) gives them


def look_for_holders(layout: Layout, places: Iterable[Place], *, proc: str = PROC) -> dict[Place, Holders]:
    """Find the holders of the chunks at these places in one /proc walk; gone ones are left out.

    The reconciler's claim is no holder, nor is a process that waits for a lock. Raises OSError without proc(5).
    """
    processes = _Processes(proc)
    targets = _targets(layout, places, processes)
    by_inode = {target.inode: target for target in targets.values()}
    for lock in _locks(processes.read("locks").splitlines()):
        if lock.inode in by_inode:
            by_inode[lock.inode].takers[lock.pid] = lock.mode
    if targets and (not processes.sees_all or any(target.takers for target in targets.values())):
        _find_descriptors(targets, processes)
    reconciler = find_reconciler(layout)
    claimer = None if reconciler is None else reconciler.pid
    return {target.place: _holders(target, processes, claimer) for target in targets.values()}


def held_places(layout: Layout, places: Iterable[Place], *, proc: str = PROC) -> set[Place]:
    """Find those of these places that a lock is on, by `/proc/locks` alone: none where there is no proc(5)."""
    processes = _Processes(proc)
    try:
        locked = {lock.inode for lock in _locks(processes.read("locks").splitlines())}
        numbers = _numbers_here(layout, locked, processes)
        if not numbers:
            return set()
        likely = [place for place in places if _inode(layout.path(place)) in numbers]
        return {target.place for target in _targets(layout, likely, processes).values() if target.inode in locked}
    except OSError:
        return set()


def _numbers_here(layout: Layout, locked: Iterable[str], processes: _Processes) -> set[int]:
    """Return the numbers of the inodes that are locked on the mount of the chunks, but for those of the reconciler."""
    _, chunks = _look_at_directory(layout.chunks, processes)
    device = chunks.rpartition(":")[0]
    numbers = (inode.rpartition(":") for inode in locked)
    here = {int(number) for on, _, number in numbers if on == device}
    return here - {_inode(path) for path in (layout.lock, layout.trash, layout.want)}


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:  # it has just gone
        return 0


def _targets(layout: Layout, places: Iterable[Place], processes: _Processes) -> _Targets:
    targets = {}
    for place in places:
        try:
            found, inode = _look_at_directory(layout.path(place), processes)
        except (FileNotFoundError, NotADirectoryError):
            continue
        targets[found.st_dev, found.st_ino] = _Target(place, inode)
    return targets


def _look_at_directory(path: str, processes: _Processes) -> tuple[os.stat_result, str]:
    """Return the fstat of a directory, and its inode as a line of a lock shows it."""
    # O_PATH: its close is no event for the reconciler that watches a held directory
    with opened(path, os.O_PATH | DIRECTORY) as fd:
        found = os.fstat(fd)
        lines = processes.read(f"self/fdinfo/{fd}").splitlines()
    info = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    major, minor = processes.devices.get(info.get("mnt_id", ""), (os.major(found.st_dev), os.minor(found.st_dev)))
    return found, f"{major:02x}:{minor:02x}:{info.get('ino', found.st_ino)}"


def _locks(lines: Iterable[str]) -> Iterator[_Lock]:
    """Yield the flocks in lines of /proc/locks or fdinfo; `->` is a process that waits for one."""
    for line in lines:
        match line.split():
            case [_, "FLOCK", _, mode, pid, inode, *_]:
                yield _Lock(int(pid), "exclusive" if mode == "WRITE" else "shared", inode)


def _find_descriptors(targets: _Targets, processes: _Processes) -> None:
    for pid in map(int, filter(str.isdigit, os.listdir(processes.root))):
        try:
            for fd in os.listdir(f"{processes.root}/{pid}/fd"):
                _look_at(targets, pid, fd, processes)
        except PermissionError:
            processes.hidden.add(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended


def _look_at(targets: _Targets, pid: int, fd: str, processes: _Processes) -> None:
    path = f"{processes.root}/{pid}/fd/{fd}"
    try:
        if not os.readlink(path).startswith("/"):  # a socket, a pipe …
            return
        info = processes.read(f"{pid}/fdinfo/{fd}")
        if "FLOCK" not in info:
            return
        found = os.stat(path)  # only of what is locked: to stat a file of a server that is away would hang
    except PermissionError:
        raise
    except OSError:  # it has ended; or the file is on another disk, which fails
        return
    target = targets.get((found.st_dev, found.st_ino))
    if target is not None:
        lines = (line.removeprefix("lock:") for line in info.splitlines() if line.startswith("lock:"))
        for lock in _locks(lines):
            target.holders[pid] = lock


def _holders(target: _Target, processes: _Processes, claimer: int | None) -> Holders:
    unseen = []
    if not processes.sees_all:
        unseen.append("processes outside this container (its pid namespace) cannot be seen from here")
    if processes.denied and (target.takers or not processes.sees_all):
        them = "1 process" if processes.denied == 1 else f"{processes.denied} processes"
        unseen.append(f"{them} may not be looked at by this user, and may have inherited a lock")
    found = [
        processes.holder(pid, lock.mode, inherited=lock.pid not in {pid, 0, -1}) for pid, lock in target.holders.items()
    ]
    seen = {lock.pid for lock in target.holders.values()}
    for pid in sorted(target.takers.keys() - seen):
        if pid in processes.hidden:
            found.append(processes.holder(pid, target.takers[pid]))
        else:
            unseen.append(f"pid {pid} took a lock and has it no more; the one that inherited it cannot be seen")
    holders = (holder for holder in found if (holder.pid, holder.mode) != (claimer, "exclusive"))
    return Holders(tuple(sorted(holders, key=lambda holder: holder.pid)), tuple(unseen))


@dataclass
class _Processes:
    """The files of proc(5) below `root`. A process may end at any moment."""

    root: str
    hidden: set[int] = field(default_factory=set)  # the processes whose descriptors this user may not see

    def read(self, path: str, limit: int = -1) -> str:
        with open(f"{self.root}/{path}", "rb") as file:
            return file.read(limit).decode(errors="surrogateescape")

    @cached_property
    def sees_all(self) -> bool:
        """Return whether every process of the machine is visible."""
        try:
            return os.stat(f"{self.root}/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
        except OSError:
            return False

    @cached_property
    def devices(self) -> dict[str, tuple[int, int]]:
        """The device of each mount, as locks are shown; on btrfs and overlay stat(2) gives other numbers."""
        mounts = (line.split()[:3] for line in self.read("self/mountinfo").splitlines())
        numbers = ((mount_id, device.partition(":")) for mount_id, _, device in mounts)
        return {mount_id: (int(major), int(minor)) for mount_id, (major, _, minor) in numbers}

    @cached_property
    def denied(self) -> int:
        """Count the hidden processes but kernel threads, which have no command, and hold nothing."""
        return sum(bool(self.command(pid, or_name=False)) for pid in self.hidden)

    @cached_property
    def _boot_at(self) -> float:
        return float(self.read("stat").partition("\nbtime ")[2].split()[0])

    def holder(self, pid: int, mode: Mode, *, inherited: bool = False) -> Holder:
        command = self.command(pid) or "not known: it has just ended"
        try:
            user = user_name(int(self.read(f"{pid}/status").partition("\nUid:")[2].split()[1]))
            ticks = int(self.read(f"{pid}/stat").rpartition(")")[2].split()[19])  # the 22nd field: proc(5)
            started_at = self._boot_at + ticks / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return Holder(pid, command, "not known", None, mode, inherited)
        return Holder(pid, command, user, started_at, mode, inherited)

    def command(self, pid: int, *, or_name: bool = True) -> str:
        """Return the command line, cut in its middle; or the name in brackets where there is none."""
        try:
            command = self.read(f"{pid}/cmdline", COMMAND_READ_BYTES).replace("\0", " ").strip()
            if not command and or_name:
                command = f"[{self.read(f'{pid}/comm').strip()}]"
        except OSError:
            return ""
        if len(command) > COMMAND_MAX:
            return f"{command[:COMMAND_HEAD]}…{command[COMMAND_HEAD - COMMAND_MAX + 1 :]}"
        return command
