"""`fsdm retry`: try failed chunks again now, also those that were given up."""

from argparse import ArgumentParser, Namespace
from typing import Final

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import add_ids, ids_of
from fsdm.cli.output import show
from fsdm.model.errors import NotAvailableError
from fsdm.status.chunk_status import read_failing
from fsdm.store.markers import marker_ids

EXAMPLES = """\
fsdm retry -d data        # all that fail
fsdm retry -d data ID
"""
# a chunk that waits for room would lose its turn; an entry that is no file has no time
LEFT_ALONE: Final = frozenset({"room", "marker"})


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these (by default all that fail)")


def run(arguments: Namespace) -> None:
    """Have the chunks tried again, and print the ids of those that anything is asked for."""
    with open_client(arguments) as client:
        ids = ids_of(arguments, client.layout)
        failed = sorted(marker_ids(client.layout.failed))
        failing = (one for one in failed if read_failing(client.layout, one)[0].kind not in LEFT_ALONE)
        retried = [one for one in ids or failing if client.recover(one)]
    show(arguments, {"retried": retried}, retried)
    if missing := [one for one in ids if one not in retried]:
        raise NotAvailableError(f"nothing is asked for {', '.join(missing)}", hint="fsdm status tells what is")
