"""`fsdm explain`: explain the state of a chunk, and what to do."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import add_ids, ids_of, names_of
from fsdm.cli.output import show
from fsdm.model.errors import NotAvailableError
from fsdm.status.explain import explain_chunks
from fsdm.status.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.status.explain_text import Explanation

EXAMPLES = """\
fsdm explain -d data ID
fsdm status -d data | grep -w failed | cut -f1 | xargs fsdm explain -d data
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "+")


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        ids = ids_of(arguments, client.layout)
        explanations = explain_chunks(client.layout, ids, names_of(arguments, client.layout), but_pid=os.getpid())
    lines = (line for one in explanations for line in _lines(one))
    show(arguments, [asdict(one) for one in explanations], lines)
    if unknown := [one.id for one in explanations if one.state == "unknown"]:
        raise NotAvailableError(f"nothing is known of {', '.join(unknown)}")


def _lines(one: Explanation) -> Iterator[str]:
    yield f"{one.id} is {one.state}"
    for question, answers in (("asked", one.asked), ("here", one.here), ("why", one.why), ("to do", one.todo)):
        for number, answer in enumerate(answers):
            yield f"  {question if number == 0 else '':<6} {plain(answer)}"
