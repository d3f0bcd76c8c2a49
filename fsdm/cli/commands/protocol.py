"""`fsdm protocol`: print the on-disk protocol."""

from __future__ import annotations

from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm protocol | less
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""


def run(arguments: argparse.Namespace) -> int:
    """Print the on-disk protocol."""
    text = package_files("fsdm").joinpath("PROTOCOL.md").read_text(encoding="utf-8")
    if arguments.json:
        print_json({"protocol": text})
    else:
        print(text, end="")
    return EXIT_OK
