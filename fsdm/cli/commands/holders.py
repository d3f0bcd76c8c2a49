"""`fsdm holders`: show which processes hold a chunk."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import UTC, datetime

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import add_ids, ids_of
from fsdm.cli.output import row, show, tell
from fsdm.model.errors import NotAvailableError
from fsdm.status.terminal import plain
from fsdm.store.catalog import Catalog
from fsdm.store.holders import Holder, look_for_holders

EXAMPLES = """\
fsdm holders -d data ID
fsdm holders -d data ID | cut -f1 | xargs ps -o pid,etime,args -p
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, None)


def run(arguments: Namespace) -> None:
    """Print a line for each process: pid, user, start, command; also of a deleted chunk."""
    with open_client(arguments) as client:
        (chunk_id,) = ids_of(arguments, client.layout)
        catalog = Catalog(client.layout)
        catalog.update()
        looked = look_for_holders(client.layout, catalog.places(chunk_id)).values()
    if not looked:
        raise NotAvailableError(f"no chunk {chunk_id} is here", hint="`fsdm explain` tells what is known of it")
    holders = [holder for one in looked for holder in one.found]
    unseen = list(dict.fromkeys(sentence for one in looked for sentence in one.unseen))
    document = {"id": chunk_id, "holders": [asdict(holder) for holder in holders], "unseen": unseen}
    show(arguments, document, (row(one.pid, plain(one.user), _since(one), plain(one.command)) for one in holders))
    if arguments.json:
        return
    if not holders:
        tell(f"no process {'that can be seen ' * bool(unseen)}holds {chunk_id}")
    for sentence in unseen:
        tell(f"fsdm: {sentence}")


def _since(holder: Holder) -> str:
    if holder.started_at is None:
        return "-"
    return datetime.fromtimestamp(holder.started_at, UTC).astimezone().isoformat(timespec="seconds")
