"""`fsdm hold`: run a command while holding the chunk."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import find_ref, open_client

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm hold -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.usage = "%(prog)s [-h] [-d DIR] [--json] DATASET BLOCK -- CMD [ARG ...]"
    parser.add_argument_group(
        "the command",
        "CMD finds the files in $FSDM_CHUNK_PATH, and the id in $FSDM_CHUNK_ID. The chunk is\n"
        "held until CMD, and all that it has started and left behind, has ended.",
    )
    parser.add_argument("dataset", metavar="DATASET", help="the dataset's id")
    parser.add_argument("block", type=int, metavar="BLOCK", help="a block number")


def run(arguments: argparse.Namespace) -> int:
    """Become CMD, with the lock on a descriptor that CMD inherits: the chunk is held for exactly as long as it runs."""
    client = open_client(arguments)
    ref = find_ref(client, arguments)
    environment = {**os.environ, "FSDM_CHUNK_PATH": str(ref.path), "FSDM_CHUNK_ID": ref.id}
    ref.keep_over_exec()
    try:
        os.execvpe(arguments.command[0], arguments.command, environment)
    except OSError as e:
        print(f"fsdm: {arguments.command[0]}: {e.strerror}", file=sys.stderr)
        return 127 if isinstance(e, FileNotFoundError) else 126
