"""`fsdm delete`: ask for chunks to be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.arguments import open_client
from fsdm.console import print_json
from fsdm.errors import EXIT_OK

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm delete -d data ID
fsdm ls -d data | xargs fsdm delete -d data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="64 lower-case hex digits")


def run(arguments: argparse.Namespace) -> int:
    """Place a delete marker for each id."""
    from fsdm.layout import as_id

    ids = [as_id(one, "ID") for one in arguments.ids]
    with open_client(arguments) as client:
        for chunk_id in ids:
            client.delete_chunk(chunk_id)
    if arguments.json:
        print_json({"deleted": ids})
    return EXIT_OK
