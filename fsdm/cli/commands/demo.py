"""`fsdm demo`: see it work, with nothing else running."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import EXIT_HUNG_UP, EXIT_NOT_CONVERGED, EXIT_OK, EXIT_TERMINATED

if TYPE_CHECKING:
    import argparse

EXAMPLES: Final = "fsdm demo\n"
ENDS: Final = {signal.SIGHUP: EXIT_HUNG_UP, signal.SIGTERM: EXIT_TERMINATED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo."""
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="make the files so many times as large")


def run(arguments: argparse.Namespace) -> int:
    """Tell the demo's story; on a signal to end, clean up first."""
    from fsdm.cli.demo.story import demo

    for number in ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(number, _leave)
    return EXIT_OK if demo(arguments.data_dir, scale=arguments.scale, as_json=arguments.json) else EXIT_NOT_CONVERGED


def _leave(number: int, _: object) -> None:
    for one in ENDS:  # one more signal, which often follows, must not cut the cleaning up short
        signal.signal(one, signal.SIG_IGN)
    sys.exit(ENDS[signal.Signals(number)])
