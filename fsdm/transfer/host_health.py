"""The servers, as they are known: which answers, which is down until when, which is faster.

So one dead host holds up nothing else, and of several mirrors the better comes first. This is the one table of all that
is known of a server; how it is reached, and whether several connections gain anything, stand here too.

    half-open ── a good byte ──→ proven: all may enter       a failure ──→ half-open again
        └────── a failure ───→ down: no request is made      its time is over ──→ half-open, one request at a time

Invariants: to a half-open host go no more than `trials` requests at once, and one if it was down. A good byte proves
it; until FRESH_S after one it does not go down, for a broken connection is no dead host. A failure begins a new era:
what was begun before it counts no longer (sixteen connections that break together are one outage). Only what the server
itself asks for (Retry-After) holds against everything. Those who wait for a trial's outcome do so until it has taken
`trial_wait_s`. So do those that would have no slot (see `scheduler`), where enough of their host have none.
"""

from __future__ import annotations

import math
import threading
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Self

from fsdm.model.errors import TransferError
from fsdm.transfer.http.target import origin_of
from fsdm.transfer.segments import Gain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsdm.transfer.http.route import Route, Settings

    Wait = Callable[[float, threading.Event], object]  # see Stop.wait

MANY: Final = 1024
FRESH_S: Final = 1.0
LATELY_S: Final = 300.0  # so long after a failure a mirror goes behind the others
SLOWER: Final = 4.0  # so many times slower is clearly slow
HALF_LIFE_S: Final = 300.0  # in this time half of that is forgiven
WEIGHT: Final = 0.3  # of the newest measurement
ASKED_LAST_S: Final = 3600.0
LIVE_S: Final = 60.0  # longer than any silence that is waited for


