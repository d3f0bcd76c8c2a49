"""`fsdm find`: print the path of the chunk that holds a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import find_ref, open_client
from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm find -d data DATASET 17000000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("dataset", metavar="DATASET", help="the dataset's id")
    parser.add_argument("block", type=int, metavar="BLOCK", help="a block number")


def run(arguments: argparse.Namespace) -> int:
    """Print the path of the files of the chunk that is responsible for a block."""
    with open_client(arguments) as client, find_ref(client, arguments) as ref:
        if arguments.json:
            blocks = ref.block_range
            print_json(
                {
                    "id": ref.id,
                    "dataset_id": ref.dataset_id,
                    "start": blocks.start,
                    "end": blocks.stop,
                    "path": str(ref.path),
                }
            )
        else:
            print(ref.path)
    return EXIT_OK
