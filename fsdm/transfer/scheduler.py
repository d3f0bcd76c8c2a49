"""The connections' threads: bounded, shared fairly between chunks, some for small files.

Small work is taken first, and a few threads take nothing else: so a small file never waits for a large one to end. Of
what waits, the chunk with the fewest running comes first, then the one that has waited longest; none has more than half
of the threads: so a chunk whose server has gone silent leaves room for the others. Work for a host that has `per_host`
running is passed over until one of them ends. What has been submitted is always run, also at the end: it looks for
itself whether it has been stopped.

Work that waits for a server that has not answered yet lends its slot to other work, and has one again before it goes on
(as ForkJoinPool compensates for a ManagedBlocker). Invariant: at most `size` pieces run whose slots are not lent, and
at most `lent_max` whose slots are.
"""

from __future__ import annotations

import resource
import threading
from bisect import bisect_left, insort
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.concurrency.workers import join_all
from fsdm.model.errors import InvalidInputError
from fsdm.transfer.http.target import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from fsdm.concurrency.cancellation import Cancellation

    Work = Callable[[], None]
    Group = Callable[[str], tuple[str, int | None]]

logger = Log(__name__)

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
    """`size` daemon threads, `reserved` of them for small work; started as they are needed.

    At most `per_host` pieces of work for one host run at once; None is no bound. `group` names the host of a URL, and
    its own bound, if it has one. `on_lent` is called when a slot was lent.
    """

    def __init__(
        self, name: str, size: int, reserved: int, per_host: int | None = None, group: Group = _by_origin
    ) -> None:
        if per_host is not None and per_host < 1:
            raise InvalidInputError(f"must be at least 1, it is {per_host}", field="per_host")
        self.group = group
        self._name = name
        self._size = size
        self._reserved = min(reserved, size - 1)
        self.open_to_large = size - self._reserved
        self._free = {False: self.open_to_large, True: self._reserved}  # slots without a thread; reserved or not
        self._started = 0
        self._here: dict[int, _Piece] = {}  # by thread
        self._lent: Counter[str] = Counter()  # by chunk
        self._lenders: Counter[str] = Counter()  # by server
        self._lent_max = lent_max()
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
        self._idle = {reserved: threading.Condition(self._mutex) for reserved in (False, True)}
        self._threads: list[threading.Thread] = []
        self._short = False  # of threads: the system gives no more
        self._closed = False

    def submit(self, chunk_id: str, work: Work, *, small: bool, host: str = "", most: int | None = None) -> None:
        """Run `work`, which raises nothing, once a thread is free; "" is a host without a bound.

        `most` is the bound of that host, in place of `per_host`.

        Where there can be no thread for it, after the close or because the system gives none, it runs in this one.
        """
        with self._mutex:
            if not self._closed:
                self._start_thread()
            run_here = self._closed or not self._threads
            if not run_here:
                self._submitted += 1
                most = self._per_host if most is None else most
                piece = _Piece(self._submitted, chunk_id, host if most is not None else "", most, work, host, small)
                (self._small if small else self._large).put(piece, self._running[chunk_id])
                self._call()
        if run_here:
            work()

    def _start_thread(self) -> None:
        # the reserved ones come last: until there is much to do, every thread takes everything
        reserved = not self._free[False]
        if not self._free[reserved]:
            return
        name = f"{self._name}-{self._started}"
        thread = threading.Thread(target=self._run, args=(reserved,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as e:  # can't start new thread: a limit of the system, which may pass
            if not self._short:
                logger.warning("%s goes on with %d threads of %d: %s", self._name, len(self._threads), self._size, e)
            self._short = True
            return
        self._short = False
        self._started += 1
        self._free[reserved] -= 1
        self._threads.append(thread)

    def close(self, timeout_s: float | None) -> bool:
        """Run what is left and end; whether all of it ended in time."""
        with self._mutex:
            self._closed = True
            self._call()
            while self._returning:
                self._give_back(self._returning.pop())
            threads = [*self._threads]
        return join_all(threads, timeout_s)

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
            self._vacate(piece.reserved)
        self.on_lent()

    def reclaim(self, stop: Cancellation) -> None:
        """Wait until what runs in this thread has a slot; no new work is taken before. Raises StoppedError."""
        piece = self._here.get(threading.get_ident())
        if piece is None or (back := piece.back) is None:
            return
        with self._mutex:
            kinds = (False, True) if piece.small else (False,)
            piece.reserved = next((kind for kind in kinds if self._free[kind]), False)
            if self._closed or self._free[piece.reserved]:
                self._free[piece.reserved] -= 1
                self._give_back(piece)
            else:
                self._returning.append(piece)
                for kind in kinds:
                    self._idle[kind].notify()
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
        """Give a slot to who waits to have it again, or else to a new thread."""
        piece = self._first_back(reserved)
        if piece is not None:
            self._returning.remove(piece)
            piece.reserved = reserved
            self._give_back(piece)
            return
        self._free[reserved] += 1
        if self._small or self._large:
            self._start_thread()

    def _first_back(self, reserved: bool) -> _Piece | None:
        """The one that has waited longest for a slot of this kind."""
        return next((piece for piece in self._returning if piece.small or not reserved), None)

    def _give_back(self, piece: _Piece) -> None:
        if piece.back is not None:
            piece.back.set()
            piece.back = None
            self._lent -= Counter((piece.chunk_id,))  # without what is 0 then
            self._lenders -= Counter((piece.server,))

    # --------------------------------------------------------------------------------------------------------- threads

    def _run(self, reserved: bool) -> None:
        piece, here = None, threading.get_ident()
        while (piece := self._next(reserved, piece)) is not None:
            self._here[here] = piece
            piece.work()
        self._here.pop(here, None)

    def _next(self, reserved: bool, ended: _Piece | None) -> _Piece | None:
        with self._mutex:
            if ended is not None and not self._has_slot_after(ended):
                self._call()
                return None
            piece = self._take(reserved)
            self._call()  # what this one's end has made possible may be more than it takes itself
            while piece is None and not self._is_over(reserved):
                self._idle[reserved].wait()
                piece = self._take(reserved)
                if piece is not None:
                    self._call()
            if piece is None and self._first_back(reserved) is not None:
                self._threads.remove(threading.current_thread())
                self._vacate(reserved)
                self._call()
            return piece

    def _is_over(self, reserved: bool) -> bool:
        """Tell whether a thread is to end: its slot is asked for, or nothing more comes."""
        return self._first_back(reserved) is not None or (self._closed and not self._small and not self._large)

    def _has_slot_after(self, ended: _Piece) -> bool:
        """Count a piece as ended; tell whether its thread has a slot then."""
        was_lent = ended.back is not None
        if was_lent:
            self._give_back(ended)
        self._count(ended, -1)
        if was_lent and not self._free[ended.reserved]:
            self._threads.remove(threading.current_thread())
            return False
        self._free[ended.reserved] -= was_lent
        return True

    def _take(self, reserved: bool) -> _Piece | None:
        if self._first_back(reserved) is not None:
            return None
        piece = self._small.take(self._size, self._full)
        if piece is None and not reserved:
            piece = self._large.take(self._share, self._full)
        if piece is not None:
            piece.reserved = reserved
            self._count(piece, 1)
        return piece

    def _call(self) -> None:
        """Wake one thread of each kind that may find something; it calls the next if it does."""
        if self._closed:
            for idle in self._idle.values():
                idle.notify_all()
        elif self._small:
            self._idle[False].notify()
            self._idle[True].notify()
        elif self._large:
            self._idle[False].notify()

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
