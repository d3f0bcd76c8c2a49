"""`fsdm docs`: print a page of the documentation."""

from __future__ import annotations

from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import EXIT_OK, InvalidInputError
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm docs                      # which pages there are
fsdm docs recipes | less
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("page", nargs="?", metavar="PAGE", help="this one; without, they are listed")


def run(arguments: argparse.Namespace) -> int:
    """Print the page, or list them: name and title."""
    pages = _pages()
    if arguments.page is None:
        titles = {name: text.partition("\n")[0].removeprefix("# ") for name, text in pages.items()}
        if arguments.json:
            print_json({"pages": titles})
        else:
            for name, title in titles.items():
                print(name, title, sep="\t")
        return EXIT_OK
    text = pages.get(arguments.page)
    if text is None:
        raise InvalidInputError(f"there is no page {arguments.page!r}", field="PAGE", hint=f"one of {', '.join(pages)}")
    if arguments.json:
        print_json({"page": arguments.page, "text": text})
    else:
        print(text, end="")
    return EXIT_OK


def _pages() -> dict[str, str]:
    """The text of each page, by its name in small letters without `.md`."""
    found = [one for one in package_files("fsdm").joinpath("docs").iterdir() if one.name.endswith(".md")]
    return {one.name.removesuffix(".md").lower(): one.read_text(encoding="utf-8") for one in sorted(found, key=str)}
