"""Reads the bytes of chunks for the reconciler, and answers what is wrong with them; nothing is decided here.

It believes nobody who asks: it reads for itself. A chunk is held by a ref while it is read, and let go of at once when
it is to be deleted; then there is no answer. When the bytes of a chunk were seen to be right stands on the disk, as the
mtime of VERIFIED beside its READY.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.rate_limit import Rate
from fsdm.model.errors import StoppedError
from fsdm.model.layout import READY, VERIFIED
from fsdm.model.state import Found
from fsdm.store.markers import look_at
from fsdm.store.refs import Refs
from fsdm.verify.rehash import Pace, is_leaving, rehash

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import Marker
    from fsdm.store.filesystem import FileSystem

RATE_MAX: Final = 100e6  # bytes a second: readers are to notice nothing
TOLD: Final = 3  # so many files are named

logger = logging.getLogger("fsdm")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a chunk's bytes are like: `found` is what is wrong. Without `read` they could not be read to their end.

    `verify` is the marker that asked for it, if one did.
    """

    place: Place
    verify: Marker | None
    read: bool = False
    found: Found | None = None


class Inspector:
    """Inspects chunks, in any thread, and calls `answer` for each; `stop` ends all of that at once."""

    def __init__(self, layout: Layout, *, fs: FileSystem, answer: Callable[[Answer], None]) -> None:
        self._layout = layout
        self._fs = fs
        self._answer = answer
        self._rate = Rate(RATE_MAX)
        self._refs = Refs(layout)
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def inspect(self, place: Place, rate: Rate | None = None, verify: Marker | None = None) -> None:
        """Read a chunk's bytes."""
        answer = Answer(place, verify)
        try:
            answer = self._inspect(place, verify, rate or self._rate)
        except OSError as e:
            logger.warning("cannot read %s: %s", self._layout.path(place), e)
        except StoppedError:
            pass
        finally:
            self._answer(answer)

    def _inspect(self, place: Place, verify: Marker | None, rate: Rate) -> Answer:
        path = self._layout.path(place)
        ref = self._refs.take(place)
        if ref is None:
            return Answer(place, verify)
        with ref:
            ready = look_at(f"{path}/{READY}")
            wrong = rehash(path, place, Pace(rate, lambda: self._check(place), wait=self._stop.wait))
            if ready is None:  # it was taken out of service meanwhile
                return Answer(place, verify)
            if not wrong:
                self._note(f"{path}/{VERIFIED}")
                return Answer(place, verify, read=True)
        why = "; ".join(map(str, wrong[:TOLD])) + f"; and {len(wrong) - TOLD} more" * (len(wrong) > TOLD)
        return Answer(place, verify, read=True, found=Found(why, ready))

    def _note(self, path: str) -> None:
        try:
            self._fs.touch(path)
        except OSError as e:  # it will be read again the sooner
            logger.warning("cannot note in %s that the bytes are right: %s", path, e)

    def _check(self, place: Place) -> None:
        if self._stop.is_set() or is_leaving(self._layout, place):
            raise StoppedError(f"the inspection of {place.chunk_id} was stopped")


def checked_at(layout: Layout, place: Place) -> float | None:
    """When a chunk's bytes were last known to be right, seconds since the epoch: since they came, or were read.

    None where there is no READY.
    """
    path = layout.path(place)
    try:
        came = os.lstat(f"{path}/{READY}").st_mtime
    except OSError:
        return None
    return max(came, verified_at(layout, place) or came)


def verified_at(layout: Layout, place: Place) -> float | None:
    """When a chunk's bytes were last read, or None where they have not been."""
    try:
        return os.lstat(f"{layout.path(place)}/{VERIFIED}").st_mtime
    except OSError:
        return None
