"""`fsdm sync`: make the wanted chunks equal to a list."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from fsdm.cli.arguments import add_brake, open_client, positive
from fsdm.cli.documents import add_strict
from fsdm.cli.output import ASSUMED_BYTES_PER_S, estimate, show, tell, to_fetch
from fsdm.lists.difference import Comparison, Difference, place
from fsdm.model.errors import InvalidInputError
from fsdm.model.units import readable
from fsdm.reconcile.delete_brake import check, too_much
from fsdm.status.terminal import plain

EXAMPLES = """\
fsdm sync -d data assignment.jsonl --dry-run
fsdm sync -d data https://example.org/assignment.jsonl.gz
make-wants | fsdm sync -d data -
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "list",
        metavar="FILE|URL|-",
        help="all the chunks that are to be here: JSON Lines, each as `fsdm want` takes it; perhaps gzip",
    )
    parser.add_argument("--expect", type=positive, metavar="N", help="refuse a list that has not just N wants")
    add_strict(parser)
    add_brake(parser)


def run(arguments: Namespace) -> None:
    """Read the whole list, want the chunks that are missing, delete those that it does not have."""
    from fsdm.lists.assignment import read_assignment

    reading = read_assignment(arguments.list, arguments.expect, strict=arguments.strict)
    with open_client(arguments) as client, reading as assignment:
        for doubt in assignment.doubts:
            tell(f"fsdm: {plain(doubt)}")
        if not len(assignment) and not arguments.yes:
            raise InvalidInputError("the list is empty", hint="nothing was changed; where all is to go, say so: --yes")
        difference = Comparison(client.layout).with_assignment(assignment)
        if not arguments.dry_run:
            if not arguments.yes:
                check(difference.going + difference.replaced, difference.here, arguments.brake)
            place(client.layout, difference, assignment, meant=arguments.yes)
    _show(arguments, difference)


def _show(arguments: Namespace, found: Difference) -> None:
    braked = too_much(found.going + found.replaced, found.here, None if arguments.yes else arguments.brake)
    seconds = found.fetch_bytes / ASSUMED_BYTES_PER_S
    document = {"dry_run": arguments.dry_run, **asdict(found), "seconds": seconds, "braked": bool(braked)}
    would = "would be " if arguments.dry_run else ""
    lines = (
        f"{len(found.wanted)} {would}wanted ({to_fetch(found.fetch_bytes, found.undeclared)})",
        f"{len(found.deleted)} {would}deleted ({readable(found.freed_bytes)})",
        f"{found.unchanged} unchanged",
    )
    show(arguments, document, lines)
    if arguments.dry_run and not arguments.json:
        tell(estimate(found.fetch_bytes, None))
        if braked:
            tell(f"fsdm: it would be braked: {braked}")
