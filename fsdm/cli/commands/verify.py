"""`fsdm verify`: read every byte of chunks again, and compare it with READY."""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.arguments import open_client, positive, size
from fsdm.model.errors import EXIT_DAMAGED, EXIT_OK, NotAvailableError
from fsdm.status.terminal import plain, print_json

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager

    from fsdm.client import Client
    from fsdm.model.layout import Place
    from fsdm.verify.bulk import Verified

EXAMPLES: Final = """\
fsdm verify -d data
fsdm verify -d data --sample 100 --rate 200M
fsdm verify -d data --repair && echo all is well    # what is damaged is fetched again by the reconciler
fsdm verify -d data ID --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these; by default all that are available")
    parser.add_argument("--sample", type=positive, metavar="N", help="only so many of them, at random")
    parser.add_argument("--rate", type=size, metavar="SIZE", help="read at most so much a second, as 200M")
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="files read at once (default: one for each core, and one more)"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="ask the reconciler to look at what is damaged, to take it out of service, and to fetch it again; "
        "who holds it keeps what there is",
    )


def run(arguments: argparse.Namespace) -> int:
    """Say which chunks are damaged, one a line, and which of their files; code 7 where any is."""
    from fsdm.concurrency.rate_limit import Rate
    from fsdm.verify.bulk import Verification

    began = time.monotonic()
    seen: list[Verified] = []
    with open_client(arguments) as client:
        places = _places(client, arguments)
        meter = _Meter(len(places), shown=not arguments.json and sys.stderr.isatty())
        jobs = arguments.jobs or len(os.sched_getaffinity(0)) + 1
        verification = Verification(
            client.layout, client.ref_at, rate=Rate(arguments.rate), jobs=jobs, progress=meter.read
        )
        with meter.shown, closing(verification.run(places)) as found:
            for verified in found:
                seen.append(verified)
                meter.done()
                if verified.wrong:
                    if arguments.repair:
                        client.verify_chunk(verified.place.chunk_id)
                    if not arguments.json:
                        _print_damage(verified)
    seconds = time.monotonic() - began
    if arguments.json:
        print_json(_document(client, seen, seconds, repair=arguments.repair))
    else:
        _summarize(seen, seconds, repair=arguments.repair)
    if any(verified.wrong for verified in seen):
        return EXIT_DAMAGED
    gone = [verified.place.chunk_id for verified in seen if verified.gone]
    if arguments.ids and gone:
        raise NotAvailableError(f"no longer available: {', '.join(gone)}")
    return EXIT_OK


def _places(client: Client, arguments: argparse.Namespace) -> list[Place]:
    from fsdm.model.layout import as_id

    ids = {as_id(one, "ID") for one in arguments.ids}
    places = [place for place in client.available_places() if not ids or place.chunk_id in ids]
    if missing := ids - {place.chunk_id for place in places}:
        raise NotAvailableError(f"not available: {', '.join(sorted(missing))}", hint="nothing was verified")
    if arguments.sample is not None and arguments.sample < len(places):
        return sorted(random.sample(places, arguments.sample))
    return places


class _Meter:
    """How far it is, on a terminal."""

    def __init__(self, chunks: int, *, shown: bool) -> None:
        self.size_bytes = 0
        self.shown: AbstractContextManager[object] = nullcontext()
        self._progress: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.shown = self._progress = Progress(
                TextColumn("verifying"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[read]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # elsewhere stdout is data, and none of the meter's business
            )
            self._task = self._progress.add_task("", total=chunks, read="")

    def read(self, count: int) -> None:
        """So many bytes. In any thread: what is added up here is only shown."""
        self.size_bytes += count
        if self._progress is not None:
            from fsdm.model.units import readable

            self._progress.update(self._task, read=readable(self.size_bytes))

    def done(self) -> None:
        """One chunk."""
        if self._progress is not None:
            self._progress.advance(self._task)


def _print_damage(verified: Verified) -> None:
    print(verified.place.chunk_id, "damaged", plain("; ".join(map(str, verified.wrong))), sep="\t", flush=True)


def _document(client: Client, seen: list[Verified], seconds: float, *, repair: bool) -> dict[str, Any]:
    damaged = [
        {
            "id": verified.place.chunk_id,
            "dataset_id": verified.place.dataset_id,
            "path": client.layout.path(verified.place),
            "wrong": [{"file": wrong.file, "why": wrong.why} for wrong in verified.wrong],
        }
        for verified in seen
        if verified.wrong
    ]
    return {
        "verified": sum(not verified.gone for verified in seen),
        "bytes": sum(verified.size_bytes for verified in seen),
        "seconds": round(seconds, 3),
        "damaged": damaged,
        "gone": [verified.place.chunk_id for verified in seen if verified.gone],
        "repair": repair,
    }


def _summarize(seen: list[Verified], seconds: float, *, repair: bool) -> None:
    from fsdm.model.units import count, readable

    read, damaged = sum(verified.size_bytes for verified in seen), sum(bool(verified.wrong) for verified in seen)
    gone = sum(verified.gone for verified in seen)
    went = f", {gone} went meanwhile" if gone else ""
    speed = readable(int(read / seconds)) if seconds > 0 else "-"
    print(
        f"{count(len(seen) - gone, 'chunk')} verified, {damaged} damaged{went}; "
        f"{readable(read)} in {seconds:.1f} s, {speed}/s",
        file=sys.stderr,
    )
    if damaged and repair:
        print("      they are looked at by the reconciler, and fetched again: `fsdm wait`", file=sys.stderr)
    elif damaged:
        print("      to have them fetched again: `fsdm verify --repair`", file=sys.stderr)
