"""Health of a process that keeps a data directory: whether it is alive, and ready.

*Alive* asks no disk and takes no lock: the heartbeat of the loop answers. What a restart would not mend does not count:
a server that fails, a disk that is full, and a process that stands by are well. *Ready* looks at the disk, for a second
at most: intents may be placed. Readers of the chunks that are here need no process to be ready.
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


STARTING: Final = "starting: the data directory is being opened"
ENDED: Final = "the reconciler has ended: see the log"


def health(dm: DataManager | None) -> Health:
    """Tell whether the process is alive; `dm` is None until it has opened the data directory."""
    if dm is None:
        return Health(True, STARTING)
    if dm.is_closed:
        return Health(True, "stopping")
    reconciler = dm.reconciler
    if has_ended(dm):
        return Health(False, ENDED)
    if reconciler is None:
        return Health(True, "standing by: this process does not reconcile")
    trouble = reconciler.loop.heartbeat.trouble()
    return Health(not trouble, trouble or "reconciling")


def has_ended(dm: DataManager) -> bool:
    """Tell whether the reconciler of this process has ended of itself."""
    reconciler = dm.reconciler
    return dm.error is not None or (reconciler is not None and not reconciler.is_running)


def readiness(dm: DataManager | None, disk: Space | str | None) -> Health:
    """Tell whether what is asked for can be done; `disk` is None where it has not answered."""
    if dm is None:
        return Health(False, STARTING)
    if dm.is_closed:
        return Health(False, "stopping")
    if has_ended(dm):
        return Health(False, ENDED)
    if disk is None:
        return Health(False, f"the disk has not answered within {LOOK_S:g} s")
    if isinstance(disk, str):
        return Health(False, disk)
    if disk.read_only:
        return Health(False, "the disk is read-only: what is here can be read, and nothing can be asked for")
    return Health(True, "the data directory is open")


def look_at_disk(layout: Layout) -> Space | str:
    """Look at a data directory's file system, or say why it cannot be used. It may hang."""
    try:
        check_format(layout)
        space = read_space(layout.root)
    except FsdmError:
        return "the data directory is gone, or is none any more"
    except OSError as e:
        return f"the disk refuses: {e.strerror}"
    return space if os.access(layout.delete, os.X_OK) else "delete/ cannot be searched"