class Hosts:
    """The servers of this process, for all threads; of more than MANY the longest unused goes."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        trials: int = 2,
        trial_wait_s: float = 1.0,
        first_s: float = 1.0,
        last_s: float = 60.0,
    ) -> None:
        self.clock = clock
        self.trials = trials
        self.first_s = first_s
        self.last_s = last_s
        self.mutex = threading.Lock()
        self.trial_wait_s = trial_wait_s
        self._hosts: dict[str, Host] = {}  # the longest unused first

    def enter(self, origin: str, wait: Wait) -> Request:
        """Begin a request to the server of a URL, in a `with`; a half-open host is waited for.

        `wait(seconds, event)` returns after that time or once the event is set, or earlier; it may raise to end it.

        Raises:
            TransferError: transient; the host is down, or those who try it have not heard from it yet.
        """
        outcome = threading.Event()
        with self.mutex:
            host = self._use(origin_of(origin))
            host.inside += 1
        try:
            while not isinstance(found := host.admit(outcome), Request):
                wait(found, outcome)
        except BaseException:
            host.turn_away(outcome)
            raise
        return found

    def get(self, origin: str) -> Host:
        """Return the server of a URL."""
        with self.mutex:
            return self._use(origin_of(origin))

    def _use(self, origin: str) -> Host:
        host = self._hosts.pop(origin, None) or Host(origin, self)
        if len(self._hosts) >= MANY:
            unused = next((name for name, other in self._hosts.items() if not other.inside), None)
            if unused is not None:
                del self._hosts[unused]
        self._hosts[origin] = host
        return host

    def order(self, urls: Sequence[str]) -> list[str]:
        """Order mirrors: as given, behind them the slow, then those that failed, then the down."""
        if len(urls) < 2:
            return list(urls)
        now = self.clock()
        with self.mutex:
            hosts = [self._hosts.get(origin_of(url)) for url in urls]
            fastest = max((host.bytes_per_s or 0.0 for host in hosts if host is not None), default=0.0)
            ranks = [0 if host is None else host.rank(fastest, now) for host in hosts]
        return [url for _, url in sorted(zip(ranks, urls, strict=True), key=itemgetter(0))]


class Host:
    """One server; the mutex is that of the table, and guards everything here but `good_at`."""

    def __init__(self, origin: str, table: Hosts) -> None:
        self.origin = origin
        self.inside = 0  # requests, also those that wait: so long it is not forgotten
        self.proven = False
        self.good_at = -math.inf
        self.bytes_per_s: float | None = None
        self.gain = Gain(clock=table.clock)
        self.routes: dict[Settings, Route] = {}  # see `engine`
        self._patience_s = math.inf  # for an answer
        self._hurried = 0  # times in a row
        self._unanswered = 0  # requests without a slot
        self._unanswered_since = 0.0
        self._has_answered = False
        self._table = table
        self._mutex = table.mutex
        self._era = 0
        self._trying = 0  # requests of this era
        self._trying_since = 0.0
        self._waiting: set[threading.Event] = set()
        self._failed_at = -math.inf  # … and nothing good has come since
        self._error = ""
        self._downs = 0  # in a row
        self._down_until = -math.inf
        self._asked_until = -math.inf  # by the server
        self._rated_at = 0.0

    @property
    def is_live(self) -> bool:
        """Tell whether it has answered, and a good byte has come lately."""
        return self._has_answered and self._table.clock() - self.good_at < LIVE_S

    def hurry(self, patience_s: float) -> None:
        """Wait so long for an answer, and twice as long each time until there is one; infinity is no bound."""
        with self._mutex:
            self._patience_s = patience_s * 2.0 ** min(self._hurried, 60)
            self._hurried += patience_s < math.inf

    def answered(self) -> None:
        """Take in that an answer has come, or so much of one that more will."""
        with self._mutex:
            self._patience_s, self._hurried, self._has_answered = math.inf, 0, True
            self._wake()

    def within(self, timeout_s: float) -> float:
        """Return a timeout of a request, or less where its host is to hurry."""
        return min(timeout_s, self._patience_s)

    def await_answer(self, outcome: threading.Event, most: int) -> bool | float:
        """Tell whether a request may wait for an answer without a slot, or how long to wait for another one's.

        It is False where the host is live.

        Raises:
            TransferError: others have waited for long enough.
        """
        with self._mutex:
            now = self._table.clock()
            if self.is_live:
                return False
            if not self._unanswered:
                self._unanswered_since = now
            if self._unanswered < most:
                self._unanswered += 1
                return True
            return self._wait(outcome, self._unanswered_since, now, self._unanswered)

    def _wait(self, outcome: threading.Event, since: float, now: float, others: int) -> float:
        """Under the mutex: how long to wait for the outcome of others, who have tried since then."""
        left_s = since + self._table.trial_wait_s - now
        if left_s <= 0:
            waiting = "another one waits" if others == 1 else f"{others} others wait"
            raise TransferError(
                f"{self.origin} has not answered yet: {waiting} for it",
                transient=True,
                cause="timeout",
                is_postponed=True,
            )
        outcome.clear()
        self._waiting.add(outcome)
        return left_s

    def admit(self, outcome: threading.Event) -> Request | float:
        """Return a request, or for how many seconds to wait for the outcome of another."""
        with self._mutex:
            now = self._table.clock()
            closed_s = max(self._down_until, self._asked_until) - now
            if closed_s > 0:
                raise TransferError(
                    f"{self.origin}: {self._error}; it is left alone for a while",
                    transient=True,
                    retry_after_s=closed_s,
                    cause="host_down",
                    is_postponed=self._asked_until > max(self._down_until, now),
                )
            if self.proven or self._trying < (1 if self._downs else self._table.trials):
                self._waiting.discard(outcome)
                if not self._trying:
                    self._trying_since = now
                self._trying += 1
                return Request(self, self._era, self._table.clock)
            return self._wait(outcome, self._trying_since, now, self._trying)

    def turn_away(self, outcome: threading.Event) -> None:
        """End a request that was not begun."""
        with self._mutex:
            self.inside -= 1
        self.forget(outcome)

    def forget(self, outcome: threading.Event) -> None:
        """Let nobody wait with this event any more."""
        with self._mutex:
            self._waiting.discard(outcome)

    def leave(self, era: int, unanswered: int) -> None:
        """End a request, perhaps without an outcome: then the next one may try."""
        with self._mutex:
            self.inside -= 1
            self._unanswered -= unanswered
            if era == self._era:
                self._trying -= 1
                self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    def prove(self) -> None:
        with self._mutex:
            self.proven = True
            self._downs = 0
            self._failed_at = self._down_until = -math.inf
            self._wake()

    def fail(self, era: int, error: str, retry_after_s: float | None) -> None:
        with self._mutex:
            now = self._table.clock()
            if retry_after_s is not None:
                asked_s = min(max(self._table.first_s, retry_after_s), ASKED_LAST_S)
                self._asked_until = max(self._asked_until, now + asked_s)
                self._error = error
            if era == self._era:
                self._error = error
                self._judge(now)
            self._wake()

    def _judge(self, now: float) -> None:
        """Take a failure of this era."""
        was_proven, self.proven, self._has_answered = self.proven, False, False
        self._failed_at = now
        if now < self._asked_until:
            self._downs += 1
        elif not was_proven:
            if now - self.good_at < FRESH_S:
                return
            self._down_until = now + min(self._table.first_s * 2.0 ** min(self._downs, 60), self._table.last_s)
            self._downs += 1
        self._era += 1
        self._trying = 0

    def rate(self, bytes_per_s: float) -> None:
        """Take in how fast a whole transfer was that was large enough to tell."""
        with self._mutex:
            now = self._table.clock()
            old = 0.0 if self.bytes_per_s is None else (1 - WEIGHT) * _forgiven(now - self._rated_at)
            self.bytes_per_s = old * (self.bytes_per_s or 0.0) + (1 - old) * bytes_per_s
            self._rated_at = now

    def rank(self, fastest: float, now: float) -> int:
        """Under the mutex: 0 as given, 1 slow, 2 failed lately, 3 down."""
        if now < max(self._down_until, self._asked_until):
            return 3
        if now - self._failed_at < LATELY_S:
            return 2
        slow = self.bytes_per_s is not None and (self.bytes_per_s * SLOWER < fastest * _forgiven(now - self._rated_at))
        return int(slow)


class Request:
    """One transfer from a host, from before it connects to its end; it says what it finds."""

    def __init__(self, host: Host, era: int, clock: Callable[[], float]) -> None:
        self.host = host
        self._era = era
        self._clock = clock
        self._unanswered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.host.leave(self._era, self._unanswered)

    def await_answer(self, wait: Wait, most: int) -> bool:
        """Tell whether this is to wait for an answer without a slot; where `most` do, wait for one of theirs first.

        Raises:
            TransferError: transient; they have waited for long enough.
        """
        outcome = threading.Event()
        try:
            while isinstance(found := self.host.await_answer(outcome, most), float):
                wait(found, outcome)
        finally:
            self.host.forget(outcome)
        self._unanswered += found
        return found

    def proven(self) -> None:
        """Bytes of a good answer have come. To be said of each block: it costs next to nothing."""
        was_live, self.host.good_at = self.host.is_live, self._clock()
        if not was_live:
            self.host.prove()

    def failed(self, error: str, retry_after_s: float | None = None) -> None:
        """Tell that the host has failed; `error` is shown. `retry_after_s` is what it asks for."""
        self.host.fail(self._era, error, retry_after_s)


def _forgiven(age_s: float) -> float:
    """Return what is left of 1 after so long."""
    return math.exp2(-age_s / HALF_LIFE_S)
