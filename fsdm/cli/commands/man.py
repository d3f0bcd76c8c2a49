"""`fsdm man`: print the manual page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm man | man -l -    # read it
fsdm man > ~/.local/share/man/man1/fsdm.1    # for `man fsdm`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""


def run(arguments: argparse.Namespace) -> int:
    """Print the page, as man(1) takes it."""
    from fsdm import __version__
    from fsdm.cli.manpage import manual

    page = manual(arguments.build_parser(), __version__)
    if arguments.json:
        print_json({"man": page})
    else:
        print(page, end="")
    return EXIT_OK
