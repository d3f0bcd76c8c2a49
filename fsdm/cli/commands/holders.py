"""`fsdm holders`: show which processes hold a chunk."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK, NotAvailableError
from fsdm.status.terminal import plain, print_json

if TYPE_CHECKING:
    import argparse

    from fsdm.store.holders import Holder

EXAMPLES: Final = """\
fsdm holders -d data ID
fsdm holders -d data ID | cut -f1 | xargs ps -o pid,etime,args -p
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("id", metavar="ID", help="64 lower-case hex digits")


def run(arguments: argparse.Namespace) -> int:
    """A line for each process: its pid, user, since when it runs, its command; also where the chunk is deleted."""
    from fsdm.model.layout import as_id
    from fsdm.store.catalog import Catalog
    from fsdm.store.holders import look_for_holders

    chunk_id = as_id(arguments.id, "ID")
    with open_client(arguments) as client:
        catalog = Catalog(client.layout)
        catalog.refresh()
        looked = look_for_holders(client.layout, catalog.places(chunk_id)).values()
    if not looked:
        raise NotAvailableError(f"no chunk {chunk_id} is here", hint="`fsdm explain` tells what is known of it")
    holders = [holder for one in looked for holder in one.found]
    unseen = list(dict.fromkeys(sentence for one in looked for sentence in one.unseen))
    if arguments.json:
        print_json({"id": chunk_id, "holders": [asdict(holder) for holder in holders], "unseen": unseen})
        return EXIT_OK
    for holder in holders:
        print(holder.pid, plain(holder.user), _since(holder), plain(holder.command), sep="\t")
    if not holders:
        print(f"nobody {'that can be seen ' * bool(unseen)}holds {chunk_id}", file=sys.stderr)
    for sentence in unseen:
        print(f"fsdm: {sentence}", file=sys.stderr)
    return EXIT_OK


def _since(holder: Holder) -> str:
    from datetime import UTC, datetime

    if holder.started_at is None:
        return "-"
    return datetime.fromtimestamp(holder.started_at, UTC).astimezone().isoformat(timespec="seconds")
