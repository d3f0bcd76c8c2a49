"""Following a list: asked for again and again, and applied where it has changed.

The list is the truth: once it has changed, what it names is wanted, and all else is deleted, whatever was asked for by
hand. While it has not, nothing is done, so what was asked for by hand meanwhile stands. What cannot be had, or is no
list, or has nothing in it, changes nothing. One that would take away more than the brake allows is held back, as a
whole and before any marker of it, until it is released as deletes are.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final

from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.log import Log
from fsdm.lists.asking import KEEPS, Asking
from fsdm.lists.assignment import Known, ListText
from fsdm.lists.difference import Comparison, place
from fsdm.lists.fetching import sha256_of
from fsdm.lists.last import FollowLock, Held, Last, new_file
from fsdm.model.errors import DataDirectoryError, FsdmError, InvalidInputError, StoppedError, TransferError
from fsdm.model.units import count
from fsdm.reconcile.delete_brake import MANY_BYTES
from fsdm.store.data_dir import check_format
from fsdm.store.filesystem import exists
from fsdm.store.followed import HELD, LIST, path_of
from fsdm.store.markers import look_at

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from fsdm.lists.assignment import Assignment
    from fsdm.lists.fetching import Answer, Fetching, Version
    from fsdm.model.follow import Follow
    from fsdm.model.layout import Layout
    from fsdm.reconcile.delete_brake import Going

logger = Log("fsdm.follow")

SPREAD: Final = 0.25  # of the time between two looks: a fleet does not ask as one
HELD_S: Final = 1.0  # while a list is held back, it is looked so often whether it is released
RETRY_MAX_S: Final = 3600.0


class Follower:
    """Follows one list in a data directory. All but `wake` and `stop` is for one thread.

    `reported` is called after each look, with the sha256 of the list that is applied.
    """

    def __init__(
        self,
        layout: Layout,
        follow: Follow,
        fetching: Fetching,
        *,
        share: float | None,
        node: str | None = None,
        reported: Callable[[str | None], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
        spread: Callable[[], float] = lambda: random.uniform(1 - SPREAD, 1 + SPREAD),  # noqa: S311 not a secret
    ) -> None:
        self._layout, self._follow, self._share = layout, follow, share
        self._asking = Asking(follow.url, node, fetching)
        self._reported, self._clock, self._spread = reported, clock, spread
        self._cancellation = Cancellation()
        self._anew = False
        self._is_applying = False
        asked = hashlib.sha256(f"{follow.url}\n{node}".encode()).hexdigest()
        self.last = Last.read(layout, self._asking.shown, asked)

    def run(self, woken: threading.Event) -> None:
        """Look again and again, until `stop`; `woken` is set to have it look at once, and to end it.

        Raises:
            ReconcilerRunsError: another process follows a list here.
            DataDirectoryError: `follow/` cannot be made, or the data directory has gone.
        """
        with FollowLock(self._layout):
            self.last = Last.read(self._layout, self.last.url, self.last.asked)  # as the one before has left it
            while not self._cancellation.is_set():
                woken.clear()
                anew, self._anew = self._anew, False
                check_format(self._layout)  # raises where the directory has gone
                try:
                    pause_s = self.look(anew=anew)
                    self._reported(self.last.sha256)
                except StoppedError:
                    return
                self._wait(pause_s, woken)

    def _wait(self, seconds: float, woken: threading.Event) -> None:
        until = time.monotonic() + seconds
        while not woken.wait(max(min(until - time.monotonic(), HELD_S if self.last.held_back else math.inf), 0.0)):
            if time.monotonic() >= until or self._is_released():
                return

    def ask_anew(self) -> None:
        """Have the next look compare the list with the disk, though it has not changed. In any thread."""
        self._anew = True

    def stop(self) -> bool:
        """End: what is being fetched is cut. In any thread. Return whether a list is being applied: it ends soon."""
        self._cancellation.set()
        return self._is_applying

    def look(self, *, anew: bool = False) -> float:
        """Look once; return how many seconds to wait before the next look.

        `anew`: compare it with the disk, though it has not changed.

        Raises:
            StoppedError: `stop` was called.
        """
        wait_s = self._follow.every_s * self._spread()
        try:
            self.last = replace(self._look(anew=anew), looked_at=self._clock(), error="", hint="")
            self.last.write(self._layout)
        except StoppedError:
            raise
        except FsdmError as e:
            self._failed(e)
            if isinstance(e, TransferError) and e.retry_after_s is not None:
                wait_s = max(wait_s, min(e.retry_after_s, RETRY_MAX_S))
        return wait_s

    def _failed(self, error: FsdmError) -> None:
        if str(error) != self.last.error:
            hint = f" ({error.hint})" if error.hint else ""
            logger.warning("the list that is followed cannot be applied: %s%s", error, hint)
        self.last = replace(self.last, error=str(error), hint=error.hint)
        with suppress(DataDirectoryError):  # a disk that refuses is what was told
            self.last.write(self._layout)

    def _look(self, *, anew: bool) -> Last:
        last = self.last
        if self._is_released():
            held = path_of(self._layout, HELD)
            with open(held, "rb") as file:
                return self._apply(file, held, ListText(file, held), last.version, meant=True)
        has_list = exists(path_of(self._layout, HELD if last.held_back else LIST))
        known = last.version if last.version.conditions and has_list and not anew else None
        applied = last.sha256 if has_list and not anew and last.knows_its_lines else None
        with new_file(self._layout) as (file, path):
            answer = self._asking.ask(file, known, applied, self._cancellation)
            if answer is None:
                return last
            return self._take(file, path, answer, anew=anew)

    def _take(self, file: IO[bytes], path: str, answer: Answer, *, anew: bool) -> Last:
        """Take in what came: nothing new, or another list."""
        last, held = replace(self.last, version=answer.version), self.last.held_back
        if answer.is_applied or (answer.sha256 == last.bytes_sha256 and last.knows_its_lines and not anew):
            last = replace(last, applied_url=last.url)  # it may have been asked for elsewhere before
            return last.free(self._layout) if held is not None else last
        if held is not None and answer.sha256 == held.bytes_sha256 and exists(path_of(self._layout, HELD)):
            return last
        text = ListText(file, self._asking.shown, answer.tells_its_end)
        return self._apply(file, path, text, answer.version, meant=False)

    def _apply(self, file: IO[bytes], path: str, text: ListText, version: Version, *, meant: bool) -> Last:
        """Compare a list with the disk, and place the markers; or hold it back."""
        self._is_applying = True  # before the first check: what is stopped from now on is seen, or seen to
        try:
            return self._applied(file, path, text, version, meant=meant)
        finally:
            self._is_applying = False

    def _applied(self, file: IO[bytes], path: str, text: ListText, version: Version, *, meant: bool) -> Last:
        layout, last, began_ns = self._layout, self.last, os.fstat(file.fileno()).st_ctime_ns
        comparison, before = Comparison(layout), last.before
        known = Known(last.lines(layout), lambda one: comparison.takes_known(one, before))
        check = self._cancellation.check
        with text.read(None, comparison.take, comparison.takes_plain, known=known, check=check) as assignment:
            check()
            if not len(assignment) and not assignment.says_its_end:
                raise InvalidInputError(f"{text.name}: the list is empty", hint=KEEPS)
            difference, bytes_sha256 = comparison.close(assignment), sha256_of(file)
            why = "" if meant else _braked(comparison.going, assignment, self._share)
            if why:
                held = Held(assignment.sha256, bytes_sha256, self._clock(), why, len(assignment))
                logger.warning("the list that is followed is held back: %s; if it is meant: fsdm release", why)
                return replace(last.hold(layout, path, held), version=version)
            place(layout, difference, assignment, meant=meant, check=check)
            wanted, deleted, chunks = len(difference.wanted), len(difference.deleted), count(len(assignment), "chunk")
            logger.info("list %.12s is applied: %s, %d wanted, %d deleted", assignment.sha256, chunks, wanted, deleted)
            return last.applied(
                layout,
                path,
                sha256=assignment.sha256,
                bytes_sha256=bytes_sha256,
                chunks=len(assignment),
                version=version,
                began_ns=began_ns,
                unproven=tuple(comparison.unproven),
            )

    def _is_released(self) -> bool:
        """Tell whether a list is held back, and deletes were released after that."""
        if self.last.held_back is None:
            return False
        held, released = look_at(path_of(self._layout, HELD)), look_at(self._layout.release)
        return held is not None and released is not None and released.ctime_ns > held.ctime_ns


def _braked(going: Going, assignment: Assignment, share: float | None) -> str:
    """Say why a list is held back; "" where it is not. One chunk that is small is no burst."""
    if not len(assignment) and going.here:
        return f"it is empty, and {count(going.here, 'chunk')} would go"
    if going.chunks <= 1 and going.size_bytes < MANY_BYTES:
        return ""
    return going.too_much(share)
