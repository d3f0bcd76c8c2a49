"""`fsdm release`: release the deletes that the brake holds back."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show

EXAMPLES: Final = """\
fsdm release -d data
"""


def run(arguments: Namespace) -> None:
    """Release every delete that stands now."""
    with open_client(arguments) as client:
        client.release_deletes()
    show(arguments, {"released": True})
