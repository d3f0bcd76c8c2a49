"""`fsdm delete`: ask for chunks to be deleted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import add_brake, open_client
from fsdm.model.errors import EXIT_OK
from fsdm.reconcile.delete_brake import FEW_DELETES, check, too_much
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse

    from fsdm.cli.difference import Difference


EXAMPLES: Final = """\
fsdm delete -d data ID
fsdm delete -d data ID --dry-run
fsdm ls -d data | xargs fsdm delete -d data --yes    # all: without --yes it stops
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="64 lower-case hex digits")
    add_brake(parser)


def run(arguments: argparse.Namespace) -> int:
    """Place a delete marker for each id."""
    from fsdm.cli.difference import Comparison, place_deletes
    from fsdm.model.layout import as_id
    from fsdm.store.filesystem import exists

    ids = list(dict.fromkeys(as_id(one, "ID") for one in arguments.ids))
    share = arguments.brake if len(ids) >= FEW_DELETES and not arguments.yes else None
    with open_client(arguments) as client:
        if arguments.dry_run or share is not None:
            comparison = Comparison(client.layout)
            found = comparison.with_deletes(ids)
            if arguments.dry_run:
                unknown = [one for one in ids if not comparison.knows(one)]
                _show(found, unknown, too_much(found.going, found.here, share), as_json=arguments.json)
                return EXIT_OK
            check(found.going, found.here, share)
        is_braked = exists(client.layout.brake)  # by others' deletes: they are not ours to release
        place_deletes(client.layout, ids, meant=arguments.yes and not is_braked)
    if is_braked:
        print("fsdm: the reconciler holds deletes back: fsdm status says why", file=sys.stderr)
    if arguments.json:
        print_json({"deleted": ids})
    return EXIT_OK


def _show(found: Difference, unknown: list[str], braked: str, *, as_json: bool) -> None:
    from fsdm.model.units import readable

    if as_json:
        document = {
            "dry_run": True,
            "deleted": found.deleted,
            "unknown": unknown,
            "here": found.here,
            "going": found.going,
            "freed_bytes": found.freed_bytes,
            "braked": bool(braked),
        }
        print_json(document)
        return
    for chunk_id in found.deleted:
        print(chunk_id, "unknown" if chunk_id in unknown else "would be deleted", sep="\t")
    print(f"{found.going} of {found.here} chunks would go ({readable(found.freed_bytes)})", file=sys.stderr)
    if braked:
        print(f"fsdm: it would be braked: {braked}", file=sys.stderr)
