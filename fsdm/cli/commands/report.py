"""`fsdm report`: tell the placer of a fleet which chunks of its list a node holds."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import open_client, positive
from fsdm.cli.output import row, show, write_text
from fsdm.model.units import count, readable

EXAMPLES = """\
fsdm report -d data assignment.jsonl --name a1 --to reports
fsdm report -d data assignment.jsonl --name a1 --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "list", metavar="FILE|URL|-", help="the list that was applied last, as `fsdm sync` has taken it"
    )
    parser.add_argument("--expect", type=positive, metavar="N", help="refuse a list that has not just N wants")
    parser.add_argument("--name", metavar="NAME", help="the node's name; it is kept in the data directory (node-id)")
    parser.add_argument("--to", metavar="DIR", help="write it there as NAME.json, by a rename")


def run(arguments: Namespace) -> None:
    """Compare what is here with the list, file by file as READY says it."""
    from fsdm.cli.sources import fetching_for
    from fsdm.fleet.report import Reporter, name_of
    from fsdm.lists.assignment import read_assignment

    with (
        open_client(arguments) as client,
        read_assignment(
            arguments.list, arguments.expect, fetching=fetching_for(arguments.list, client.layout)
        ) as assignment,
    ):
        name = name_of(client.layout, arguments.name)
        found = Reporter(client).report(assignment, assignment.sha256, time.time())
    document = found.to_json().decode()
    if arguments.to is not None:
        write_text(os.path.join(arguments.to, f"{name}.json"), document)
    lines = (
        row("node", name),
        row("missing", count(len(found.missing), "chunk")),
        row("extra", count(len(found.extra), "chunk")),
        row("failing", count(len(found.failing), "chunk")),
        row("here", readable(found.bytes)),
        *([row("braked", "deletes are held back: fsdm status says why")] if found.braked else ()),
    )
    show(arguments, {"name": name, **found.model_dump(mode="json")}, lines)
