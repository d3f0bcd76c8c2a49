"""`fsdm wait`: wait until what is asked for is so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm wait -d data --timeout 60
fsdm wait -d data ID
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these; else all that is asked for")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="seconds; then exit with code 4 (default: as long as it takes)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Wait until what is asked for is so; with ids, for these only."""
    import time

    from fsdm.model.layout import as_id

    ids = [as_id(one, "ID") for one in arguments.ids]
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    states = {}
    with open_client(arguments) as client:
        for chunk_id in ids:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            states[chunk_id] = "available" if client.wait(chunk_id, left) else "gone"
        if not ids:
            client.wait_converged(arguments.timeout)
    if arguments.json:
        print_json({"converged": True, "chunks": states})
    else:
        for chunk_id, state in states.items():
            print(chunk_id, state, sep="\t")
    return EXIT_OK
