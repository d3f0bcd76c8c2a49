"""Measure fsdm on this machine.

    python -m tools.bench [base] [--quick] [--only NAME …] [--chunks N] [--dir DIR] [--json FILE|-]
    python -m tools.bench transfers [--quick] [--only NAME …] [--runs N] [--contenders NAME …] [--json FILE|-]
    python -m tools.bench chunks [--quick] [--only NAME …] [--runs N] [--json FILE|-]
    python -m tools.bench place [--quick] [--only NAME …] [--chunks N] [--workers N] [--json FILE|-]
    python -m tools.bench index [--quick] [--only NAME …] [--keys N] [--tables N] [--json FILE|-]
    python -m tools.bench lifecycle [--quick] [--only NAME …] [--chunks N] [--json FILE|-]
    python -m tools.bench fleet [--quick] [--only NAME …] [--json FILE|-]

`base` measures what is promised, `transfers` fsdm beside others that move the same bytes, `chunks` the cost of a chunk
beside that of its file operations, `place` the placing of a fleet, `fleet` a year of it, `index` look-ups of keys and
their cost, `lifecycle` chunks that come when they are asked for and go when room is needed. The exit code is 1 where a
figure could not be had; a missed goal is no error. To add a bench: a module with CASES, add_arguments and main, and a
line in BENCHES.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fsdm
from tools.bench import base, chunks, fleet, index, lifecycle, place, transfers

if TYPE_CHECKING:
    from collections.abc import Sequence

BENCHES: Final = {
    "base": base,
    "transfers": transfers,
    "chunks": chunks,
    "place": place,
    "fleet": fleet,
    "index": index,
    "lifecycle": lifecycle,
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `base` is what is measured where nothing else is said."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__, formatter_class=how)
    benches = parser.add_subparsers(dest="bench", required=True)
    for name, module in BENCHES.items():
        about = module.__doc__ or ""
        bench = benches.add_parser(name, help=about.splitlines()[0], description=about, formatter_class=how)
        cases = list(module.CASES)
        bench.add_argument("--only", nargs="+", choices=cases, default=cases, metavar="NAME", help=", ".join(cases))
        bench.add_argument("--quick", action="store_true", help="fewer samples, and smaller where it takes long")
        bench.add_argument(
            "--dir",
            type=Path,
            help="work below this directory (default: the system's temporary one; chunks: one in memory)",
        )
        bench.add_argument("--json", metavar="FILE", help="write the figures there as JSON; - is stdout")
        module.add_arguments(bench)
        bench.set_defaults(main=module.main)
    named = argv and (not argv[0].startswith("-") or argv[0] in {"-h", "--help"})
    return parser.parse_args(argv if named else ["base", *argv])


def main(argv: Sequence[str]) -> int:
    """Run the bench that is named."""
    args = arguments(argv)
    # all processes import the fsdm that this one does, not one that is installed or lies in the cwd
    paths = (os.path.dirname(os.path.dirname(fsdm.__file__)), os.environ.get("PYTHONPATH"))
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed then, too
    return args.main(args)  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
