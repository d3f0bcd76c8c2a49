"""The checks of a life: figures with goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.bench.report import Figure
from tools.fleet_sim.fleet import GRACE_S

if TYPE_CHECKING:
    from tools.fleet_sim.fleet import Fleet

AGAIN_S: Final = 120.0  # after the grace all copies are there again


def check(what: str, value: float, unit: str, most: float = 0) -> Figure:
    """Return a figure that must not exceed `most`."""
    return Figure("", what, value, unit, 1, most)


def safe(fleet: Fleet) -> list[Figure]:
    """Return what holds in any life: nothing is lost, nothing is over, and no node's brake is met."""
    seen = fleet.seen
    flight_gb = fleet.bounds.in_flight_bytes / 1e9
    return [
        check("chunks that lost their last copy", seen.lost, "chunks"),
        check("bytes above a capacity", seen.over_bytes, "bytes"),
        check("bytes in flight to a worker", seen.flight_bytes / 1e9, "GB", flight_gb),
        check("a node's own brake held deletes back", seen.node_brakes, "times"),
        check("it did not come to rest", seen.restless, "times"),
    ]


def below(fleet: Fleet) -> Figure:
    """Return the longest time that a chunk was below its target."""
    return check("the longest that a chunk was below its target", fleet.seen.below_s, "s", GRACE_S + AGAIN_S)


def moved(fleet: Fleet, most: float = 1.05) -> Figure:
    """Return the bytes that were moved against the least that there could be."""
    return check("bytes moved / the least", fleet.seen.fetched_bytes / max(fleet.seen.least_bytes, 1), "times", most)


def balanced(fleet: Fleet) -> list[Figure]:
    """Return how evenly bytes are spread by capacity."""
    full = fleet.fullness()
    return [
        check("fullness, standard deviation", 100 * float(full.std()), "%", 2),
        check("fullness, the emptiest below the mean", 100 * (1 - float(full.min())), "%", 5),
        check("fullness, the fullest above the mean", 100 * (float(full.max()) - 1), "%", 5),
    ]
