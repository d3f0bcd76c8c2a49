"""One large file over several connections, where a server gives each less than a disk takes.

A transfer that is slow hands what is missing to several connections, in pieces, taken in their order: so what is here
stays nearly in one piece, with few holes. Whether more connections bring more is tried out for each server, and
remembered for a while. Invariants: a piece is taken for good only where its answer is of the same version and of just
these bytes; nothing is written outside it; no piece's thread outlives `fetch_pieces`.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from fsdm.transfer.file_range import append

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fsdm.transfer.file_range import Data

SLOW_BYTES_PER_S: Final = 48e6  # a disk takes more than that
ENOUGH_BYTES_PER_S: Final = 300e6  # from one server, over all connections to it: more of them bring no more
LOOK_S: Final = 0.04
LEAST_BYTES: Final = 2 << 20  # less is not worth it
PIECE_MIN_BYTES: Final = 512 << 10
PIECE_MAX_BYTES: Final = 16 << 20
WARM_S: Final = 0.08  # connections that begin are slow
TRIAL_S: Final = 0.5
GAIN: Final = 1.25  # several connections are to bring so many times as much, or else it is left at one
REMEMBERED_S: Final = 300.0


class OtherVersionError(Exception):
    """A piece did not come as it was asked for: the file is to be fetched over one connection."""


class Gain:
    """The gain of several connections to one server; shared by all threads.

    It knows how fast the server was lately, over all connections to it, and for a while what a trial has found.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._marks: deque[tuple[float, int]] = deque(maxlen=64)  # when, and bytes by then
        self._total = 0
        self._gains: bool | None = None
        self._until = 0.0  # that is remembered
        self._tried_at: float | None = None
        self._before = 0.0

    def took(self, count: int) -> None:
        """So many bytes have come from there."""
        with self._mutex:
            now = self._clock()
            self._total += count
            if not self._marks or now - self._marks[-1][0] >= LOOK_S / 2:
                self._marks.append((now, self._total))

    def may_split(self) -> bool:
        """Tell whether a slow file is to come over several connections: they gain, or it is a trial."""
        with self._mutex:
            now = self._clock()
            if self._gains is not None and now < self._until:
                return self._gains
            if self._tried_at is None or now - self._tried_at > 4 * TRIAL_S:
                rate = self._rate(WARM_S, now)
                is_warm = self._marks and now - self._marks[0][0] >= WARM_S
                if not is_warm or rate >= ENOUGH_BYTES_PER_S:
                    return False
                self._gains, self._tried_at, self._before = None, now, rate
            return True

    def go_on(self) -> bool:
        """Tell whether several connections are still to be used: they are not found to gain nothing."""
        with self._mutex:
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at >= TRIAL_S:
                self._remember(self._rate(TRIAL_S, now) >= GAIN * self._before)
            return self._gains is not False

    def do_not_fit(self) -> None:
        """Remember for a while that it takes one connection, or that its pieces do not fit."""
        with self._mutex:
            self._remember(False)

    def broke(self) -> None:
        """A piece from there did not come: a trial that ends so has gained nothing."""
        with self._mutex:
            if self._gains is None:
                self._remember(False)

    def _remember(self, gains: bool) -> None:
        self._gains, self._until, self._tried_at = gains, self._clock() + REMEMBERED_S, None

    def _rate(self, span_s: float, now: float) -> float:
        """Bytes a second in the last `span_s` seconds, or since bytes have come in them."""
        if not self._marks:
            return 0.0
        at = bisect_left(self._marks, now - span_s, key=lambda mark: mark[0])
        since, bytes_by_then = self._marks[min(at, len(self._marks) - 1)]
        return (self._total - bytes_by_then) / max(now - since, LOOK_S / 2)


