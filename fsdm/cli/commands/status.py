"""`fsdm status`: show the state of each chunk, and why."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, get_args

from fsdm.cli.arguments import open_client, seconds
from fsdm.cli.ids import add_ids, dataset_of, ids_of, names_of
from fsdm.cli.output import add_human, row, show, table, tell
from fsdm.cli.signals import asked_to_end
from fsdm.model.errors import DataDirectoryError, InvalidInputError, NotAvailableError
from fsdm.model.state import Standing
from fsdm.model.units import readable
from fsdm.status.chunk_status import known_chunks, read_known
from fsdm.status.followed_text import followed_words
from fsdm.status.progress import Progress
from fsdm.status.survey import Surveyor
from fsdm.status.terminal import is_in_front, is_screen, plain, print_json
from fsdm.store.data_dir import check_format
from fsdm.store.filesystem import exists
from fsdm.store.leader_lock import LockHolder, describe_holder

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

    from fsdm.client import Client
    from fsdm.model.layout import Layout
    from fsdm.status.chunk_status import ChunkStatus, Status

EXAMPLES = """\
fsdm status -d data
fsdm status -d data ID
fsdm status -d data --state failed --state waiting -h
fsdm status -d data --counts
fsdm status -d data --state known                 # what is registered, and not here
fsdm status -d data --watch                       # until Ctrl-C, with the exit code 0
fsdm status -d data --watch --interval 60 >> log  # not on a terminal: a line each time
"""
H_IS_HUMAN: Final = True


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these")
    parser.add_argument("--dataset", metavar="DATASET", help="only its chunks: an id, 4 or more digits, or a name")
    parser.add_argument(
        "--state",
        action="append",
        choices=get_args(Standing),
        help="only chunks in this state; may be given several times",
    )
    parser.add_argument("--counts", action="store_true", help="show how many chunks there are of each kind, no more")
    add_human(parser)
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
        registered = _registered(arguments, client, ids, seen)
        known = {chunk.dataset_id for chunk in (*seen.chunks.values(), *registered) if chunk.dataset_id}
        dataset_id = None if arguments.dataset is None else dataset_of(arguments, client.layout, known)
    chunks = [
        chunk
        for chunk in (*seen.chunks.values(), *registered)
        if (not ids or chunk.id in ids)
        and dataset_id in {None, chunk.dataset_id}
        and (arguments.state is None or chunk.state in arguments.state)
    ]
    if arguments.counts:
        show(arguments, {"counts": seen.counts}, (row(*one) for one in seen.counts.items()))
        return
    missing = set(ids) - seen.chunks.keys() - {chunk.id for chunk in registered}
    if arguments.json:
        print_json(_status_document(seen, chunks, names))
    else:
        show(arguments, None, _lines(arguments, seen, chunks, names))
        for sentence in _summary(seen, chunks):
            tell(sentence)
    if missing:
        raise NotAvailableError(f"nothing is known of {', '.join(sorted(missing))}")


def _registered(arguments: Namespace, client: Client, ids: list[str], seen: Status) -> list[ChunkStatus]:
    """Read those that are only registered, where they are asked for."""
    if ids:
        asked = [one for one in ids if one not in seen.chunks and exists(client.layout.known_marker(one))]
        return [read_known(client.layout, one) for one in asked]
    return [*known_chunks(client.layout, seen.chunks)] if "known" in (arguments.state or ()) else []


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
        span = {"start": blocks.start, "end": blocks.stop} if blocks else {"start": None, "end": None}
        more = {"block_range": blocks and span, **span, "dataset_name": names.get(chunk.dataset_id or "")}
        documents.append(asdict(chunk) | more)
    holder = None if seen.reconciler is None else LockHolder.parse(seen.reconciler)
    process = None if holder is None else {"pid": holder.pid, "host": holder.host, "since": holder.since}
    return asdict(replace(seen, chunks={})) | {"chunks": documents, "reconciler_process": process}


def _lines(arguments: Namespace, seen: Status, chunks: list[ChunkStatus], names: Mapping[str, str]) -> Iterator[str]:
    """Make a line for each chunk, for other programs; on a screen, a table for people."""
    oddities = [plain(f"{oddity.path}: {oddity.why}") for oddity in seen.oddities]
    if is_screen(sys.stdout):
        rows: list[tuple[str, ...]] = [
            (one.id[:12], one.state, _dataset(one, names), *_cells(one, human=True)) for one in chunks
        ]
        rows += [("-", "ignored", "-", "-", "-", told) for told in oddities]
        yield from table(("ID", "STATE", "DATASET", "BLOCKS", "SIZE", "WHY"), rows)
        return
    for one in chunks:
        name = names.get(one.dataset_id or "")
        yield row(one.id, one.state, *_cells(one, human=arguments.human), *([name] if name else ()))
    yield from (row("-", "ignored", "-", "-", told) for told in oddities)


def _dataset(chunk: ChunkStatus, names: Mapping[str, str]) -> str:
    return "-" if chunk.dataset_id is None else names.get(chunk.dataset_id) or chunk.dataset_id[:12]


def _cells(chunk: ChunkStatus, *, human: bool) -> tuple[str, str, str]:
    """Return blocks, size and reason."""
    blocks, shown = chunk.block_range, readable if human else str
    size, total, least = shown(chunk.size_bytes), chunk.total_bytes, chunk.least_bytes
    of = "" if total in {None, chunk.size_bytes} or total is None else f"/{shown(total)}"
    if human and total is None and least > chunk.size_bytes:  # other programs find it in --json
        of = f"/at least {shown(least)}"
    error = f"given up: {chunk.error}" if chunk.given_up else chunk.error
    why = plain(error or ("to be verified" if chunk.verifying else "") or _of_indexes(chunk))
    return f"[{blocks.start}, {blocks.stop})" if blocks else "-", f"{size}{of}", why


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
    if seen.followed is not None:
        yield from map(plain, followed_words(seen.followed, time.time()))
    if seen.reconciler_trouble is not None:
        yield plain(seen.reconciler_trouble)
    counts = Counter(chunk.state for chunk in chunks)
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no chunks"
    read_only = ", WHICH IS READ-ONLY" if seen.disk.read_only else ""
    reconciler = plain(describe_holder(seen.reconciler))
    yield f"{states}; reconciler: {reconciler}; {readable(seen.disk.free_bytes)} free on the disk{read_only}"
