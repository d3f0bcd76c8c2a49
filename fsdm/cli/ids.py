"""Chunks and datasets as people name them: an id, its first digits, or a dataset's name in `datasets.toml`."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from fsdm.cli.output import tell
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import is_id
from fsdm.status.terminal import plain
from fsdm.store.data_dir import unreadable
from fsdm.store.dataset_names import by_id, read_dataset_names
from fsdm.store.prefixes import is_prefix, known_chunks, known_datasets, the_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsdm.client import Client
    from fsdm.model.layout import Layout
    from fsdm.store.refs import ChunkRef

DIGITS: Final = "give 4 to 64 lower-case hex digits"


def add_ids(parser: argparse.ArgumentParser, nargs: str | None, meaning: str = "") -> None:
    """Add ids of chunks; None for `nargs`: just one."""
    told = f"{meaning}: ids, or their first digits, at least 4" if meaning else "an id, or its first digits, at least 4"
    parser.add_argument("ids", nargs=nargs or 1, metavar="ID", help=told)


def ids_of(arguments: argparse.Namespace, layout: Layout) -> list[str]:
    """Return the ids of the chunks that were named, each once.

    Raises:
        InvalidInputError: one of them names none, or several chunks.
        NotAvailableError: no chunk has an id that begins so.
    """
    ids = dict.fromkeys(text if is_id(text) else _by_prefix(text, layout) for text in arguments.ids)
    return list(ids)


def _by_prefix(text: str, layout: Layout) -> str:
    if not is_prefix(text):
        raise InvalidInputError(f"{plain(text)[:80]!r} is no id", field="ID", hint=DIGITS)
    try:
        return the_one(text, known_chunks(layout, text), "chunk")
    except OSError as e:
        raise unreadable(layout, e) from e


def dataset_of(arguments: argparse.Namespace, layout: Layout, known: Iterable[str] | None = None) -> str:
    """Return the id of the dataset that was named, of those `known`, or those that have a directory.

    Raises:
        InvalidInputError: it names none, or several; or `datasets.toml` cannot be taken.
        NotAvailableError: no dataset has an id that begins so.
    """
    text = arguments.dataset
    if is_id(text):
        return str(text)
    names = {} if arguments.names == "off" else read_dataset_names(layout)
    if text in names:
        return names[text]
    if not is_prefix(text):
        hint = _name_meant(text, names, layout, are_off=arguments.names == "off")
        raise InvalidInputError(f"{plain(text)[:80]!r} is no id of a dataset", field="DATASET", hint=hint)
    try:
        listed = known_datasets(layout) if known is None else known
    except OSError as e:
        raise unreadable(layout, e) from e
    return the_one(text, [*listed, *names.values()], "dataset")


def _name_meant(text: str, names: Mapping[str, str], layout: Layout, *, are_off: bool) -> str:
    """Ask for the name that was meant, or tell what else may be given."""
    if near := get_close_matches(text, names, 1):
        return f"did you mean {plain(near[0])}?"
    return f"{DIGITS}; " + ("names are off (--names)" if are_off else f"or a name that {layout.dataset_names} has")


def names_of(arguments: argparse.Namespace, layout: Layout) -> dict[str, str]:
    """Return the names of datasets by id, to be shown; a file that cannot be taken is told, and names none."""
    if arguments.names == "off":
        return {}
    try:
        return by_id(read_dataset_names(layout))
    except InvalidInputError as e:
        tell(f"fsdm: {plain(str(e))}")
        return {}


def add_block(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Add a dataset and a block; `nargs` "?": they may be left out."""
    told = "a dataset: its id, 4 or more digits of it, or its name"
    parser.add_argument("dataset", nargs=nargs, metavar="DATASET", help=told)
    parser.add_argument("block", nargs=nargs, type=int, metavar="BLOCK", help="a block number")


def find_ref(client: Client, arguments: argparse.Namespace) -> ChunkRef:
    """Take a ref to the chunk of DATASET that is responsible for BLOCK; NotAvailableError where there is none."""
    return client.hold_chunk(dataset_of(arguments, client.layout), arguments.block)
