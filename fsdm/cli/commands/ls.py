"""`fsdm ls`: list the available chunks, by dataset and block."""

from argparse import ArgumentParser, Namespace
from collections import Counter

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import names_of
from fsdm.cli.output import row, show
from fsdm.model.layout import READY
from fsdm.store.json_files import read_document

EXAMPLES = """\
fsdm ls -d data
fsdm ls -d data --long
fsdm ls -d data --datasets
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-l", "--long", action="store_true", help="dataset, start, end and id, tab-separated")
    parser.add_argument("--datasets", action="store_true", help="each dataset, its available chunks, and its name")


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        places, layout, names = client.available_places(), client.layout, names_of(arguments, client.layout)
        if arguments.datasets:
            _show_datasets(arguments, Counter(place.dataset_id for place in places), names)
            return
        found = [(p.dataset_id, p.block_range.start, p.block_range.stop, p.chunk_id) for p in places]
        marks = [_unproven(layout.path(place)) for place in places] if arguments.json else []
    keys = ("dataset_id", "start", "end", "id")
    documents = [
        {**dict(zip(keys, cells, strict=True)), "unproven": unproven, "dataset_name": names.get(cells[0])}
        for cells, unproven in zip(found, marks, strict=False)
    ]
    show(arguments, documents, (row(*cells) if arguments.long else cells[-1] for cells in found))


def _show_datasets(arguments: Namespace, counts: Counter[str], names: dict[str, str]) -> None:
    found = [(dataset_id, counts[dataset_id], names.get(dataset_id, "")) for dataset_id in sorted({*counts, *names})]
    documents = [{"dataset_id": one, "chunks": chunks, "dataset_name": name or None} for one, chunks, name in found]
    show(arguments, documents, (row(*cells) for cells in found))


def _unproven(path: str) -> list[str]:
    """Return the files of a chunk of which only the end of a connection told that they were whole."""
    files = read_document(f"{path}/{READY}").get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return [name for name, entry in entries if isinstance(entry, dict) and entry.get("unproven") is True]
