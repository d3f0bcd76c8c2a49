"""`fsdm retry`: try failed chunks again now."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import add_ids, ids_of, open_client
from fsdm.cli.output import show
from fsdm.model.errors import NotAvailableError
from fsdm.store.json_files import read_object
from fsdm.store.markers import marker_ids

if TYPE_CHECKING:
    from fsdm.model.layout import Layout

EXAMPLES: Final = """\
fsdm retry -d data        # all that fail
fsdm retry -d data ID
"""
FAILURE_MAX_BYTES: Final = 1 << 20
# a chunk that waits for room would lose its turn; a damaged one has no marker; an entry that is no file has no time
LEFT_ALONE: Final = frozenset({"room", "damaged", "marker"})


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these; by default all that fail")


def run(arguments: Namespace) -> None:
    """Touch the markers of the chunks, and print the ids that have one."""
    ids = ids_of(arguments)
    with open_client(arguments) as client:
        retried = [one for one in ids or _failing(client.layout) if client.retry_chunk(one)]
    show(arguments, {"retried": retried}, retried)
    if missing := [one for one in ids if one not in retried]:
        raise NotAvailableError(f"nothing is asked for {', '.join(missing)}", hint="fsdm status tells what is")


def _failing(layout: Layout) -> list[str]:
    return [one for one in sorted(marker_ids(layout.failed)) if _kind(layout, one) not in LEFT_ALONE]


def _kind(layout: Layout, chunk_id: str) -> object:
    try:
        failure = read_object(layout.failed_of(chunk_id), FAILURE_MAX_BYTES)
    except (OSError, ValueError):
        return None
    return "damaged" if failure is None else failure.get("kind")
