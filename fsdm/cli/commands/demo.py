"""`fsdm demo`: see it work, with nothing else running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.signals import exit_when_asked
from fsdm.model.errors import EXIT_NOT_CONVERGED, EXIT_OK

if TYPE_CHECKING:
    import argparse

EXAMPLES: Final = "fsdm demo\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo."""
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="make the files so many times as large")


def run(arguments: argparse.Namespace) -> int:
    """Tell the demo's story; on a signal to end, clean up first."""
    from fsdm.cli.demo.story import demo

    exit_when_asked()
    return EXIT_OK if demo(arguments.data_dir, scale=arguments.scale, as_json=arguments.json) else EXIT_NOT_CONVERGED
