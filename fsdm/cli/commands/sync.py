"""`fsdm sync`: make what is wanted equal to a list."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.arguments import add_brake, open_client
from fsdm.cli.output import ASSUMED_BYTES_PER_S, estimate
from fsdm.model.errors import EXIT_OK, InvalidInputError
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse

    from fsdm.cli.difference import Difference

EXAMPLES: Final = """\
fsdm sync -d data assignment.jsonl --dry-run
fsdm sync -d data https://example.org/assignment.jsonl.gz
make-wants | fsdm sync -d data -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument(
        "list",
        metavar="FILE|URL|-",
        help="all the chunks that are to be here: JSON Lines, each as `fsdm want` takes it; perhaps gzip",
    )
    add_brake(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the whole list; then want what is missing of it, and delete what is not in it."""
    from fsdm.cli.assignment import read_assignment
    from fsdm.cli.difference import Comparison, place
    from fsdm.reconcile.delete_brake import check

    with open_client(arguments) as client, read_assignment(arguments.list) as assignment:
        if not len(assignment) and not arguments.yes:
            raise InvalidInputError("the list is empty", hint="nothing was changed; where all is to go, say so: --yes")
        difference = Comparison(client.layout).with_assignment(assignment)
        if not arguments.dry_run:
            if not arguments.yes:
                check(difference.going + difference.replaced, difference.here, arguments.brake)
            place(client.layout, difference, assignment, meant=arguments.yes)
    _show(difference, arguments)
    return EXIT_OK


def _show(difference: Difference, arguments: argparse.Namespace) -> None:
    from fsdm.model.units import readable

    if arguments.json:
        print_json(_document(difference, arguments))
        return
    found, would = difference, "would be " if arguments.dry_run else ""
    undeclared = f", and {found.undeclared} files that declare no size" if found.undeclared else ""
    print(f"{len(found.wanted)} {would}wanted ({readable(found.fetch_bytes)} to fetch{undeclared})")
    print(f"{len(found.deleted)} {would}deleted ({readable(found.freed_bytes)})")
    print(f"{found.unchanged} unchanged")
    if arguments.dry_run:
        print(estimate(found.fetch_bytes, None), file=sys.stderr)
    if arguments.dry_run and (said := _braked(difference, arguments)):
        print(f"fsdm: it would be braked: {said}", file=sys.stderr)


def _document(found: Difference, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "dry_run": arguments.dry_run,
        "wanted": found.wanted,
        "deleted": found.deleted,
        "unchanged": found.unchanged,
        "here": found.here,
        "going": found.going,
        "replaced": found.replaced,
        "fetch_bytes": found.fetch_bytes,
        "undeclared": found.undeclared,
        "seconds": found.fetch_bytes / ASSUMED_BYTES_PER_S,
        "freed_bytes": found.freed_bytes,
        "braked": bool(_braked(found, arguments)),
    }


def _braked(found: Difference, arguments: argparse.Namespace) -> str:
    """What the brake would say."""
    from fsdm.reconcile.delete_brake import too_much

    return too_much(found.going + found.replaced, found.here, None if arguments.yes else arguments.brake)
