"""`fsdm verify`: read every byte of chunks again, and compare it with READY."""

from __future__ import annotations

import os
import random
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import closing
from typing import TYPE_CHECKING

from fsdm.cli.arguments import open_client, positive, size
from fsdm.cli.ids import add_ids, ids_of
from fsdm.cli.output import row, tell
from fsdm.model.errors import EXIT_DAMAGED, EXIT_OK, NotAvailableError
from fsdm.model.layout import VERIFIED
from fsdm.model.units import count, readable
from fsdm.status.terminal import plain, print_json

if TYPE_CHECKING:
    from fsdm.client import Client
    from fsdm.model.layout import Place
    from fsdm.verify.bulk import Verified

EXAMPLES = """\
fsdm verify -d data
fsdm verify -d data --sample 100 --rate 200M
fsdm verify -d data --repair && echo all is well    # what is damaged is fetched again by the reconciler
fsdm verify -d data ID --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these (by default all that are available)")
    parser.add_argument("--sample", type=positive, metavar="N", help="only N of them, at random")
    parser.add_argument("--rate", type=size, metavar="SIZE", help="read at most so much a second, as 200M")
    parser.add_argument("--jobs", type=positive, metavar="N", help="files read at once (default: cores + 1)")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="ask the reconciler to check what is damaged, to take it out of service, and to fetch it again; its "
        "holders keep the old files",
    )


def run(arguments: Namespace) -> int:
    """Print a line for each damaged chunk, with its files; end with 7 where there is one."""
    from fsdm.concurrency.rate_limit import Rate
    from fsdm.verify.bulk import BulkVerify

    began = time.monotonic()
    seen: list[Verified] = []
    with open_client(arguments) as client:
        places = _places(client, arguments)
        meter = _Meter(len(places), shown=not arguments.json and sys.stderr.isatty())
        jobs = arguments.jobs or len(os.sched_getaffinity(0)) + 1
        bulk = BulkVerify(client.layout, client.ref_at, rate=Rate(arguments.rate), jobs=jobs, progress=meter.read)
        with meter.bar, closing(bulk.run(places)) as found:
            for verified in found:
                seen.append(verified)
                meter.bar.advance(meter.task)
                if verified.unnoted is not None:
                    where = plain(f"{client.layout.path(verified.place)}/{VERIFIED}")
                    tell(f"{where} cannot be written, so `explain` does not show this: {plain(verified.unnoted)}")
                if verified.wrong:
                    if arguments.repair:
                        client.verify_chunk(verified.place.chunk_id)
                    if not arguments.json:
                        wrong = plain("; ".join(map(str, verified.wrong)))
                        print(row(verified.place.chunk_id, "damaged", wrong), flush=True)
    _summarize(arguments, client, seen, time.monotonic() - began)
    if any(verified.wrong for verified in seen):
        return EXIT_DAMAGED
    gone = [verified.place.chunk_id for verified in seen if verified.gone]
    if arguments.ids and gone:
        raise NotAvailableError(f"no longer available: {', '.join(gone)}")
    return EXIT_OK


def _places(client: Client, arguments: Namespace) -> list[Place]:
    ids = set(ids_of(arguments, client.layout))
    places = [place for place in client.available_places() if not ids or place.chunk_id in ids]
    if missing := ids - {place.chunk_id for place in places}:
        raise NotAvailableError(f"not available: {', '.join(sorted(missing))}", hint="nothing was verified")
    if arguments.sample is not None and arguments.sample < len(places):
        return sorted(random.sample(places, arguments.sample))
    return places


class _Meter:
    """A progress bar on stderr; `shown` only where that is a terminal."""

    def __init__(self, chunks: int, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self.bar = Progress(
            *("verifying", BarColumn(), MofNCompleteColumn(), "{task.fields[read]}", TimeRemainingColumn()),
            console=Console(stderr=True),
            disable=not shown,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # elsewhere stdout is data, which the bar leaves alone
        )
        self.task = self.bar.add_task("", total=chunks, read="")
        self._read_bytes = 0

    def read(self, count: int) -> None:
        """Count bytes that were read. Any thread may call it: the sum is only shown."""
        self._read_bytes += count
        self.bar.update(self.task, read=readable(self._read_bytes))


def _summarize(arguments: Namespace, client: Client, seen: list[Verified], seconds: float) -> None:
    damaged = [verified for verified in seen if verified.wrong]
    gone = [verified.place.chunk_id for verified in seen if verified.gone]
    read_bytes = sum(verified.size_bytes for verified in seen)
    if not arguments.json:
        went = f", {len(gone)} went meanwhile" if gone else ""
        speed = readable(int(read_bytes / seconds)) if seconds > 0 else "-"
        verified_chunks = f"{count(len(seen) - len(gone), 'chunk')} verified, {len(damaged)} damaged{went}"
        tell(f"{verified_chunks}; {readable(read_bytes)} in {seconds:.1f} s, {speed}/s")
        if damaged and arguments.repair:
            tell("      the reconciler checks them, and fetches them again: `fsdm wait`")
        elif damaged:
            tell("      to have them fetched again: `fsdm verify --repair`")
        return
    document = {
        "verified": len(seen) - len(gone),
        "bytes": read_bytes,
        "seconds": round(seconds, 3),
        "damaged": [
            {
                "id": verified.place.chunk_id,
                "dataset_id": verified.place.dataset_id,
                "path": client.layout.path(verified.place),
                "wrong": [{"file": wrong.file, "why": wrong.why} for wrong in verified.wrong],
            }
            for verified in damaged
        ],
        "gone": gone,
        "repair": arguments.repair,
    }
    print_json(document)
