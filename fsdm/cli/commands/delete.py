"""`fsdm delete`: ask for chunks to be deleted."""

from argparse import ArgumentParser, Namespace

from fsdm.cli.arguments import add_brake, open_client
from fsdm.cli.ids import add_ids, ids_of
from fsdm.cli.output import row, show, tell
from fsdm.lists.difference import Comparison, Difference
from fsdm.model.units import readable
from fsdm.reconcile.delete_brake import FEW_DELETES, place_deletes
from fsdm.store.filesystem import exists

EXAMPLES = """\
fsdm delete -d data ID
fsdm delete -d data ID --dry-run
fsdm ls -d data | xargs fsdm delete -d data --yes    # all: without --yes it stops
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "+")
    add_brake(parser)


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        ids = ids_of(arguments, client.layout)
        share = arguments.brake if len(ids) >= FEW_DELETES and not arguments.yes else None
        if arguments.dry_run or share is not None:
            comparison = Comparison(client.layout)
            found = comparison.with_deletes(ids)
            if arguments.dry_run:
                unknown = [one for one in ids if not comparison.knows(one)]
                _show(arguments, found, unknown, comparison.going.too_much(share))
                return
            comparison.going.check(share)
        is_braked = exists(client.layout.brake)  # by deletes of others, which this command does not release
        place_deletes(client.layout, ids, meant=arguments.yes and not is_braked)
    if is_braked:
        tell("fsdm: the reconciler holds deletes back: fsdm status says why")
    show(arguments, {"deleted": ids})


def _show(arguments: Namespace, found: Difference, unknown: list[str], braked: str) -> None:
    document = {
        "dry_run": True,
        "deleted": found.deleted,
        "unknown": unknown,
        "here": found.here,
        "going": found.going,
        "freed_bytes": found.freed_bytes,
        "braked": bool(braked),
    }
    lines = [row(one, "unknown" if one in unknown else "would be deleted") for one in found.deleted]
    show(arguments, document, lines)
    if not arguments.json:
        tell(f"{found.going} of {found.here} chunks would go ({readable(found.freed_bytes)})")
        if braked:
            tell(f"fsdm: it would be braked: {braked}")
