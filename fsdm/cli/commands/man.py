"""`fsdm man`: print the manual page."""

from argparse import Namespace

from fsdm import __version__
from fsdm.cli.manpage import manual
from fsdm.cli.output import show

EXAMPLES = """\
fsdm man | man -l -    # read it
fsdm man > ~/.local/share/man/man1/fsdm.1    # for `man fsdm`
"""


def run(arguments: Namespace) -> None:
    page = manual(arguments.build_parser(), __version__)
    show(arguments, {"man": page}, [page.removesuffix("\n")])
