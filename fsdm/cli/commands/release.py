"""`fsdm release`: release the deletes that the brake holds back."""

from argparse import Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show, tell
from fsdm.model.units import count
from fsdm.store.json_files import read_document

EXAMPLES = """\
fsdm release -d data
"""


def run(arguments: Namespace) -> None:
    """Release them, and say how many were held back."""
    with open_client(arguments) as client:
        said = read_document(client.layout.brake).get("held_back", 0)
        client.release_deletes()
    held_back = said if isinstance(said, int) else 0
    show(arguments, {"released": True, "held_back": held_back})
    if not arguments.json:
        tell(f"fsdm: {count(held_back, 'delete')} released" if held_back else "fsdm: no deletes were held back")
