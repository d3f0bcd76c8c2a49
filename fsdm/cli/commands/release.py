"""`fsdm release`: release the deletes that the brake holds back."""

from argparse import Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show

EXAMPLES = """\
fsdm release -d data
"""


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        client.release_deletes()
    show(arguments, {"released": True})
