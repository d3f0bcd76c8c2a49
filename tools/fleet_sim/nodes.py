"""The nodes of a fleet in memory, and what has been seen of its life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fsdm.fleet.inventory import Flags, Ints

NEVER: Final = -np.inf


@dataclass(slots=True, eq=False)
class Nodes:
    """All workers that there will ever be, in the order of their names.

    `listed`: it is in the list of workers; `up`: it runs, and is reached; `drains`; `reported`: when it did last.
    """

    names: list[str]
    capacity: Ints
    zone: list[str]
    listed: Flags
    up: Flags
    drains: Flags
    reported: NDArray[np.float64]


@dataclass(slots=True)
class Seen:
    """The figures of a life so far.

    `fetched_bytes`; `least_bytes`: the least that there could be; `lost`: chunks without any copy on any disk;
    `below_s`: the longest that a chunk had fewer copies that could be read than it asks for; `node_brakes`: rounds of
    nodes whose brake held deletes back; `placer_brakes`; `over_bytes`: above a capacity; `flight_bytes`: the most that
    a node had still to fetch after a round, in which it was given more than one chunk; `restless`: how often it did not
    come to rest.
    """

    fetched_bytes: int = 0
    least_bytes: int = 0
    lost: int = 0
    below_s: float = 0.0
    node_brakes: int = 0
    placer_brakes: int = 0
    over_bytes: int = 0
    flight_bytes: int = 0
    restless: int = 0
    rounds: int = 0
