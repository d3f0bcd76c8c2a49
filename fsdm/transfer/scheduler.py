"""The slots for connections: bounded, shared fairly between chunks, some for small files.

Small work is taken first, and a few slots are for nothing else: so a small file never waits for a large one to end. Of
what waits, the chunk with the fewest running comes first, then the one that has waited longest; none has more than half
of the slots: so a chunk whose server has gone silent leaves room for the others. Work for a host that has `per_host`
running is passed over until one of them ends. What has been submitted is always run, also at the end: it looks for
itself whether it has been stopped.

Work that waits for a server that has not answered yet lends its slot to other work, and has one again before it goes on
(as ForkJoinPool compensates for a ManagedBlocker). Invariants: at most `size` pieces run whose slots are not lent, and
at most `lent_max` whose slots are; where a slot is free, nothing waits that may have it.
"""

from __future__ import annotations

import resource
import threading
import time
from bisect import bisect_left, insort
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.turn import rest
from fsdm.concurrency.workers import Workers
from fsdm.model.errors import InvalidInputError
from fsdm.transfer.http.target import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from fsdm.concurrency.cancellation import Cancellation

    Work = Callable[[], None]
    Group = Callable[[str], tuple[str, int | None]]

LENT_MAX: Final = 256  # each has two threads, and with TLS 1 MB
LENT_FDS: Final = 4  # of each: a socket, two of libcurl's own, a file
OTHER_FDS: Final = 256


