"""Progress over time, from surveys of the files: how far, how fast, how long still. Pure.

A rate is what has come within a window, over its time: so a stall shows within seconds. An ETA counts what can come by
itself; there is none while nothing comes. Invariant: no number is made up: what is not known is None.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsdm.status.chunk_status import Failing
    from fsdm.store.holders import Holders

RATE_WINDOW_S: Final = 10.0
ETA_WINDOW_S: Final = 60.0
LEAST_SPAN_S: Final = 0.8  # a shorter time tells no rate


@dataclass(frozen=True, slots=True)
class Running:
    """A chunk that is being fetched: its bytes that have come, all that will, if known, and at least so many."""

    id: str
    size_bytes: int
    total_bytes: int | None = None
    least_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Retiring:
    """A deleted chunk whose directory is still there; `holders` is None until looked for."""

    id: str
    since: float
    size_bytes: int | None = None
    holders: Holders | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """A data directory at one moment, by what is pending. Times are seconds since the epoch.

    `here_bytes` leaves out the `uncounted` chunks. `came_bytes` grows with all that has come since the first look.
    `left_bytes` are to come, at least, for what can go on by itself (`wanted` and `running`); `unknown` of these do not
    say all of their size, or have not been read yet. `unlisted` are directories that this user may not list: nothing in
    them is counted.
    `known` counts the registrations, `cached` the chunks that are here and may be evicted. `unasked` of those that fail
    are given up, and nobody asks for them: they are told of, and nothing is pending.
    """

    at: float
    reconciler: str | None
    free_bytes: int
    read_only: bool
    paused: bool = False
    braked: bool = False
    here: int = 0
    here_bytes: int = 0
    uncounted: int = 0
    unready: int = 0
    wanted: int = 0
    deleting: int = 0
    running: tuple[Running, ...] = ()
    retiring: tuple[Retiring, ...] = ()
    failing: tuple[Failing, ...] = ()
    waiting: tuple[Failing, ...] = ()
    came_bytes: int = 0
    left_bytes: int = 0
    unknown: int = 0
    unlisted: tuple[str, ...] = ()
    reconciler_trouble: str | None = None
    known: int = 0
    cached: int = 0
    unasked: int = 0

    @property
    def given_up(self) -> int:
        """The number of those that fail and are not tried again by themselves."""
        return sum(one.given_up for one in self.failing)

    @property
    def is_converged(self) -> bool:
        """Return whether nothing is pending, as far as can be known."""
        pending = self.wanted or self.running or self.retiring or self.deleting or self.unready
        return not (pending or len(self.failing) > self.unasked or self.waiting or self.unlisted)


class Meter:
    """A rate, from a counter that is read now and then."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def take(self, now: float, count: int) -> None:
        """Note where the counter stands. `now`: in seconds, of a clock that is not set."""
        self._marks.append((now, count))
        # the last one before the window stays: the window begins within its span
        while len(self._marks) > 2 and self._marks[1][0] <= now - ETA_WINDOW_S:
            self._marks.popleft()

    def rate(self, window_s: float = RATE_WINDOW_S) -> float | None:
        """Tell what came a second in the last window; None where it was watched too shortly."""
        if not self._marks:
            return None
        now, count = self._marks[-1]
        since, before = next((mark for mark in reversed(self._marks) if mark[0] <= now - window_s), self._marks[0])
        return (count - before) / (now - since) if now - since >= LEAST_SPAN_S else None


@dataclass(slots=True)
class Progress:
    """The last survey, and the rates and the ETA that it and those before it tell.

    `max_bytes`: the budget, where it is known. `is_own`: this process reconciles, and need not be told that none does.
    """

    max_bytes: int | None = None
    is_own: bool = False
    survey: Survey | None = None
    _all: Meter = field(default_factory=Meter)
    _each: dict[str, Meter] = field(default_factory=dict)

    def take(self, survey: Survey, now: float) -> None:
        """Take one more survey. `now`: in seconds, of a clock that is not set."""
        self.survey = survey
        self._all.take(now, survey.came_bytes)
        self._each = {one.id: self._each.get(one.id) or Meter() for one in survey.running}
        for one in survey.running:
            self._each[one.id].take(now, one.size_bytes)

    def rate(self) -> float | None:
        """Tell the bytes a second of the last ten seconds; None where not watched long enough, or paused."""
        return None if self._is_paused else self._all.rate()

    def rate_of(self, chunk_id: str) -> float | None:
        """Tell the same for one running chunk; a partial that is begun anew counts as zero."""
        rate = self._each[chunk_id].rate() if chunk_id in self._each and not self._is_paused else None
        return None if rate is None else max(rate, 0.0)

    def eta_s(self) -> float | None:
        """Estimate the seconds until all has come that can come by itself; None if not known.

        It is only a lower bound where the survey has sizes that are `unknown`.
        """
        survey = self.survey
        if survey is None or not (survey.wanted or survey.running):
            return 0.0
        if survey.paused:
            return None
        now, longer = self._all.rate(), self._all.rate(ETA_WINDOW_S)
        if not now or not longer or (survey.unknown and not survey.left_bytes):
            return None
        return survey.left_bytes / longer

    @property
    def _is_paused(self) -> bool:
        return self.survey is not None and self.survey.paused

    def by_activity(self, running: Sequence[Running]) -> list[Running]:
        """Sort by the bytes that come a second, the most first; of equals, by those that have come."""
        return sorted(running, key=lambda one: (-(self.rate_of(one.id) or 0.0), -one.size_bytes, one.id))
