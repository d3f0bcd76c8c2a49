"""`fsdm release`: say that the deletes which the brake holds back are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse

EXAMPLES: Final = """\
fsdm release -d data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes: nothing."""


def run(arguments: argparse.Namespace) -> int:
    """Release every delete that stands now."""
    with open_client(arguments) as client:
        client.release_deletes()
    if arguments.json:
        print_json({"released": True})
    return EXIT_OK
