"""`fsdm release`: release the deletes that the brake holds back."""

from argparse import Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show, tell
from fsdm.model.units import count
from fsdm.status.terminal import plain
from fsdm.store.followed import read_followed
from fsdm.store.json_files import read_document

EXAMPLES = """\
fsdm release -d data
"""


def run(arguments: Namespace) -> None:
    """Release them, and a list that is held back; say what was."""
    with open_client(arguments) as client:
        said = read_document(client.layout.brake).get("held_back", 0)
        followed = read_followed(client.layout)
        client.release_deletes()
    held_back = said if isinstance(said, int) else 0
    is_list = followed is not None and followed.held_back != ""
    show(arguments, {"released": True, "held_back": held_back, "list": followed.held_sha256 if followed else None})
    if arguments.json:
        return
    if followed is not None and is_list:
        tell(f"fsdm: list {(followed.held_sha256 or '')[:12]} released: {plain(followed.held_back)}")
    if held_back or not is_list:
        tell(f"fsdm: {count(held_back, 'delete')} released" if held_back else "fsdm: no deletes were held back")
