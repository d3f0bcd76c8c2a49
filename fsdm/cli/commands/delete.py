"""`fsdm delete`: ask for chunks to be deleted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import TYPE_CHECKING

from fsdm.cli.arguments import add_brake, open_client
from fsdm.cli.ids import add_ids, ids_of
from fsdm.cli.output import row, show, tell
from fsdm.lists.difference import Comparison, Difference
from fsdm.model.errors import ChunkInUseError
from fsdm.model.units import readable
from fsdm.reconcile.delete_brake import FEW_DELETES, place_deletes
from fsdm.store.filesystem import exists
from fsdm.store.holders import held_places

if TYPE_CHECKING:
    from fsdm.client import Client

EXAMPLES = """\
fsdm delete -d data ID
fsdm delete -d data ID --dry-run
fsdm delete -d data ID --unless-held
fsdm ls -d data | xargs fsdm delete -d data --yes    # all: without --yes it stops
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "+")
    add_brake(parser)
    parser.add_argument(
        "--unless-held", action="store_true", help="only what no process holds; where one does, end with code 1"
    )


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client:
        ids = ids_of(arguments, client.layout)
        if arguments.dry_run and arguments.unless_held:
            now = {place.chunk_id for place in held_places(client.layout, client.available_places())}
            ids = [one for one in ids if one not in now]
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
        in_use = list[ChunkInUseError]()
        place = partial(_place_unless_held, client, in_use) if arguments.unless_held else None
        place_deletes(client.layout, ids, meant=arguments.yes and not is_braked, place=place)
    if is_braked:
        tell("fsdm: the reconciler holds deletes back: fsdm status says why")
    held = [error.chunk_id for error in in_use]
    show(arguments, {"deleted": [one for one in ids if one not in held], "in_use": held})
    for error in in_use[1:]:
        tell(f"fsdm: {error}")
    if in_use:
        raise in_use[0]


def _place_unless_held(client: Client, in_use: list[ChunkInUseError], chunk_id: str) -> None:
    try:
        client.delete_chunk(chunk_id, unless_held=True)
    except ChunkInUseError as e:
        in_use.append(e)


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
