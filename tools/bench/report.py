"""What a bench says: its figures as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import fsdm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


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
        """Whether the goal is met; None where there is none."""
        return None if self.goal is None else self.value <= self.goal


def aligned(rows: Sequence[Sequence[str]], aligns: str) -> str:
    """Rows of cells as lines of columns; `aligns` has < or > for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(aligns))]
    return "\n".join(
        "  ".join(f"{cell:{align}{width}}" for cell, align, width in zip(row, aligns, widths, strict=True)).rstrip()
        for row in rows
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned lines: what, the goal, the measured value, met or missed, the number of samples."""
    rows = [("what", "at most", "measured", "", "samples")]
    for figure in figures:
        goal = "" if figure.goal is None else f"{figure.goal:g} {figure.unit}"
        verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
        rows.append((figure.what, goal, f"{figure.value:.3g} {figure.unit}", verdict, str(figure.samples)))
    return aligned(rows, "<>><>")


def document(figures: Sequence[Figure], errors: dict[str, str], args: argparse.Namespace) -> str:
    """The figures as JSON. Fields are only ever added."""
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


def tell(text: str, figures: Sequence[Figure], errors: dict[str, str], args: argparse.Namespace) -> None:
    """Print the text, and write the JSON where it is wanted; where that is stdout, the text goes to stderr."""
    print(text, file=sys.stderr if args.json == "-" else sys.stdout, flush=True)
    if args.json == "-":
        print(document(figures, errors, args), flush=True)
    elif args.json:
        Path(args.json).write_text(document(figures, errors, args) + "\n")
