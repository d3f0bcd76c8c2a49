"""`fsdm ls`: list the available chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm ls -d data
fsdm ls -d data --long
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("-l", "--long", action="store_true", help="dataset, start, end and id, tab-separated")


def run(arguments: argparse.Namespace) -> int:
    """List the available chunks, by dataset and block."""
    with open_client(arguments) as client:
        places = client.available_places()
    if arguments.json:
        print_json(
            [
                {"id": p.chunk_id, "dataset_id": p.dataset_id, "start": p.block_range.start, "end": p.block_range.stop}
                for p in places
            ]
        )
        return EXIT_OK
    for place in places:
        blocks = place.block_range
        row = (place.dataset_id, blocks.start, blocks.stop, place.chunk_id) if arguments.long else (place.chunk_id,)
        print(*row, sep="\t")
    return EXIT_OK
