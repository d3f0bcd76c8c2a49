"""`fsdm resume`: let downloads go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse

EXAMPLES: Final = """\
fsdm resume -d data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes: nothing."""


def run(arguments: argparse.Namespace) -> int:
    """End a pause; where there is none that is no error."""
    with open_client(arguments) as client:
        was_paused = client.resume()
    if arguments.json:
        print_json({"was_paused": was_paused})
    elif not was_paused:
        print("fsdm: downloads were not paused", file=sys.stderr)
    return EXIT_OK
