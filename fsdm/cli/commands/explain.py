"""`fsdm explain`: say why a chunk stands as it does, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK, NotAvailableError
from fsdm.status.terminal import plain, print_json

if TYPE_CHECKING:
    import argparse

    from fsdm.status.explain_text import Explanation

EXAMPLES: Final = """\
fsdm explain -d data ID
fsdm status -d data | grep -w failed | cut -f1 | xargs fsdm explain -d data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="64 lower-case hex digits")


def run(arguments: argparse.Namespace) -> int:
    """For each id: what is asked for, what is here, what holds it up, and what to do."""
    from fsdm.model.layout import as_id
    from fsdm.status.explain import explain_chunks

    ids = [as_id(one, "ID") for one in arguments.ids]
    with open_client(arguments) as client:
        explanations = explain_chunks(client.layout, ids)
    if arguments.json:
        print_json([asdict(one) for one in explanations])
    else:
        for one in explanations:
            _print(one)
    unknown = [one.id for one in explanations if one.state == "unknown"]
    if unknown:
        raise NotAvailableError(f"nothing is known of {', '.join(unknown)}")
    return EXIT_OK


def _print(one: Explanation) -> None:
    print(f"{one.id} is {one.state}")
    for question, answers in (("asked", one.asked), ("here", one.here), ("why", one.why), ("to do", one.todo)):
        for number, answer in enumerate(answers):
            print(f"  {question if number == 0 else '':<6} {plain(answer)}")
