"""Health of a process that keeps a data directory: whether it is alive, and ready.

*Alive* asks no disk and takes no lock: the heartbeat of the loop answers, also while the disk hangs. What a restart
would not mend does not count: a server that fails, a disk that is full, and a process that stands by are well. The loop
is not where it is stuck, where its thread has ended, or where its passes fail one after the other.

*Ready* looks at the disk, for a second at most: the data directory is open, it is still there, and intents may be
placed in it. Readers of the chunks that are here need no process to be ready.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import FsdmError
from fsdm.store.data_dir import check_format
from fsdm.store.filesystem import Space, read_space

if TYPE_CHECKING:
    from fsdm.manager import DataManager
    from fsdm.model.layout import Layout

LOOK_S: Final = 1.0  # how long a look at the disk may take


@dataclass(frozen=True, slots=True)
class Health:
    """A yes or no, and why, in words without a path, a host or an id."""

    is_well: bool
    why: str


@dataclass(frozen=True, slots=True)
class DiskLook:
    """The file system of a data directory, or the `trouble` why it cannot be used."""

    trouble: str
    space: Space | None = None


STARTING: Final = "starting: the data directory is being opened"


def health(dm: DataManager | None) -> Health:
    """Tell whether the process is alive; `dm` is None until it has opened the data directory."""
    if dm is None:
        return Health(True, STARTING)
    if dm.is_closed:
        return Health(True, "stopping")
    reconciler = dm.reconciler
    if dm.has_lost_its_thread:
        return Health(False, "the thread that watches LOCK has ended: see the log")
    if reconciler is None:
        return Health(True, "standing by: this process does not reconcile")
    if not reconciler.is_running:
        return Health(False, "the reconciler's thread has ended: see the log")
    trouble = reconciler.loop.heartbeat.trouble()
    return Health(not trouble, trouble or "reconciling")


def readiness(dm: DataManager | None, disk: DiskLook | None) -> Health:
    """Tell whether what is asked for can be done; `disk` is None where it has not answered."""
    if dm is None:
        return Health(False, STARTING)
    if dm.is_closed:
        return Health(False, "stopping")
    if disk is None:
        return Health(False, f"the disk has not answered within {LOOK_S:g} s")
    if disk.space is None:
        return Health(False, disk.trouble)
    if disk.space.read_only:
        return Health(False, "the disk is read-only: what is here can be read, and nothing can be asked for")
    return Health(True, "the data directory is open")


def look_at_disk(layout: Layout) -> DiskLook:
    """Look at the data directory and its file system. It may hang with its disk."""
    try:
        check_format(layout)
        space = read_space(layout.root)
    except FsdmError:
        return DiskLook("the data directory is gone, or is none any more")
    except OSError as e:
        return DiskLook(f"the disk refuses: {e.strerror}")
    return DiskLook("", space) if os.access(layout.delete, os.X_OK) else DiskLook("delete/ cannot be searched")