def lent_max() -> int:
    """Return how many slots may be lent at once: as the descriptors of this process allow for."""
    fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LENT_MAX if fds == resource.RLIM_INFINITY else min(max((fds - OTHER_FDS) // LENT_FDS, 1), LENT_MAX)


def _by_origin(url: str) -> tuple[str, int | None]:
    return origin_of(url), None


class Scheduler:
    """`size` slots, `reserved` of them for small work, and daemon threads, started as they are needed.

    At most `per_host` pieces of work for one host run at once; None is no bound. `group` names the host of a URL, and
    its own bound, if it has one. `on_lent` is called when a slot was lent.
    """

    def __init__(
        self, name: str, size: int, reserved: int, per_host: int | None = None, group: Group = _by_origin
    ) -> None:
        if per_host is not None and per_host < 1:
            raise InvalidInputError(f"must be at least 1, it is {per_host}", field="per_host")
        self.group = group
        self._size = size
        reserved = min(reserved, size - 1)
        self.open_to_large = size - reserved
        self._free = {False: self.open_to_large, True: reserved}  # slots; reserved or not
        self._lent_max = lent_max()
        self._workers = Workers(name, size)  # and one for each slot that is lent
        self._here: dict[int, _Piece] = {}  # by thread
        self._lent: Counter[str] = Counter()  # by chunk
        self._lenders: Counter[str] = Counter()  # by server
        self._returning: list[_Piece] = []  # those that wait to have a slot again
        self.on_lent: Callable[[], None] = lambda: None
        self._per_host = per_host
        self._share = max(1, size // 2)  # of large work, for one chunk
        self._submitted = 0
        self._small = _Waiting()
        self._large = _Waiting()
        self._running: Counter[str] = Counter()  # by chunk
        self._busy: Counter[str] = Counter()  # by host
        self._full: set[str] = set()  # hosts
        self._mutex = threading.Lock()
        self._at_rest = threading.Condition(self._mutex)
        self._closed = False

    def submit(
        self, chunk_id: str, work: Work, *, small: bool, host: str = "", most: int | None = None, here: bool = False
    ) -> None:
        """Run `work`, which raises nothing, once there is a slot for it; "" is a host without a bound.

        `most` is the bound of that host, in place of `per_host`. With `here` it runs in this thread where there is a
        slot now; else, and without, in another one.

        Where there can be no thread for it, after the close or because the system gives none, it runs in this one.
        """
        most = self._per_host if most is None else most
        with self._mutex:
            is_over, pieces = self._closed, list[_Piece]()
            if not is_over:
                self._submitted += 1
                piece = _Piece(self._submitted, chunk_id, host if most is not None else "", most, work, host, small)
                (self._small if small else self._large).put(piece, self._running[chunk_id])
                pieces = self._dispatch(piece if here else None)
        if is_over:
            work()
        self._run(pieces, goes_on=False)

    def close(self, timeout_s: float | None) -> bool:
        """Run what is left and end; whether all of it ended in time."""
        deadline = time.monotonic() + (timeout_s or 0.0)
        with self._mutex:
            self._closed = True
            while self._returning:
                self._go_on(self._returning.pop(), reserved=False)
            ended = self._at_rest.wait_for(self._is_at_rest, timeout_s)
        return ended and self._workers.close(None if timeout_s is None else max(deadline - time.monotonic(), 0.0))

    def _is_at_rest(self) -> bool:
        return not self._running and not self._small and not self._large

    # ------------------------------------------------------------------------------------------------------ lent slots

    def lend(self) -> None:
        """Let other work have the slot of what runs in this thread, unless as many are lent as may be."""
        piece = self._here.get(threading.get_ident())
        if piece is None or piece.back is not None:
            return
        with self._mutex:
            if self._lent.total() >= self._lent_max:
                return
            piece.back = threading.Event()
            self._lent[piece.chunk_id] += 1
            self._lenders[piece.server] += 1
            self._workers.resize(self._size + self._lent.total())
            self._vacate(piece.reserved)
            pieces = self._dispatch()
        self.on_lent()
        self._run(pieces, goes_on=False)

    def reclaim(self, stop: Cancellation) -> None:
        """Wait until what runs in this thread has a slot; no new work is taken before. Raises StoppedError."""
        piece = self._here.get(threading.get_ident())
        if piece is None or (back := piece.back) is None:
            return
        with self._mutex:
            reserved = self._free_slot(small=piece.small)
            if reserved is None and not self._closed:
                self._returning.append(piece)
            else:
                self._go_on(piece, reserved=reserved or False)
        try:
            stop.wait(threading.TIMEOUT_MAX, back)
        finally:
            with self._mutex:
                if piece.back is not None:
                    self._returning.remove(piece)

    @property
    def lent(self) -> int:
        """Return how many slots are lent."""
        with self._mutex:
            return self._lent.total()

    def has_lent(self, chunk_id: str) -> bool:
        """Tell whether what runs of a chunk has no slot: it waits for servers that have not answered yet."""
        return 0 < self._lent.get(chunk_id, 0) == self._running.get(chunk_id, 0)

    def waits_for(self, urls: Iterable[str]) -> bool:
        """Tell whether a slot is lent for the server of one of these URLs."""
        lenders = self._lenders
        return any(self.group(url)[0] in lenders for url in urls)

    def _vacate(self, reserved: bool) -> None:
        """Set a slot free, or give it to the one that has waited longest to have one again."""
        self._free[reserved] += 1
        piece = next((piece for piece in self._returning if piece.small or not reserved), None)
        if piece is not None:
            self._returning.remove(piece)
            self._go_on(piece, reserved=reserved)

    def _go_on(self, piece: _Piece, *, reserved: bool) -> None:
        """Give a slot to a piece that has lent its own."""
        self._free[reserved] -= 1
        piece.reserved = reserved
        self._give_back(piece)

    def _give_back(self, piece: _Piece) -> None:
        if piece.back is not None:
            piece.back.set()
            piece.back = None
            self._lent -= Counter((piece.chunk_id,))  # without what is 0 then
            self._lenders -= Counter((piece.server,))
            self._workers.resize(self._size + self._lent.total())

    # ----------------------------------------------------------------------------------------------------------- slots

    def _run(self, pieces: list[_Piece], *, goes_on: bool = True) -> None:
        """Run pieces that have slots in this thread and, where it `goes_on`, what comes next."""
        thread, waiting = threading.get_ident(), deque(pieces)
        outer = self._here.get(thread)
        while waiting:
            piece = self._here[thread] = waiting.popleft()
            try:
                piece.work()
            finally:
                self._here.pop(thread)
                with self._mutex:
                    waiting += self._end(piece, goes_on=goes_on)
            rest()
        if outer is not None:
            self._here[thread] = outer

    def _end(self, piece: _Piece, *, goes_on: bool) -> list[_Piece]:
        """Count a piece as ended; return those that are to run in this thread now."""
        self._count(piece, -1)
        if piece.back is None:
            self._vacate(piece.reserved)
        else:
            self._give_back(piece)
        following = self._take() if goes_on else None
        pieces = ([] if following is None else [following]) + self._dispatch()
        if self._closed and self._is_at_rest():
            self._at_rest.notify_all()
        return pieces

    def _dispatch(self, own: _Piece | None = None) -> list[_Piece]:
        """Have threads run all that there are slots for; return `own`, if that is among it, for this one.

        Where there is no thread at all, all of it is for this one.
        """
        pieces = []
        while (piece := self._take()) is not None:
            if piece is own or not self._workers.offer(partial(self._run, [piece])):
                pieces.append(piece)
        return pieces

    def _take(self) -> _Piece | None:
        """Take the next piece that there is a slot for, and its slot."""
        piece, reserved = None, self._free_slot(small=True)
        if reserved is not None:
            piece = self._small.take(self._size, self._full)
        if piece is None and self._free[False] > 0:
            piece, reserved = self._large.take(self._share, self._full), False
        if piece is None or reserved is None:
            return None
        piece.reserved = reserved
        self._free[reserved] -= 1
        self._count(piece, 1)
        return piece

    def _free_slot(self, *, small: bool) -> bool | None:
        """The kind of a free slot for such work, reserved first; None where there is none."""
        return next((kind for kind in ((True, False) if small else (False,)) if self._free[kind] > 0), None)

    def _count(self, piece: _Piece, step: int) -> None:
        """One more, or one less, that runs."""
        chunk_id, host = piece.chunk_id, piece.host
        running = self._running[chunk_id] = self._running[chunk_id] + step
        if not running:
            del self._running[chunk_id]
        self._small.moved(chunk_id, running)
        self._large.moved(chunk_id, running)
        if not host:
            return
        busy = self._busy[host] = self._busy[host] + step
        if not busy:
            del self._busy[host]
        if piece.most is not None and busy >= piece.most:
            self._full.add(host)
        else:
            self._full.discard(host)


@dataclass(eq=False, slots=True)
class _Piece:
    number: int
    chunk_id: str
    host: str
    most: int | None
    work: Work
    server: str = ""  # as `host`, also without a bound
    small: bool = False
    reserved: bool = False  # … is the slot that it has, or has lent
    back: threading.Event | None = None  # while its slot is lent: it has one again


_Turn = tuple[int, int, int, _Piece]  # how many of its chunk run, since when the chunk waits, the number, and its piece


@dataclass(slots=True)
class _Chunk:
    """A chunk of which something waits; `since` is its first piece's number."""

    since: int
    running: int
    queues: dict[str, deque[_Piece]] = field(default_factory=dict)  # by host

    def turn(self, host: str) -> _Turn:
        first = self.queues[host][0]
        return self.running, self.since, first.number, first


class _Waiting:
    """The pieces of work that wait; for each host the chunks in the order of their turns.

    A take costs what there are hosts, not what waits (a sorted list of 10,000 is searched and moved in microseconds).
    """

    def __init__(self) -> None:
        self._chunks: dict[str, _Chunk] = {}
        self._turns: dict[str, list[_Turn]] = {}  # by host; sorted, none empty

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def put(self, piece: _Piece, running: int) -> None:
        """Add a piece, of whose chunk so many run."""
        chunk = self._chunks.get(piece.chunk_id)
        if chunk is None:
            chunk = self._chunks[piece.chunk_id] = _Chunk(piece.number, running)
        queue = chunk.queues.setdefault(piece.host, deque())
        queue.append(piece)
        if len(queue) == 1:
            insort(self._turns.setdefault(piece.host, []), chunk.turn(piece.host))

    def take(self, share: int, full: Container[str]) -> _Piece | None:
        """Take the next piece for a host that is not full, of whose chunk fewer than `share` run."""
        turn = min((turns[0] for host, turns in self._turns.items() if host not in full), default=None)
        if turn is None or turn[0] >= share:
            return None
        piece = turn[-1]
        chunk, turns = self._chunks[piece.chunk_id], self._turns[piece.host]
        del turns[0]
        queue = chunk.queues[piece.host]
        queue.popleft()
        if queue:
            insort(turns, chunk.turn(piece.host))
        else:
            del chunk.queues[piece.host]
        if not turns:
            del self._turns[piece.host]
        if not chunk.queues:
            del self._chunks[piece.chunk_id]
        return piece

    def moved(self, chunk_id: str, running: int) -> None:
        """Of a chunk so many run now."""
        chunk = self._chunks.get(chunk_id)
        if chunk is None:
            return
        old = [(self._turns[host], chunk.turn(host)) for host in chunk.queues]
        chunk.running = running
        for (turns, turn), host in zip(old, chunk.queues, strict=True):
            del turns[bisect_left(turns, turn)]
            insort(turns, chunk.turn(host))
