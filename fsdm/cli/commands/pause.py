"""`fsdm pause`: stop downloads until they are resumed."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show

EXAMPLES = """\
fsdm pause -d data --reason "the link is needed for a backup"
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", default="", metavar="TEXT", help="the reason that `fsdm status` shows")


def run(arguments: Namespace) -> None:
    """Pause downloads: those that run stop, and go on from there when resumed. Deletes go on."""
    with open_client(arguments) as client:
        client.pause(arguments.reason)
    show(arguments, {"paused": True})
