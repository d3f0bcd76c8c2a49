"""Lasting failures: those that keep an intent from being carried out until somebody mends it.

Invariant: a failure counts only while it speaks of the marker that stands, and before its next attempt is due. What was
mended, touched or asked for anew is tried again, so it may pass.
"""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import ChunkFailedError
from fsdm.model.layout import WANT_MAX_BYTES
from fsdm.model.state import ChunkState, may_repeat
from fsdm.model.units import count, first_few
from fsdm.status.chunk_status import NO_INTENT, stamp_of
from fsdm.store.json_files import read_failure
from fsdm.store.markers import look_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsdm.model.documents import Failure, MarkerStamp
    from fsdm.model.layout import Layout
    from fsdm.model.state import Marker
    from fsdm.status.chunk_status import Stamp

HINT: Final = "to wait until it is mended: --keep-waiting, keep_waiting=True"


class LastingFailures:
    """The lasting failures of one data directory; each document is read once a change. For one thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._read: dict[str, tuple[Stamp, Failure | None]] = {}
        self._may_pass = ""  # the first id that could pass at the last look: mostly it still can

    def check(self, chunk_ids: Sequence[str]) -> None:
        """See that one of these ids may still pass by itself, or that there are none.

        Raises:
            ChunkFailedError: none may.
        """
        if failures := self.of_all(chunk_ids):
            first, told = failures[0], first_few(f"{failure.id[:12]} ({failure.error})" for failure in failures)
            hint = "; ".join(
                filter(None, (first.hint, f"fsdm explain -d {shlex.quote(self._layout.root)} {first.id}", HINT))
            )
            said = f"{count(len(failures), 'intent')} cannot be carried out: {told}"
            raise ChunkFailedError(said, failures=failures, hint=hint)

    def of_all(self, chunk_ids: Sequence[str]) -> list[Failure]:
        """Return the failure of each of these ids; none at all where one of them may pass by itself."""
        if self._may_pass in chunk_ids and self._of(self._may_pass) is None:
            return []
        failures = []
        for chunk_id in chunk_ids:
            failure = self._of(chunk_id)
            if failure is None:
                self._may_pass = chunk_id
                return []
            failures.append(failure)
        return failures

    def _of(self, chunk_id: str) -> Failure | None:
        stamp = stamp_of(self._layout.failed_of(chunk_id))
        if stamp is None:
            return None
        before, failure = self._read.get(chunk_id, (None, None))
        if before != stamp:
            failure = read_failure(self._layout, ChunkState(chunk_id, failed=True))
            self._read[chunk_id] = stamp, failure
        want = look_at(self._layout.want_marker(chunk_id), limit=WANT_MAX_BYTES)
        delete = look_at(self._layout.delete_marker(chunk_id))
        acquire = look_at(self._layout.acquire_marker(chunk_id)) if not (want or delete) else None
        if failure is None or not lasts(failure, want, delete, time.time(), acquire):
            return None
        known = failure.known if acquire else None  # registered anew, it is tried anew
        return failure if known is None or _is(known, self._layout.known_marker(chunk_id)) else None


def _is(stamp: MarkerStamp, path: str) -> bool:
    return stamp_of(path) == (stamp.ino, stamp.mtime_ns, stamp.size)


def lasts(
    failure: Failure, want: Marker | None, delete: Marker | None, now: float, acquire: Marker | None = None
) -> bool:
    """Tell whether a failure keeps these markers from being carried out until somebody mends it. Pure."""
    marker, said = delete or want or acquire, failure.marker
    if marker is None or said is None or (want and delete and not delete.fault):  # of two, one is about to go
        return False
    identity = (said.ino, said.mtime_ns, said.size)
    if failure.kind == "damaged":  # its want has come back as a copy
        identity = (marker.ino, *identity[1:])
    if marker.identity != identity or may_repeat(marker.mtime_ns, failure.last_at):
        return False  # a coarse time may be that of a newer marker, too
    if failure.kind in NO_INTENT or failure.given_up:
        return True
    return not failure.transient and failure.next_attempt_at is not None and now < failure.next_attempt_at
