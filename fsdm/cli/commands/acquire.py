"""`fsdm acquire`: run a command while holding a chunk that is fetched before where it is not here."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import become, open_client, seconds
from fsdm.cli.ids import dataset_of, ids_of

EXAMPLES = """\
fsdm acquire -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'
fsdm acquire -d data ID -- sh -c 'ls $FSDM_CHUNK_PATH'
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] [-d DIR] [--json] [--timeout S] ID | DATASET BLOCK -- CMD [ARG ...]"
    parser.add_argument_group(
        "the command",
        "CMD finds the files in $FSDM_CHUNK_PATH, and the id in $FSDM_CHUNK_ID. The chunk is\n"
        "held until CMD has ended, and every process that it started and left behind.",
    )
    told = "a chunk's id; or with BLOCK a dataset: its id, 4 or more digits of it, or its name"
    parser.add_argument("dataset", metavar="ID|DATASET", help=told)
    parser.add_argument("block", nargs="?", type=int, metavar="BLOCK", help="a block number")
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds; then exit with code 4")


def run(arguments: Namespace) -> int:
    """Become CMD, with the lock on a descriptor that it inherits: it holds the chunk as it runs."""
    client = open_client(arguments)
    if arguments.block is None:
        [what] = ids_of(Namespace(ids=[arguments.dataset]), client.layout)
        ref = client.acquire(what, arguments.timeout)
    else:
        ref = client.acquire((dataset_of(arguments, client.layout), arguments.block), arguments.timeout)
    return become([ref], arguments.command)
