"""Measure a fleet: a year of it in memory, placed by the real `place`, and the failure stories of other systems.

`year`: what moves against the least, what is lost, how long chunks are below their targets, and how even the bytes are
(`python -m tools.fleet_sim` says more). `stories`: the checks of all stories, and how many are missed. `queries`: what
a query on eight nodes costs, and how much longer it takes where one is lost. `tasks`: the cost of a task of one.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tools.bench.queries import queries, tasks
from tools.bench.report import Figure, table, tell
from tools.fleet_sim.stories import STORIES
from tools.fleet_sim.year import FORTNIGHTS, Year

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    Measure = Callable[[argparse.Namespace], Iterator[Figure]]


def year(args: argparse.Namespace) -> Iterator[Figure]:
    """Live a year of each scale."""
    scales = [(8000, 64, 4)] if args.quick else [(500_000, 2000, FORTNIGHTS), (1_000_000, 2000, FORTNIGHTS)]
    for chunks, workers, fortnights in scales:
        what = f"{chunks:,} chunks × 3, {workers:,} workers, {2 * fortnights} weeks"
        for figure in Year(chunks, workers, fortnights).run():
            yield replace(figure, name="year", what=f"{what}: {figure.what}")


def stories(_: argparse.Namespace) -> Iterator[Figure]:
    """Live each story."""
    found = [figure for story in STORIES.values() for figure in story()]
    missed = [figure for figure in found if not figure.met]
    yield Figure("stories", f"{len(STORIES)} stories: checks that are missed", len(missed), "checks", len(found), 0)


CASES: Final[dict[str, Measure]] = {"year": year, "stories": stories, "queries": queries, "tasks": tasks}


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes: none."""


def main(args: argparse.Namespace) -> int:
    """Measure and print."""
    figures: list[Figure] = []
    errors: dict[str, str] = {}
    for name in args.only:
        began = time.monotonic()
        try:
            figures += CASES[name](args)
        except Exception as e:  # one that fails must not take the others' figures with it
            errors[name] = f"{type(e).__name__}: {e}"
        print(f"{name}: {errors.get(name, 'done')} after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return tell(table(figures), figures, errors, args)
