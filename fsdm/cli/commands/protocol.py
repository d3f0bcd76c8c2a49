"""`fsdm protocol`: print the on-disk protocol."""

from __future__ import annotations

from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Final

from fsdm.cli.output import show

if TYPE_CHECKING:
    from argparse import Namespace

EXAMPLES: Final = """\
fsdm protocol | less
"""


def run(arguments: Namespace) -> None:
    """Print the protocol, as it is shipped."""
    text = package_files("fsdm").joinpath("PROTOCOL.md").read_text(encoding="utf-8")
    show(arguments, {"protocol": text}, [text.removesuffix("\n")])
