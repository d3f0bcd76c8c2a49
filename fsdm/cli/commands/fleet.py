"""`fsdm fleet`: see a fleet of nodes work, with nothing else running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import positive
from fsdm.cli.signals import exit_when_asked
from fsdm.model.errors import EXIT_NOT_CONVERGED, EXIT_OK, FsdmError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLES: Final = """\
fsdm fleet demo
fsdm fleet demo --chunks 200
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=["demo"], help="tell the story of a lake and eight nodes of this machine")
    parser.add_argument("--chunks", type=positive, default=2000, metavar="N", help="so many chunks (default 2000)")


def run(arguments: Namespace) -> int:
    """Tell the story; on a signal to end, clean up first."""
    try:
        import distributed  # noqa: F401 what lacks is said before anything begins
        import numpy as np  # noqa: F401
        import pyarrow as pa  # noqa: F401
    except ModuleNotFoundError as e:
        raise FsdmError(f"{e.name} is missing", hint="pip install 'fsdm[fleet]' pyarrow") from e
    from fsdm.cli.fleet_demo.story import demo

    exit_when_asked()
    is_right = demo(arguments.data_dir, chunks=arguments.chunks, as_json=arguments.json)
    return EXIT_OK if is_right else EXIT_NOT_CONVERGED
