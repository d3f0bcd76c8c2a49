"""`fsdm wait`: wait until wants and deletes are carried out."""

import time
from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import add_ids, ids_of, open_client
from fsdm.cli.output import row, show

EXAMPLES = """\
fsdm wait -d data --timeout 60
fsdm wait -d data ID
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these; by default all that are wanted, or to be deleted")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="seconds; then exit with code 4 (default: as long as it takes)"
    )


def run(arguments: Namespace) -> None:
    ids = ids_of(arguments)
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    states = {}
    with open_client(arguments) as client:
        for chunk_id in ids:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            states[chunk_id] = "available" if client.wait(chunk_id, left) else "gone"
        if not ids:
            client.wait_converged(arguments.timeout)
    show(arguments, {"converged": True, "chunks": states}, (row(*one) for one in states.items()))
