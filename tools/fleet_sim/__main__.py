"""Place a fleet in memory for a year, and through the failure stories of other systems, by the real `place`.

    python -m tools.fleet_sim [--quick] [--only NAME …] [--chunks N] [--workers N] [--fortnights N] [--json FILE|-]

`year`: chunks and workers come, go, drain, fail and restart; nodes fetch 1.25 GB a second, and a placer looks each
minute. The others are stories (tools/fleet_sim/stories.py). The exit code is 1 where anything is not as it must be.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tools.bench.report import table, tell
from tools.fleet_sim.stories import STORIES
from tools.fleet_sim.year import FORTNIGHTS, Year

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tools.bench.report import Figure


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    """Live each life that is asked for; tell on stderr how it goes."""
    for name in args.only:
        began, what = time.monotonic(), name
        if name == "year":
            count = args.chunks or (8000 if args.quick else 500_000)
            workers = args.workers or max(count // 250, 64)
            year = Year(count, workers, args.fortnights or (4 if args.quick else FORTNIGHTS))
            found = year.run(lambda said: print(f"year, {said}", file=sys.stderr, flush=True))
            what = f"{count:,} chunks × 3, {workers:,} workers"
        else:
            found = STORIES[name]()
        print(f"{what}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        yield from (replace(one, name=name, what=f"{what}: {one.what}") for one in found)


def main(argv: Sequence[str]) -> int:
    """Live, print, and say by the exit code whether all is as it must be."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.fleet_sim", description=__doc__, formatter_class=how)
    names = ["year", *STORIES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a small fleet, for two months: half a minute")
    parser.add_argument("--chunks", type=int, metavar="N", help="of the year (default 500,000; 8,000 with --quick)")
    parser.add_argument("--workers", type=int, metavar="N", help="of the year (default: one for 250 chunks)")
    parser.add_argument("--fortnights", type=int, metavar="N", help="of the year (default 26; 4 with --quick)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as JSON; - is stdout")
    args = parser.parse_args(argv)
    args.bench = "fleet_sim"
    found = list(figures(args))
    tell(table(found), found, {}, args)
    missed = [one for one in found if not one.met]
    print(f"{len(found)} checks, {len(missed)} missed", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
