"""`fsdm sync`: make the wanted chunks equal to a list."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from fsdm.cli.arguments import add_brake, open_client, positive
from fsdm.cli.documents import add_strict
from fsdm.cli.output import ASSUMED_BYTES_PER_S, estimate, show, tell, to_fetch
from fsdm.lists.difference import Comparison, Difference, place
from fsdm.model.errors import InvalidInputError
from fsdm.model.units import readable
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
    from fsdm.cli.sources import fetching_for
    from fsdm.lists.assignment import open_list

    with (
        open_client(arguments) as client,
        open_list(arguments.list, fetching_for(arguments.list, client.layout)) as text,
    ):
        comparison = Comparison(client.layout)
        reading = text.read(arguments.expect, comparison.take, comparison.takes_plain, strict=arguments.strict)
        with reading as assignment:
            for doubt in assignment.doubts:
                tell(f"fsdm: {plain(doubt)}")
            if not len(assignment) and not arguments.yes:
                hint = "nothing was changed; where all is to go, say so: --yes"
                raise InvalidInputError("the list is empty", hint=hint)
            difference, share = comparison.close(assignment), None if arguments.yes else arguments.brake
            if not arguments.dry_run:
                comparison.going.check(share)
                place(client.layout, difference, assignment, meant=arguments.yes)
    _show(arguments, difference, comparison.going.too_much(share))


def _show(arguments: Namespace, found: Difference, braked: str) -> None:
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
