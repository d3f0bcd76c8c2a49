"""`fsdm status`: show the state of each chunk, and why."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from fsdm.cli.arguments import open_client, seconds
from fsdm.cli.ids import add_ids, ids_of, names_of
from fsdm.cli.output import row, tell
from fsdm.cli.signals import asked_to_end
from fsdm.model.errors import DataDirectoryError, InvalidInputError, NotAvailableError
from fsdm.model.units import readable
from fsdm.status.progress import Progress
from fsdm.status.survey import Surveyor
from fsdm.status.terminal import is_in_front, is_screen, plain, print_json
from fsdm.store.data_dir import check_format
from fsdm.store.leader_lock import describe_holder

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

    from fsdm.model.layout import Layout
    from fsdm.status.chunk_status import ChunkStatus, Status

EXAMPLES = """\
fsdm status -d data
fsdm status -d data ID
fsdm status -d data --watch                       # until Ctrl-C, with the exit code 0
fsdm status -d data --watch --interval 60 >> log  # not on a terminal: a line each time
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the progress until SIGINT or SIGTERM: on a terminal a live view, else a line (with --json a "
        "document) again and again",
    )
    parser.add_argument(
        "--interval", type=seconds, metavar="S", help="seconds between two updates of --watch (default 1, live 0.5)"
    )


def run(arguments: Namespace) -> None:
    if arguments.watch:
        _watch(arguments)
        return
    if arguments.interval is not None:
        raise InvalidInputError("goes with --watch alone", field="--interval", hint="add --watch, or leave it out")
    with open_client(arguments) as client:
        ids, names = ids_of(arguments, client.layout), names_of(arguments, client.layout)
        seen = client.status()
    chunks = [chunk for chunk in seen.chunks.values() if not ids or chunk.id in ids]
    missing = [one for one in ids if one not in seen.chunks]
    if arguments.json:
        print_json(_status_document(seen, chunks, names))
    else:
        _print_status(seen, chunks, names)
    if missing:
        raise NotAvailableError(f"nothing is known of {', '.join(missing)}")


def _watch(arguments: Namespace) -> None:
    if arguments.ids:
        raise InvalidInputError("shows the whole data directory", field="--watch", hint="leave out the ids")
    stop = asked_to_end()
    with open_client(arguments) as client:
        if is_screen(sys.stdout) and is_in_front(sys.stdout) and not arguments.json:
            _watch_on_screen(client.layout, stop, arguments.interval)
        else:
            _watch_in_lines(client.layout, stop, arguments.interval or 1.0, as_json=arguments.json)


def _watch_on_screen(layout: Layout, stop: threading.Event, interval_s: float | None) -> None:
    from rich.console import Console

    from fsdm.status.live_view import INTERVAL_S, LiveView
    from fsdm.status.progress_view import glyphs_for

    glyphs = glyphs_for(sys.stdout.encoding)
    with LiveView(layout, Console(), glyphs, interval_s=interval_s or INTERVAL_S):
        while not stop.wait(1.0):
            check_format(layout)  # raises where the directory has gone


def _watch_in_lines(layout: Layout, stop: threading.Event, interval_s: float, *, as_json: bool) -> None:
    from fsdm.status.live_view import SHARE
    from fsdm.status.progress_view import document, glyphs_for, one_line

    surveyor, progress, glyphs = Surveyor(layout), Progress(), glyphs_for(sys.stdout.encoding)
    while not stop.is_set():
        began = time.monotonic()
        check_format(layout)
        try:
            progress.take(surveyor.look(), time.monotonic())
        except OSError as e:
            hint = "check who may look into it, and whether it is still there"
            raise DataDirectoryError(f"{layout.root} cannot be looked at: {e}", hint=hint) from e
        if as_json:
            print_json(document(progress))
        else:
            print(one_line(progress, glyphs), flush=True)
        took = time.monotonic() - began
        stop.wait(max(interval_s - took, took * SHARE))


def _status_document(seen: Status, chunks: list[ChunkStatus], names: Mapping[str, str]) -> dict[str, Any]:
    documents = []
    for chunk in chunks:
        blocks = chunk.block_range
        more = {"block_range": blocks and {"start": blocks.start, "end": blocks.stop}}
        documents.append(asdict(chunk) | more | {"dataset_name": names.get(chunk.dataset_id or "")})
    return asdict(replace(seen, chunks={})) | {"chunks": documents}


def _print_status(seen: Status, chunks: list[ChunkStatus], names: Mapping[str, str]) -> None:
    for chunk in chunks:
        blocks = f"[{chunk.block_range.start}, {chunk.block_range.stop})" if chunk.block_range else "-"
        total = "" if chunk.total_bytes in {None, chunk.size_bytes} else f"/{chunk.total_bytes}"
        why = plain(chunk.error or ("to be verified" if chunk.verifying else "") or _of_indexes(chunk))
        name = names.get(chunk.dataset_id or "")
        print(row(chunk.id, chunk.state, blocks, f"{chunk.size_bytes}{total}", why, *([name] if name else ())))
    for oddity in seen.oddities:
        print(row("-", "ignored", "-", "-", plain(f"{oddity.path}: {oddity.why}")))
    for sentence in _summary(seen, chunks):
        tell(sentence)


def _of_indexes(chunk: ChunkStatus) -> str:
    return "; ".join(f"no index {said}" for said in chunk.index_errors)


def _summary(seen: Status, chunks: list[ChunkStatus]) -> Iterator[str]:
    if seen.paused is not None:
        by, reason = (str(seen.paused.get(key) or "") for key in ("by", "reason"))
        why = (f", by {by}" if by else "") + (f": {reason}" if reason else "")
        yield f"PAUSED: nothing is downloaded{plain(why)}; fsdm resume ends it"
    if seen.braked is not None:
        how = f"{seen.braked.get('held_back')} of {seen.braked.get('of')} chunks: {seen.braked.get('what_to_do')}"
        yield f"BRAKED: deletes are held back, {plain(how)}"
    if seen.reconciler_trouble is not None:
        yield plain(seen.reconciler_trouble)
    counts = Counter(chunk.state for chunk in chunks)
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no chunks"
    read_only = ", WHICH IS READ-ONLY" if seen.disk.read_only else ""
    reconciler = plain(describe_holder(seen.reconciler))
    yield f"{states}; reconciler: {reconciler}; {readable(seen.disk.free_bytes)} free on the disk{read_only}"
