"""`fsdm resume`: let downloads go on."""

from argparse import Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show, tell

EXAMPLES = """\
fsdm resume -d data
"""


def run(arguments: Namespace) -> None:
    """End a pause; where there is none, that is no error."""
    with open_client(arguments) as client:
        was_paused = client.resume()
    show(arguments, {"was_paused": was_paused})
    if not was_paused and not arguments.json:
        tell("fsdm: downloads were not paused")
