"""`fsdm hold`: run a command while holding the chunk."""

import os
from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import add_block, find_ref
from fsdm.cli.output import tell

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
    ref = find_ref(client, arguments)
    environment = {**os.environ, "FSDM_CHUNK_PATH": str(ref.path), "FSDM_CHUNK_ID": ref.id}
    ref.keep_over_exec()
    try:
        os.execvpe(arguments.command[0], arguments.command, environment)
    except OSError as e:
        tell(f"fsdm: {arguments.command[0]}: {e.strerror}")
        return 127 if isinstance(e, FileNotFoundError) else 126
