"""`fsdm retry`: try again now what has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK, NotAvailableError
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse

    from fsdm.model.layout import Layout

EXAMPLES: Final = """\
fsdm retry -d data        # all that fail
fsdm retry -d data ID
"""
FAILURE_MAX_BYTES: Final = 1 << 20
# what waits for room would lose its turn; for what is damaged nothing is asked; what is no file cannot be touched
LEFT_ALONE: Final = frozenset({"room", "damaged", "marker"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these; else all that fail")


def run(arguments: argparse.Namespace) -> int:
    """Touch the markers of what is asked for; where nothing is asked for an id, say so."""
    from fsdm.model.layout import as_id

    ids = list(dict.fromkeys(as_id(one, "ID") for one in arguments.ids))
    with open_client(arguments) as client:
        retried = [one for one in ids or _failing(client.layout) if client.retry_chunk(one)]
    if arguments.json:
        print_json({"retried": retried})
    else:
        for chunk_id in retried:
            print(chunk_id)
    if missing := [one for one in ids if one not in retried]:
        raise NotAvailableError(f"nothing is asked for {', '.join(missing)}", hint="fsdm status tells what is")
    return EXIT_OK


def _failing(layout: Layout) -> list[str]:
    from fsdm.store.markers import marker_ids

    return [one for one in sorted(marker_ids(layout.failed)) if _kind(layout, one) not in LEFT_ALONE]


def _kind(layout: Layout, chunk_id: str) -> object:
    from fsdm.store.json_files import read_object

    try:
        failure = read_object(layout.failed_of(chunk_id), FAILURE_MAX_BYTES)
    except (OSError, ValueError):
        return None
    return "damaged" if failure is None else failure.get("kind")
