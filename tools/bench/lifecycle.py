"""Measure chunks that come when they are asked for: hits, one fetch for many, eviction, a budget, a million known.

The chunks of `gc` and `victims` are written directly, and a source on loopback has the others. `budget` compares the
hit rate with that of an LRU over the same requests, in the order in which they were begun. `transfers --only s3 file`
measures the sources of other schemes beside rclone and cp. The load of the machine is told with the figures.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from tools.bench.asks import absent, hit
from tools.bench.base import Measure, measure
from tools.bench.evictions import budget, gc, victims
from tools.bench.known import known
from tools.bench.report import Figure, table, tell
from tools.bench.site import Site, scratch

if TYPE_CHECKING:
    import argparse

CASES: Final[dict[str, Measure]] = {
    "hit": hit,
    "absent": absent,
    "gc": gc,
    "victims": victims,
    "budget": budget,
    "known": known,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes."""
    parser.add_argument("--chunks", type=int, metavar="N", help="so many to evict (default: 5000, or 500 with --quick)")


def main(args: argparse.Namespace) -> int:
    """Measure and print, with the load of the machine before and after."""
    before = os.getloadavg()[0]
    with scratch(args.dir) as base:
        site = Site(base, args.chunks or (500 if args.quick else 5000), args.quick)
        figures, errors = measure({name: CASES[name] for name in args.only}, site)
    load = Figure("load", "load of the machine (1 min), before", before, "", 1)
    after = Figure("load", "load of the machine (1 min), after", os.getloadavg()[0], "", 1)
    print(file=sys.stderr)
    return tell(table([*figures, load, after]), [*figures, load, after], errors, args)
