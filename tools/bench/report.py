"""The figures of a bench, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fsdm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

NS: Final = {"µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, in `unit`, and the `goal` that it must not exceed, if there is one."""

    name: str
    what: str
    value: float
    unit: str
    samples: int
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """The goal is met; None where there is none."""
        return None if self.goal is None else self.value <= self.goal


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that so many percent do not exceed (nearest rank)."""
    return sorted(samples)[max(math.ceil(len(samples) * percent / 100) - 1, 0)]


def times(name: str, what: str, taken: Sequence[int], *shown: tuple[float, str, float | None]) -> Iterator[Figure]:
    """Make a figure of times in nanoseconds for each (percentile, unit, goal)."""
    for percent, unit, goal in shown:
        value = percentile(taken, percent) / NS[unit]
        yield Figure(name, f"{what} (p{percent:g})", value, unit, len(taken), goal)


def aligned(rows: Sequence[Sequence[str]], aligns: str) -> str:
    """Align rows of cells as lines of columns; `aligns` has < or > for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(aligns))]
    return "\n".join(
        "  ".join(f"{cell:{align}{width}}" for cell, align, width in zip(row, aligns, widths, strict=True)).rstrip()
        for row in rows
    )


def table(figures: Sequence[Figure]) -> str:
    """Show the figures as aligned lines: what, the goal, the value, met or missed, samples."""
    rows = [("what", "at most", "measured", "", "samples")]
    for figure in figures:
        goal = "" if figure.goal is None else f"{figure.goal:g} {figure.unit}"
        met = {None: "", True: "met", False: "MISSED"}[figure.met]
        rows.append((figure.what, goal, f"{figure.value:.3g} {figure.unit}", met, str(figure.samples)))
    return aligned(rows, "<>><>")


def document(figures: Sequence[Figure], errors: dict[str, str], args: argparse.Namespace) -> str:
    """Write the figures as JSON, whose fields are only ever added to."""
    return json.dumps(
        {
            "bench": args.bench,
            "quick": args.quick,
            "version": fsdm.__version__,
            "package": os.path.dirname(fsdm.__file__),
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
            "errors": errors,
        },
        indent=2,
        ensure_ascii=False,
    )


def tell(text: str, figures: Sequence[Figure], errors: dict[str, str], args: argparse.Namespace) -> int:
    """Print the text and write the JSON; return 1 where a figure could not be had, else 0.

    Where the JSON goes to stdout, the text goes to stderr. A missed goal is no error.
    """
    print(text, file=sys.stderr if args.json == "-" else sys.stdout, flush=True)
    if args.json == "-":
        print(document(figures, errors, args), flush=True)
    elif args.json:
        Path(args.json).write_text(document(figures, errors, args) + "\n")
    return 1 if errors else 0
