"""`fsdm ls`: list the available chunks, by dataset and block."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import row, show

EXAMPLES = """\
fsdm ls -d data
fsdm ls -d data --long
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-l", "--long", action="store_true", help="dataset, start, end and id, tab-separated")


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        found = [(p.dataset_id, p.block_range.start, p.block_range.stop, p.chunk_id) for p in client.available_places()]
    documents = [dict(zip(("dataset_id", "start", "end", "id"), cells, strict=True)) for cells in found]
    show(arguments, documents, (row(*cells) if arguments.long else cells[-1] for cells in found))
