"""Reading the bytes of chunks for the reconciler: on request, and by a scrub."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.concurrency.rate_limit import Rate
from fsdm.model.errors import StoppedError
from fsdm.model.layout import READY
from fsdm.model.state import Found
from fsdm.store.markers import look_at
from fsdm.store.refs import Refs
from fsdm.store.verdict import write_verdict
from fsdm.verify.rehash import Pace, check_may_go_on, rehash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import Marker
    from fsdm.store.filesystem import FileSystem

RATE_MAX: Final = 100e6  # bytes a second: readers are to notice nothing
TOLD: Final = 3  # so many files are named

logger = Log("fsdm")


@dataclass(frozen=True, slots=True)
class Checked:
    """A chunk that was read to its end, or could not be; `verify` is the marker that asked for it, if one did."""

    place: Place
    verify: Marker | None
    read: bool = False
    found: Found | None = None


class BackgroundCheck:
    """The reading of chunks for one reconciler. `wake` is called when a chunk has been checked."""

    def __init__(self, layout: Layout, *, fs: FileSystem, workers: Workers, wake: Callable[[], None]) -> None:
        self._layout = layout
        self._fs = fs
        self._workers = workers
        self._wake = wake
        self._rate = Rate(RATE_MAX)
        self._refs = Refs(layout)
        self._checked: deque[Checked] = deque()
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def ask(self, place: Place, verify: Marker) -> None:
        """Have a chunk read soon, as a marker asks for."""
        self._workers.submit(partial(self.check, place, verify=verify))

    def checked(self) -> Iterator[Checked]:
        """Yield the chunks that have been checked since the last call."""
        while self._checked:
            yield self._checked.popleft()

    def check(self, place: Place, rate: Rate | None = None, verify: Marker | None = None) -> None:
        """Read a chunk, in any thread; `checked` yields what came of it."""
        checked = Checked(place, verify)
        try:
            checked = self._check(checked, rate or self._rate)
        except OSError as e:
            logger.warning("cannot read %s: %s", self._layout.path(place), e)
        except StoppedError:
            pass
        finally:
            self._checked.append(checked)
            self._wake()

    def _check(self, asked: Checked, rate: Rate) -> Checked:
        place, path = asked.place, self._layout.path(asked.place)
        ref = self._refs.take(place)
        if ref is None:
            return asked
        with ref:
            ready = look_at(f"{path}/{READY}")
            if ready is None:  # it was taken out of service meanwhile
                return asked
            go_on = partial(check_may_go_on, self._layout, place, self._stop)
            wrong = rehash(path, place, Pace(rate, go_on, wait=self._stop.wait))
            if not wrong:
                self._note(path)
                return replace(asked, read=True)
        why = "; ".join(map(str, wrong[:TOLD])) + f"; and {len(wrong) - TOLD} more" * (len(wrong) > TOLD)
        return replace(asked, read=True, found=Found(why, ready))

    def _note(self, directory: str) -> None:
        try:
            write_verdict(self._fs, directory)
        except OSError as e:  # it will be read again the sooner
            logger.warning("cannot note in %s that its bytes are right: %s", directory, e)
