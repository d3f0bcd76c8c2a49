"""`fsdm docs`: print a page of the documentation."""

from argparse import ArgumentParser, Namespace
from importlib.resources import files as package_files

from fsdm.cli.output import row, show
from fsdm.model.errors import InvalidInputError

EXAMPLES = """\
fsdm docs                      # which pages there are
fsdm docs recipes | less
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("page", nargs="?", metavar="PAGE", help="the page; without it, the pages are listed")


def run(arguments: Namespace) -> None:
    found = [one for one in package_files("fsdm").joinpath("docs").iterdir() if one.name.endswith(".md")]
    pages = {one.name.removesuffix(".md").lower(): one.read_text(encoding="utf-8") for one in sorted(found, key=str)}
    if arguments.page is None:
        titles = {name: text.partition("\n")[0].removeprefix("# ") for name, text in pages.items()}
        show(arguments, {"pages": titles}, (row(*one) for one in titles.items()))
        return
    if arguments.page not in pages:
        hint = f"one of {', '.join(pages)}"
        raise InvalidInputError(f"there is no page {arguments.page!r}", field="PAGE", hint=hint)
    text = pages[arguments.page]
    show(arguments, {"page": arguments.page, "text": text}, [text.removesuffix("\n")])
