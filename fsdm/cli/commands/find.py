"""`fsdm find`: print the path of the chunk that holds a block, or of those that hold a key."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import find_ref
from fsdm.cli.keys import add_block_or_key, check_block_or_key, keys_in
from fsdm.cli.output import show
from fsdm.model.errors import DamagedError, NotAvailableError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from fsdm.client import Client
    from fsdm.store.refs import ChunkRef

EXAMPLES = """\
fsdm find -d data DATASET 17000000
fsdm find -d data --key tx HASH
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_block_or_key(parser)


def run(arguments: Namespace) -> None:
    check_block_or_key(arguments, "find")
    with open_client(arguments) as client:
        if arguments.key is not None:
            _find_key(client, arguments, *arguments.key)
            return
        with find_ref(client, arguments) as ref:
            show(arguments, _document(ref), [str(ref.path)])


def _document(ref: ChunkRef) -> dict[str, Any]:
    place = {"dataset_id": ref.dataset_id, "start": ref.block_range.start, "end": ref.block_range.stop}
    return {"id": ref.id, **place, "path": str(ref.path)}


def _find_key(client: Client, arguments: Namespace, name: str, text: str) -> None:
    """Print each chunk as it is found: there may be more of them than a process may hold."""
    for key in keys_in(text):
        found = [_found(ref, name, key) for ref in client.find_key(name, key)]
        if found:
            document = {"index": name, "key": key.hex(), "chunks": found}
            show(arguments, document, (str(chunk["path"]) for chunk in found))
            return
    raise NotAvailableError(f"no available chunk holds the key {text!r:.80} of index {name}")


def _found(ref: ChunkRef, name: str, key: bytes) -> dict[str, Any]:
    with ExitStack() as stack:
        stack.enter_context(ref)
        index, places = ref.index(name), None
        if index is not None:
            stack.enter_context(index)
            with suppress(DamagedError):  # then it counts as absent
                places = [place.document() for place in index.find(key)]
        return _document(ref) | {"places": places}
