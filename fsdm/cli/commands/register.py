"""`fsdm register`: let chunks be known, to be fetched when somebody asks for them."""

from argparse import ArgumentParser, Namespace
from functools import partial

from fsdm.cli.arguments import open_client
from fsdm.cli.documents import add_documents, place_each
from fsdm.model.errors import AlreadyKnownError

EXAMPLES = """\
fsdm register -d data chunk.json
make-wants | fsdm register -d data -    # JSON Lines
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_documents(parser)
    parser.add_argument("--exclusive", action="store_true", help="refuse, with code 1, what is registered already")


def run(arguments: Namespace) -> int:
    """Register each document; name those that cannot be taken, and go on."""
    with open_client(arguments) as client:
        place = partial(client.register, exclusive=arguments.exclusive)
        return place_each(arguments, place, "registered", AlreadyKnownError)
