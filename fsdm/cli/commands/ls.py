"""`fsdm ls`: list the available chunks, by dataset and block."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import row, show
from fsdm.model.layout import READY
from fsdm.store.json_files import read_document

EXAMPLES = """\
fsdm ls -d data
fsdm ls -d data --long
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-l", "--long", action="store_true", help="dataset, start, end and id, tab-separated")


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        places, layout = client.available_places(), client.layout
        found = [(p.dataset_id, p.block_range.start, p.block_range.stop, p.chunk_id) for p in places]
        marks = [_unproven(layout.path(place)) for place in places] if arguments.json else []
    documents = [
        {**dict(zip(("dataset_id", "start", "end", "id"), cells, strict=True)), "unproven": names}
        for cells, names in zip(found, marks, strict=False)
    ]
    show(arguments, documents, (row(*cells) if arguments.long else cells[-1] for cells in found))


def _unproven(path: str) -> list[str]:
    """Return the files of a chunk of which only the end of a connection told that they were whole."""
    files = read_document(f"{path}/{READY}").get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return [name for name, entry in entries if isinstance(entry, dict) and entry.get("unproven") is True]
