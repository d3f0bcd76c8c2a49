"""`fsdm want`: ask for chunks."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.documents import add_documents, place_each

EXAMPLES = """\
fsdm want -d data chunk.json
fsdm want -d data https://example.org/chunk.json
make-wants | fsdm want -d data -    # JSON Lines
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_documents(parser)


def run(arguments: Namespace) -> int:
    """Place a want for each document; name those that cannot be taken, and go on."""
    with open_client(arguments) as client:
        return place_each(arguments, client.download_chunk, "wanted")
