"""The last hour as samples: what came a second, what is here, what is free. Pure; belongs to one thread.

Invariant: there are at most SAMPLES, however long it is watched; what is not known is None, and is not drawn.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from fsdm.model.units import moment, per_second, readable

HOUR_S: Final = 3600.0
EACH_S: Final = 10.0
SAMPLES: Final = 361


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment. `came_bytes` grows with all that comes; `at` is in seconds since the epoch."""

    at: float
    came_bytes: int | None = None
    here_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of the plots; the rate is that since the point before."""

    at: float
    bytes_per_s: float | None
    here_bytes: int | None
    free_bytes: int | None


@dataclass(slots=True)
class History:
    """The samples of the last hour, the oldest first."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _last: Reading | None = None

    def take(self, reading: Reading) -> None:
        """Take one more reading, about each EACH_S; a clock that was set back begins anew."""
        before, self._last, rate = self._last, reading, None
        if before is not None and reading.at <= before.at:
            self.samples.clear()
            before = None
        # a counter that has shrunk has begun anew
        if before is not None and before.came_bytes is not None and reading.came_bytes is not None:
            came = reading.came_bytes - before.came_bytes
            rate = came / (reading.at - before.at) if came >= 0 else None
        self.samples.append(Sample(reading.at, rate, reading.here_bytes, reading.free_bytes))
        while self.samples[0].at < reading.at - HOUR_S:
            self.samples.popleft()

    def document(self, now: float) -> dict[str, Any]:
        """Write the plots: where their points are from left (0) to right (1), how high, and in words."""
        samples = list(self.samples)
        return {
            "x": [round(1 - (now - one.at) / HOUR_S, 5) for one in samples],
            "at": [moment(one.at, one.at) for one in samples],
            "plots": [
                _plot("rate", [one.bytes_per_s for one in samples], rate=True),
                _plot("on disk", [one.here_bytes for one in samples]),
                _plot("free", [one.free_bytes for one in samples]),
            ],
        }


def _plot(name: str, values: list[Any], *, rate: bool = False) -> dict[str, Any]:
    """Scale values to their greatest, which stands at the top."""
    top = max((value for value in values if value is not None), default=0) or 1
    say = per_second if rate else readable
    return {
        "name": name,
        "y": [None if value is None else round(value / top, 4) for value in values],
        "says": ["" if value is None else say(value) for value in values],
        "top": say(top) if any(values) else "",
    }
