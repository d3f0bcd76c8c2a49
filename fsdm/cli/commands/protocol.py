"""`fsdm protocol`: print the on-disk protocol."""

from argparse import Namespace
from importlib.resources import files as package_files

from fsdm.cli.output import show

EXAMPLES = """\
fsdm protocol | less
"""


def run(arguments: Namespace) -> None:
    text = package_files("fsdm").joinpath("PROTOCOL.md").read_text(encoding="utf-8")
    show(arguments, {"protocol": text}, [text.removesuffix("\n")])
