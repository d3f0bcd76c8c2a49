"""A year of a fleet: it grows, workers join, die, drain, and are away for a while, racks fail, and all of it restarts.

Each fortnight has its events in turn, hours or days apart; the lake grows by a tenth, and so do the workers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tools.fleet_sim.checks import balanced, below, moved, safe
from tools.fleet_sim.fleet import a_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.bench.report import Figure

DAY_S: Final = 86_400.0
FORTNIGHT_S: Final = 14 * DAY_S
GROWTH: Final = 0.1  # a year
FORTNIGHTS: Final = 26
RACK: Final = 40  # workers


class Year:
    """The life of a fleet of so many chunks and workers, for so many fortnights."""

    def __init__(self, chunks: int, workers: int, fortnights: int = FORTNIGHTS, seed: int = 1) -> None:
        self.fortnights = fortnights
        self._random = np.random.default_rng(seed)
        more = max(int(GROWTH * workers / FORTNIGHTS), 1)
        self._joiners = more
        self._drained = max(workers // 200, 1)
        self._chunks = max(int(GROWTH * chunks / FORTNIGHTS), 1)
        spare = fortnights * (more + 1 + self._drained)
        zones = max(workers // RACK, 16)
        new = fortnights * self._chunks
        self.fleet = a_fleet(chunks, workers, spare_chunks=new, spare_workers=spare, zones=zones)
        self._next_chunk, self._next_worker = chunks, workers

    def run(self, tell: Callable[[str], object] = lambda _: None) -> list[Figure]:
        """Let it pass; return its figures."""
        self.fleet.settle()
        tell(f"placed first: {self.fleet.seen}")
        first, began = moved(self.fleet), self.fleet.now
        self.fleet.seen.fetched_bytes = self.fleet.seen.least_bytes = 0
        for number in range(self.fortnights):
            for day, happens in self._events(number):
                self.fleet.live(began + number * FORTNIGHT_S + day * DAY_S)
                happens()
            tell(f"fortnight {number + 1}: {self.fleet.seen}")
        self.fleet.live(began + self.fortnights * FORTNIGHT_S)
        self.fleet.settle()
        return [
            replace(first, what=f"{first.what}, placed first"),
            moved(self.fleet),
            below(self.fleet),
            *balanced(self.fleet),
            *safe(self.fleet),
        ]

    def _events(self, number: int) -> list[tuple[float, Callable[[], None]]]:
        found: list[tuple[float, Callable[[], None]]] = [(1, self._grows), (3, self._dies), (5, self._blinks)]
        if number % 2 == 0:
            found.append((6, self._is_away_for_an_hour))
        if number % 4 == 1:
            found += [(8, self._drains), (9.5, self._drained_go)]
        if number % 4 == 2:
            found.append((10, lambda: self._rack_is_out(500)))
        if number % 10 == 3:
            found.append((11, lambda: self._rack_is_out(7200)))
        if number % 6 == 3:
            found.append((12, self._all_restart))
        if number % 4 == 3:
            found.append((13, self._loses_its_disk))
        return found

    def _some(self, count: int) -> np.ndarray:
        return self._random.choice(self.fleet.some_up, count, replace=False)

    def _new(self, count: int) -> np.ndarray:
        self._next_worker += count
        return np.arange(self._next_worker - count, self._next_worker)

    def _grows(self) -> None:
        """More chunks are listed, and workers join for them."""
        self._next_chunk += self._chunks
        self.fleet.join(self._new(self._joiners))
        self.fleet.grow(np.arange(self._next_chunk - self._chunks, self._next_chunk))

    def _dies(self) -> None:
        """A worker goes for good; a day later it is taken out of the list, and another one joins in its place."""
        one = self._some(1)
        self.fleet.stop(one)
        self.fleet.destroy(one)
        self.fleet.live(self.fleet.now + DAY_S)
        self.fleet.remove(one)
        self.fleet.join(self._new(1))

    def _blinks(self) -> None:
        """Some workers are not reached for less than the grace, one after the other."""
        for _ in range(3):
            some = self._some(2)
            self.fleet.stop(some)
            self.fleet.live(self.fleet.now + float(self._random.uniform(30, 500)))
            self.fleet.start(some)

    def _is_away_for_an_hour(self) -> None:
        some = self._some(1)
        self.fleet.stop(some)
        self.fleet.live(self.fleet.now + 3600)
        self.fleet.start(some)

    def _drains(self) -> None:
        """Some workers drain, and new ones join for them."""
        self._draining = self._some(self._drained)
        self.fleet.join(self._new(self._drained))
        self.fleet.drain(self._draining)

    def _drained_go(self) -> None:
        self.fleet.remove(self._draining)

    def _rack_is_out(self, seconds: float) -> None:
        zones = self.fleet.nodes.zone
        zone = zones[int(self._some(1)[0])]
        rack = np.array([one for one in self.fleet.some_up.tolist() if zones[one] == zone])
        self.fleet.stop(rack)
        self.fleet.live(self.fleet.now + seconds)
        self.fleet.start(rack)

    def _all_restart(self) -> None:
        """All of them are stopped, and come back in ten waves within the grace."""
        everybody = self._random.permutation(self.fleet.some_up)
        self.fleet.stop(everybody)
        for wave in np.array_split(everybody, 10):
            self.fleet.live(self.fleet.now + 50)
            self.fleet.start(wave)

    def _loses_its_disk(self) -> None:
        """A worker comes back soon, with an empty disk."""
        one = self._some(1)
        self.fleet.stop(one)
        self.fleet.live(self.fleet.now + 200)
        self.fleet.start(one)
        self.fleet.destroy(one)
