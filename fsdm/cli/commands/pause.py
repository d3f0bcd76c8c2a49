"""`fsdm pause`: download nothing, until it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse

EXAMPLES: Final = """\
fsdm pause -d data --reason "the link is needed for a backup"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="what `fsdm status` is to say of it")


def run(arguments: argparse.Namespace) -> int:
    """Pause downloads: those that run are stopped, and go on from there when they are resumed. Deletes go on."""
    with open_client(arguments) as client:
        client.pause(arguments.reason)
    if arguments.json:
        print_json({"paused": True})
    return EXIT_OK
