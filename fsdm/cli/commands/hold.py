"""`fsdm hold`: run a command while holding the chunk."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import become, open_client
from fsdm.cli.ids import add_block, find_ref

EXAMPLES = """\
fsdm hold -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] [-d DIR] [--json] DATASET BLOCK -- CMD [ARG ...]"
    parser.add_argument_group(
        "the command",
        "CMD finds the files in $FSDM_CHUNK_PATH, and the id in $FSDM_CHUNK_ID. The chunk is\n"
        "held until CMD has ended, and every process that it started and left behind.",
    )
    add_block(parser)


def run(arguments: Namespace) -> int:
    """Become CMD, with the lock on a descriptor that it inherits: it holds the chunk as it runs."""
    client = open_client(arguments)
    return become(find_ref(client, arguments), arguments.command)
