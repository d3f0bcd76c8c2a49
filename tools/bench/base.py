"""Measure what fsdm promises about speed and size, beside the goals.

The data directories are made of chunks that are written directly; a figure is the median (or the percentile that is
named) of many samples. All but the thing measured runs in other processes: the source, the holder of a ref, the
reconciler where its caller is a client. Only loopback is talked to, every wait is bounded, and all that was made is
removed, at the end: ext4 does not give an inode away again for minutes after its removal, and looks at all of these for
each new file. So a run right after another one shows `download_chunk` and `delete_chunk` slower; `this disk` says how
slow.

A goal is "at most". Other work on the machine shows in the figures: repeat before believing a miss.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from tools.bench.calls import calls, disk
from tools.bench.finds import find, ranges
from tools.bench.latencies import delete, release, want
from tools.bench.many import many
from tools.bench.programs import idle, ls, start
from tools.bench.report import Figure, table, tell
from tools.bench.site import Site, scratch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

Measure: TypeAlias = "Callable[[Site], Iterator[Figure]]"

CASES: Final[dict[str, Measure]] = {
    "disk": disk,
    "calls": calls,  # before the others: on ext4 making a file is slow for minutes after many were removed
    "find": find,
    "ranges": ranges,
    "want": want,
    "delete": delete,
    "release": release,
    "start": start,
    "idle": idle,
    "ls": ls,
    "many": many,
}


def measure(cases: dict[str, Measure], site: Site) -> tuple[list[Figure], dict[str, str]]:
    """Return the figures of each case, and the errors of those that could not be measured."""
    figures, errors = [], {}
    for name, case in cases.items():
        began = time.monotonic()
        try:
            figures += list(case(site))
        except Exception as e:  # one that fails must not take the others' figures with it
            errors[name] = f"{type(e).__name__}: {e}"
        print(f"{name}: {errors.get(name, 'done')} after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return figures, errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes."""
    parser.add_argument("--chunks", type=int, metavar="N", help="so many on disk (default: 5000, or 1000 with --quick)")


def main(args: argparse.Namespace) -> int:
    """Measure and print."""
    with scratch(args.dir) as base:
        site = Site(base, args.chunks or (1000 if args.quick else 5000), args.quick)
        figures, errors = measure({name: CASES[name] for name in args.only}, site)
        return tell(table(figures), figures, errors, args)
