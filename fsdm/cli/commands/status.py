"""`fsdm status`: show the state of each chunk, and why."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter, deque
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
from fsdm.status.reading import StatusReading
from fsdm.status.terminal import is_in_front, is_screen, plain, print_json
from fsdm.store.data_dir import check_format, unreadable
from fsdm.store.filesystem import exists
from fsdm.store.leader_lock import LockHolder, describe_holder

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

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
        shown = _Shown(arguments, client.layout)
        if arguments.counts:
            deque(shown.chunks(), maxlen=0)
            counts = shown.rest().counts
            show(arguments, {"counts": counts}, (row(*one) for one in counts.items()))
            return
        if arguments.json:
            chunks = [*shown.chunks()]
            print_json(_status_document(shown.rest(), chunks, shown.names))
        else:
            _print(arguments, shown)
    if shown.missing:
        raise NotAvailableError(f"nothing is known of {', '.join(sorted(shown.missing))}")


class _Shown:
    """The chunks that are asked for, read one after the other; how many there were in which state, and which not."""

    def __init__(self, arguments: Namespace, layout: Layout) -> None:
        self.missing = {*ids_of(arguments, layout)}
        self.names = names_of(arguments, layout)
        self.states: Counter[str] = Counter()
        self._arguments = arguments
        self._layout = layout
        self._ids = frozenset(self.missing)
        try:
            self._reading = StatusReading(layout)
        except OSError as e:
            raise unreadable(layout, e) from e

    def chunks(self) -> Iterator[ChunkStatus]:
        """Yield how each stands.

        Raises:
            DataDirectoryError: the data directory has gone, or cannot be read.
        """
        ids, asked = self._ids, self._arguments
        found, dataset_id = self._all(), None
        if asked.dataset is not None:
            found = iter(listed := [*found])
            known = {chunk.dataset_id for chunk in listed if chunk.dataset_id}
            dataset_id = dataset_of(asked, self._layout, known)
        for chunk in found:
            if (
                (not ids or chunk.id in ids)
                and dataset_id in {None, chunk.dataset_id}
                and (asked.state is None or chunk.state in asked.state)
            ):
                self.states[chunk.state] += 1
                yield chunk
            self.missing.discard(chunk.id)

    def rest(self) -> Status:
        """Read what concerns all chunks, those not shown too, after `chunks`."""
        try:
            return self._reading.rest()
        except OSError as e:
            raise unreadable(self._layout, e) from e

    def _all(self) -> Iterator[ChunkStatus]:
        """Yield all chunks, and those that are only registered where these are asked for."""
        are_known_asked = not self._ids and "known" in (self._arguments.state or ())
        here: set[str] = set()
        try:
            for chunk in self._reading.each():
                if are_known_asked:
                    here.add(chunk.id)
                yield chunk
        except OSError as e:
            raise unreadable(self._layout, e) from e
        if are_known_asked:
            yield from known_chunks(self._layout, here)
        for one in sorted(self.missing):
            if exists(self._layout.known_marker(one)):
                yield read_known(self._layout, one)


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
    from fsdm.status.progress import Progress
    from fsdm.status.progress_view import document, glyphs_for, one_line
    from fsdm.status.survey import Surveyor

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


def _print(arguments: Namespace, shown: _Shown) -> None:
    """Print a line for each chunk as it is read, for other programs; on a screen, a table for people."""
    names, chunks = shown.names, shown.chunks()
    if is_screen(sys.stdout):
        rows: list[tuple[str, ...]] = [
            (one.id[:12], one.state, _dataset(one, names), *_cells(one, human=True)) for one in chunks
        ]
        seen = shown.rest()
        rows += [("-", "ignored", "-", "-", "-", told) for told in _oddities(seen)]
        lines = table(("ID", "STATE", "DATASET", "BLOCKS", "SIZE", "WHY"), rows)
    else:
        for one in chunks:
            name = names.get(one.dataset_id or "")
            print(row(one.id, one.state, *_cells(one, human=arguments.human), *([name] if name else ())))
        seen = shown.rest()
        lines = (row("-", "ignored", "-", "-", told) for told in _oddities(seen))
    for line in lines:
        print(line)
    for sentence in _summary(seen, shown.states):
        tell(sentence)


def _oddities(seen: Status) -> list[str]:
    return [plain(f"{oddity.path}: {oddity.why}") for oddity in seen.oddities]


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
    why = error or ("to be verified" if chunk.verifying else "")
    if not why and chunk.index_errors:
        why = "; ".join(f"no index {said}" for said in chunk.index_errors)
    return f"[{blocks.start}, {blocks.stop})" if blocks else "-", f"{size}{of}", plain(why)


def _summary(seen: Status, counts: Mapping[str, int]) -> Iterator[str]:
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
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no chunks"
    read_only = ", WHICH IS READ-ONLY" if seen.disk.read_only else ""
    reconciler = plain(describe_holder(seen.reconciler))
    yield f"{states}; reconciler: {reconciler}; {readable(seen.disk.free_bytes)} free on the disk{read_only}"