class Pace:
    """Tells whether one connection has just been slow."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since, self._bytes = clock(), 0

    def is_slow(self, size: int) -> bool:
        """Tell whether less came than a disk takes since the last look; `size` is what is here."""
        now = self._clock()
        if not self._bytes:
            self._since, self._bytes = now, size  # the first bytes: what came before was the server's thinking
            return False
        elapsed_s = now - self._since
        if elapsed_s < LOOK_S:
            return False
        slow = size - self._bytes < SLOW_BYTES_PER_S * elapsed_s
        self._since, self._bytes = now, size
        return slow


Piece = tuple[int, int]  # from, and to before


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join pieces that touch, in the file's order; the first one is what is in line, and may be empty."""
    runs: list[Piece] = [(0, 0)]
    for start, end in sorted(pieces):
        if start <= runs[-1][1]:
            runs[-1] = runs[-1][0], max(runs[-1][1], end)
        else:
            runs.append((start, end))
    return runs


class Slice:
    """A piece of a file; its bytes are hashed later, from the page cache."""

    def __init__(self, path: str, piece: Piece) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.size = 0  # of what came, which may be too much
        self._start, self._end = piece
        os.lseek(self.fd, self._start, os.SEEK_SET)

    @property
    def here(self) -> Piece:
        """The part of the piece that has come."""
        return self._start, min(self._start + self.size, self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def put(self, data: Data) -> None:
        """See `Sink.put`."""
        append(self.fd, data[: max(self._end - self._start - self.size, 0)])
        self.size += len(data)


class Pieces:
    """The missing pieces of one file of `total` bytes, for all its threads.

    The first `start` bytes are here, and the `extents` behind a hole.
    """

    def __init__(self, start: int, total: int, workers: int, extents: Sequence[Piece] = ()) -> None:
        self._mutex = threading.Lock()
        self._here = joined([(0, start), *extents])
        holes = [(end, after[0]) for (_, end), after in pairwise([*self._here, (total, total)])]
        missing = sum(end - begin for begin, end in holes)
        size = min(max(missing // (4 * workers), PIECE_MIN_BYTES), PIECE_MAX_BYTES)
        self._waiting: deque[Piece] = deque(
            (at, min(at + size, end)) for begin, end in holes for at in range(begin, end, size)
        )
        self.error: BaseException | None = None

    def take(self) -> Piece | None:
        """The first that nobody has, or None where there is none or another thread has failed."""
        with self._mutex:
            return self._waiting.popleft() if self._waiting and self.error is None else None

    def give_back(self, piece: Piece) -> None:
        """A piece did not come, or not all of it: the rest is left to another thread."""
        with self._mutex:
            start = next((end for begin, end in self._here if begin <= piece[0] <= end), piece[0])
            if start < piece[1]:
                self._waiting.appendleft((start, piece[1]))

    def came(self, piece: Piece) -> None:
        """All of this (part of a) piece is in the file."""
        with self._mutex:
            self._here = joined([*self._here, piece])

    def failed(self, error: BaseException) -> None:
        """A piece did not come: no further one is begun."""
        with self._mutex:
            self.error = self.error or error

    def here(self) -> list[Piece]:
        """Return the parts that are in the file: up to the first hole, and behind each; a new list when more came."""
        with self._mutex:
            return self._here


class Helpers:
    """The bound on connections beside the first ones, over all files."""

    def __init__(self, per_file: int, in_all: int) -> None:
        self.per_file = per_file
        self._free = threading.Semaphore(in_all)

    def fetch_pieces(self, pieces: Pieces, work: Callable[[], None], help_out: Callable[[], None]) -> None:
        """Let this thread `work` and up to `per_file` less one others `help_out` to the end.

        Raises:
            What the first that failed has raised.
        """

        def helper() -> None:
            try:
                _guarded(pieces, help_out)
            finally:
                self._free.release()

        threads: list[threading.Thread] = []
        try:
            while len(threads) < self.per_file - 1 and self._free.acquire(blocking=False):
                try:
                    thread = threading.Thread(target=helper, name="fsdm-range", daemon=True)
                    thread.start()
                except RuntimeError:  # no more threads: those that are there will do
                    self._free.release()
                    break
                threads.append(thread)
            _guarded(pieces, work)
        finally:
            for thread in threads:
                thread.join()
        if pieces.error is not None:
            raise pieces.error


def _guarded(pieces: Pieces, work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as e:  # whatever it is, the thread that joins them raises it
        pieces.failed(e)
