"""`fsdm acquire`: run a command while holding a chunk that is fetched before where it is not here."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from fsdm.cli.arguments import become, open_client, seconds
from fsdm.cli.ids import dataset_of, ids_of
from fsdm.cli.keys import add_key, keys_in
from fsdm.model.errors import InvalidInputError, NotAvailableError

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from fsdm.client import Client
    from fsdm.store.refs import ChunkRef

EXAMPLES = """\
fsdm acquire -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'
fsdm acquire -d data ID -- sh -c 'ls $FSDM_CHUNK_PATH'
fsdm acquire -d data --key tx HASH -- sh -c 'ls $FSDM_CHUNK_PATHS'
"""


def add_arguments(parser: ArgumentParser) -> None:
    which = "(ID | DATASET BLOCK | --key NAME KEY)"
    parser.usage = f"%(prog)s [-h] [-d DIR] [--json] [--timeout S] {which} -- CMD [ARG ...]"
    parser.add_argument_group(
        "the command",
        "CMD finds the files in $FSDM_CHUNK_PATH, and the id in $FSDM_CHUNK_ID; those of a key\n"
        "in $FSDM_CHUNK_PATHS, one a line. The chunks are held until CMD has ended, and every\n"
        "process that it started and left behind.",
    )
    told = "a chunk's id; or with BLOCK a dataset: its id, 4 or more digits of it, or its name"
    parser.add_argument("dataset", nargs="?", metavar="ID|DATASET", help=told)
    parser.add_argument("block", nargs="?", type=int, metavar="BLOCK", help="a block number")
    add_key(parser)
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds for a chunk; then exit with code 4")


def run(arguments: Namespace) -> int:
    """Become CMD, with the locks on descriptors that it inherits: it holds the chunks as it runs."""
    if (arguments.dataset is None) == (arguments.key is None):
        hint = "fsdm acquire --help"
        raise InvalidInputError("takes an ID, DATASET and BLOCK, or --key NAME KEY", field="acquire", hint=hint)
    client = open_client(arguments)
    return become(list(_refs(client, arguments)), arguments.command)


def _refs(client: Client, arguments: Namespace) -> list[ChunkRef]:
    if arguments.key is not None:
        return _of_key(client, arguments.timeout, *arguments.key)
    if arguments.block is not None:
        return [client.acquire((dataset_of(arguments, client.layout), arguments.block), arguments.timeout)]
    [what] = ids_of(Namespace(ids=[arguments.dataset]), client.layout)
    return [client.acquire(what, arguments.timeout)]


def _of_key(client: Client, timeout_s: float | None, name: str, text: str) -> list[ChunkRef]:
    for key in keys_in(text):
        refs = list(client.acquire_key(name, key, timeout_s))
        if refs:
            return refs
    what = "no chunk that is here or registered holds the key"
    raise NotAvailableError(f"{what} {text!r:.80} of index {name}")
