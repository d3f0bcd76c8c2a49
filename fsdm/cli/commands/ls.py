"""`fsdm ls`: list the available chunks, by dataset and block."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import dataset_of, names_of
from fsdm.cli.output import add_human, row, show, table
from fsdm.model.layout import READY, Layout
from fsdm.model.units import readable
from fsdm.status.terminal import is_screen
from fsdm.store.catalog import Catalog
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.markers import marker_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.model.layout import Place

EXAMPLES = """\
fsdm ls -d data
fsdm ls -d data --long -h
fsdm ls -d data DATASET --long
fsdm ls -d data --datasets
"""
H_IS_HUMAN: Final = True


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="only this: an id, 4 or more digits of it, or a name"
    )
    parser.add_argument("-l", "--long", action="store_true", help="dataset, start, end, id and size, tab-separated")
    add_human(parser)
    parser.add_argument(
        "--datasets", action="store_true", help="each dataset, how many chunk directories it has, and its name"
    )


def run(arguments: Namespace) -> None:
    """List ids, for other programs; on a screen, a table for people."""
    with open_client(arguments) as client:
        layout = client.layout
        dataset_id = dataset_of(arguments, layout) if arguments.dataset is not None else None
        if arguments.datasets:
            _show_datasets(arguments, layout, dataset_id)
            return
        places = client.available_places(dataset_id)
    if arguments.json:
        names = names_of(arguments, layout)
        show(arguments, [_document(layout, place, names) for place in places])
    elif is_screen(sys.stdout):
        show(arguments, None, _on_screen(arguments, layout, places))
    else:
        show(arguments, None, (_line(arguments, layout, place) for place in places))


def _line(arguments: Namespace, layout: Layout, place: Place) -> str:
    blocks = place.block_range
    cells = (place.dataset_id, blocks.start, blocks.stop, place.chunk_id) if arguments.long else (place.chunk_id,)
    if not (arguments.long or arguments.human):
        return place.chunk_id
    size = declared_bytes(_files(layout, place)) or 0
    return row(*cells, readable(size) if arguments.human else size)


def _on_screen(arguments: Namespace, layout: Layout, places: list[Place]) -> Iterator[str]:
    names, digits = names_of(arguments, layout), 64 if arguments.long else 12
    rows = []
    for place in places:
        blocks, size = place.block_range, declared_bytes(_files(layout, place)) or 0
        dataset = place.dataset_id if arguments.long else names.get(place.dataset_id) or place.dataset_id[:digits]
        shown = str(size) if arguments.long and not arguments.human else readable(size)
        rows.append((dataset, f"[{blocks.start}, {blocks.stop})", shown, place.chunk_id[:digits]))
    return table(("DATASET", "BLOCKS", "SIZE", "ID"), rows)


def _document(layout: Layout, place: Place, names: Mapping[str, str]) -> dict[str, Any]:
    files, blocks = _files(layout, place), place.block_range
    span = {"start": blocks.start, "end": blocks.stop}
    entries = files.items() if isinstance(files, dict) else ()
    return {
        "dataset_id": place.dataset_id,
        **span,
        "id": place.chunk_id,
        "unproven": [name for name, one in entries if isinstance(one, dict) and one.get("unproven") is True],
        "dataset_name": names.get(place.dataset_id),
        "state": "available",
        "block_range": span,
        "size_bytes": declared_bytes(files) or 0,
    }


def _files(layout: Layout, place: Place) -> object:
    return read_document(f"{layout.path(place)}/{READY}").get("files")


def _show_datasets(arguments: Namespace, layout: Layout, dataset_id: str | None) -> None:
    """Count the chunks of each dataset by the names of their directories: none is looked into."""
    deleted, names = marker_ids(layout.delete), names_of(arguments, layout)
    here = Counter(place.dataset_id for place in Catalog(layout).listing() if place.chunk_id not in deleted)
    listed = sorted({*here, *names}) if dataset_id is None else [dataset_id]
    found = [(one, here[one], names.get(one, "")) for one in listed]
    documents = [{"dataset_id": one, "chunks": chunks, "dataset_name": name or None} for one, chunks, name in found]
    lines: Iterator[str] = (row(*cells) for cells in found)
    if is_screen(sys.stdout):
        lines = table(("DATASET", "CHUNKS", "NAME"), [(one, f"{chunks:,}", name) for one, chunks, name in found])
    show(arguments, documents, lines)
