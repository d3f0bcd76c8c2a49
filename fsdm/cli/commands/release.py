"""`fsdm release`: release the deletes that the brake holds back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show

if TYPE_CHECKING:
    from argparse import Namespace

EXAMPLES: Final = """\
fsdm release -d data
"""


def run(arguments: Namespace) -> None:
    """Release every delete that stands now."""
    with open_client(arguments) as client:
        client.release_deletes()
    show(arguments, {"released": True})
