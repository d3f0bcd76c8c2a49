"""`fsdm demo`: see it work, with nothing else running."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fsdm.errors import EXIT_NOT_CONVERGED, EXIT_OK

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm demo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="make the files so many times as large")


def run(arguments: argparse.Namespace) -> int:
    """Play the main job with nothing else running."""
    from fsdm.demo import demo as play

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # it cleans up on its way out
    data_dir = Path(arguments.data_dir) if arguments.data_dir else None
    return EXIT_OK if play(data_dir, scale=arguments.scale, as_json=arguments.json) else EXIT_NOT_CONVERGED
