"""`fsdm hold`: run a command while holding the chunk, or those of a range of blocks."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from fsdm.cli.arguments import become, open_client
from fsdm.cli.ids import dataset_of
from fsdm.cli.output import tell

if TYPE_CHECKING:
    from fsdm.client import Client
    from fsdm.store.refs import ChunkRef

EXAMPLES = """\
fsdm hold -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'
fsdm hold -d data DATASET 17000000-17000050 -- sh -c 'ls $FSDM_CHUNK_PATHS'
"""


def blocks(text: str) -> int | range:
    """Read a block, or a half-open range of blocks as `0-35`."""
    found = re.fullmatch(r"([0-9]{1,20})-([0-9]{1,20})", text)
    return range(int(found[1]), int(found[2])) if found else int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] [-d DIR] [--json] [--partial] DATASET BLOCK|START-END -- CMD [ARG ...]"
    parser.add_argument_group(
        "the command",
        "CMD finds the files in $FSDM_CHUNK_PATH, and the id in $FSDM_CHUNK_ID; for a range\n"
        "the directories in $FSDM_CHUNK_PATHS, one a line, in order. The chunks are\n"
        "held until CMD has ended, and every process that it started and left behind.",
    )
    parser.add_argument("dataset", metavar="DATASET", help="a dataset: its id, 4 or more digits of it, or its name")
    parser.add_argument(
        "block", type=blocks, metavar="BLOCK|START-END", help="a block number, or blocks up to before END"
    )
    parser.add_argument(
        "--partial", action="store_true", help="run CMD also where a part of the range is not here, and say which"
    )


def run(arguments: argparse.Namespace) -> int:
    """Become CMD, with the locks on descriptors that it inherits: it holds the chunks as it runs."""
    client = open_client(arguments)
    return become(_held(client, arguments), arguments.command)


def _held(client: Client, arguments: argparse.Namespace) -> list[ChunkRef]:
    dataset_id, asked = dataset_of(arguments, client.layout), arguments.block
    if not isinstance(asked, range):
        return [client.hold_chunk(dataset_id, asked)]
    held = client.hold_range(dataset_id, asked.start, asked.stop, whole=not arguments.partial)
    for gap in held.gaps:
        tell(f"fsdm: no available chunk holds [{gap.start}, {gap.stop})")
    return [*held.refs]
