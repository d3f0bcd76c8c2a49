"""The renewal of `known.names` (`store.known_names`): a thread beside the loop, which looks at one mtime.

Invariants: few registrations have no such file, for they are read in no time; and making it takes at most a SHARE of
the time, however often `known/` changes.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.index.process import run
from fsdm.model.errors import IndexerError, StoppedError
from fsdm.store.known_names import KnownNames

if TYPE_CHECKING:
    from fsdm.model.layout import Layout

logger = Log("fsdm")

LOOK_S: Final = 10.0
SMALL_BYTES: Final = 1 << 16  # of the directory: about a thousand entries on ext4 and xfs
SHARE: Final = 50  # a run is followed by so many times its own duration without one
TIMEOUT_S: Final = 3600.0


class KnownNaming:
    """Keeps the names of one data directory, from `start` to `stop`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = ""

    def start(self) -> None:
        thread = threading.Thread(target=self._run, name="fsdm-known", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self, timeout_s: float | None) -> bool:
        """Kill the process that makes them, if one does; tell whether that has ended in time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def is_due(self) -> bool:
        """Tell whether many are registered, and others than the file names. May raise OSError."""
        known = os.stat(self._layout.known)
        if known.st_size < SMALL_BYTES:
            return False
        names = KnownNames.open(self._layout.known_names)
        return names is None or names.mtime_ns != known.st_mtime_ns

    def make(self) -> None:
        """Have them made.

        Raises:
            IndexerError: they could not be.
            StoppedError: `stop` was called meanwhile.
        """
        run("fsdm.index.known", json.dumps({"root": self._layout.root}).encode(), TIMEOUT_S, self._go_on)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise StoppedError("the reconciler stops")

    def _run(self) -> None:
        rest_s = LOOK_S
        while not self._stopping.wait(rest_s):
            began, error = time.monotonic(), ""
            try:
                if self.is_due():
                    self.make()
            except StoppedError:
                return
            except (OSError, IndexerError) as e:  # blocks are found without it, more slowly
                error = str(e)
            if error not in {"", self._told}:
                logger.warning("the names of registered chunks cannot be written: %s", error)
            self._told = error
            rest_s = max(LOOK_S, (time.monotonic() - began) * SHARE)
