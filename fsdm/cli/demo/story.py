"""Tell the demo's story: downloads, held deletes, a failure, a crash, a budget, the end.

Each part waits for what it has brought about, within the demo's limit; none sleeps to be in time.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.cli.demo.check import end_state_faults, find_id, leftovers
from fsdm.cli.demo.processes import PHRASES, SYMBOLS, Line, Run, hold, reconcile
from fsdm.cli.demo.source import Source
from fsdm.client import Client
from fsdm.model.documents import FileSource
from fsdm.model.errors import FsdmError, InvalidInputError
from fsdm.model.units import readable

if TYPE_CHECKING:
    from pathlib import Path

    from fsdm.cli.demo.processes import Child
    from fsdm.model.documents import DataChunk

LIMIT_S: Final = 60.0
PAUSE_S: Final = 0.5  # after a step has been told, for people who read along; nothing depends on it
# what `status` shows after an event; after others, nothing is there any more
SHOWN: Final = {"available": "available", "retiring": "retiring", "failed": "failed", "over": "waiting"}


def demo(
    data_dir: Path | None,
    *,
    scale: float = 1.0,
    as_json: bool = False,
    out: TextIO | None = None,
    limit_s: float = LIMIT_S,
) -> bool:
    """Tell the whole story, and return whether the end state is right.

    `data_dir` is to be new or empty, and is kept; without one, a temporary directory is used and removed. `scale`
    multiplies the sizes of the files. With `as_json`, each event is a line {"at", "kind", "chunk_id", "text"}, and the
    last line is a summary with "ok"; `out` is stdout unless told otherwise. After `limit_s` seconds the demo gives up,
    and says what it was waiting for.

    Raises:
        InvalidInputError: `data_dir` is not an empty directory, or `scale` not above zero.
    """
    if not 0 < scale < float("inf"):
        raise InvalidInputError(f"must be above zero, not {scale}", field="scale")
    with ExitStack() as stack:
        root = os.path.abspath(data_dir or stack.enter_context(TemporaryDirectory(prefix="fsdm-demo-")))
        _check_empty(root)
        source = stack.enter_context(Source(scale))
        pause_s = PAUSE_S * min(scale, 1.0)
        run = Run(root, out or sys.stdout, source.names, as_json=as_json, limit_s=limit_s, pause_s=pause_s)
        faults = _Story(stack.enter_context(run), source).tell()
        _summarise(run, faults, kept(source), f"; it is kept in {root}" if data_dir else "")
        return not faults


def _check_empty(path: str) -> None:
    try:
        occupied = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as e:
        raise InvalidInputError(f"{path} cannot be used: {e.strerror}", field="data_dir") from None
    if occupied:
        hint = "name one that does not exist yet, or none at all: then a temporary one is used"
        raise InvalidInputError(f"{path} is not empty; the demo needs its own", field="data_dir", hint=hint)


def kept(source: Source) -> list[DataChunk]:
    """List the chunks that the story leaves: all but ethereum's second and hyperliquid's first."""
    ethereum, binance, hyperliquid = source.chunks.values()
    return [ethereum[0], *ethereum[2:], *binance, *hyperliquid[1:]]


@dataclass(slots=True)
class _Story:
    """The parts of the story, in order; each raises FsdmError where something is wrong."""

    run: Run
    source: Source
    asked_at: float = 0.0  # when something was last wanted or deleted
    client: Client = field(init=False)
    reconciler: Child = field(init=False)

    def tell(self) -> list[str]:
        """Tell all parts, and return what was wrong."""
        run, (ethereum, binance, hyperliquid) = self.run, self.source.chunks.values()
        try:
            run.step(f"a source at {self.source.url}, a data directory {run.data_dir}")
            self.reconciler = run.start("the reconciler", reconcile)
            run.step(f"the reconciler is process {self.reconciler.process.pid}")
            with Client(run.data_dir) as self.client:
                self.chunks_arrive(*ethereum[:2], binance[0], *hyperliquid[:2])
                self.delete_waits_for_readers(ethereum[0])
                self.killed_reader_holds_nothing(ethereum[1])
                self.stalled_download_is_deleted(ethereum[2])
                self.failure_stops_no_other(binance[1], ethereum[3], hyperliquid[2])
                self.reconciler_is_killed(binance[0], hyperliquid[0], hyperliquid[3], *ethereum[1:3])
                self.budget_is_kept(ethereum[0], ethereum[1])
                run.step("everything has converged; readers and reconciler end, the end state is checked")
                self.converge()
                for child in [*run.children]:
                    run.end(child)
                run.step("the end state")
                return [*_violations(run), *end_state_faults(self.client, kept(self.source))]
        except FsdmError as e:
            return [str(e), *_unfinished(run), *_violations(run)]

    def chunks_arrive(self, *chunks: DataChunk) -> None:
        self.run.step(f"{len(chunks)} chunks of three datasets are wanted")
        self.want(*chunks)
        self.run.step("found by block; the end of a range is the first block that is not in it")
        first, second, *_ = chunks
        self.find(first, first.block_range[-1])
        self.find(second, second.block_range[0])
        self.find(second, second.block_range.stop, there=False)

    def delete_waits_for_readers(self, chunk: DataChunk) -> None:
        self.run.step("two readers hold a chunk while it is deleted: it waits for them, and is found no more")
        first, last = self.hold("reader 1", chunk), self.hold("reader 2", chunk)
        self.delete(chunk, then="retiring")
        self.find(chunk, chunk.block_range[0], there=False)
        self.read_on(first, chunk)
        self.read_on(last, chunk)
        self.run.step("it is wanted again while it is held: available at once, nothing is fetched")
        requests = self.source.requests_for(chunk)
        self.want(chunk)
        _must(self.source.requests_for(chunk) == requests, "a chunk that was here was fetched again")
        self.run.step("deleted again; one reader lets go, then the other")
        self.delete(chunk, then="retiring")
        self.run.end(first)
        self.read_on(last, chunk)
        released_at = time.monotonic()
        self.run.end(last)
        self.expect("deleted", chunk)
        after_s = self.told("deleted", chunk.id)[0].at - released_at
        self.run.step(f"gone {after_s * 1000:.0f} ms after the last reader was told to let go")

    def killed_reader_holds_nothing(self, chunk: DataChunk) -> None:
        self.run.step("a reader is killed while it keeps a chunk from its delete")
        reader = self.hold("reader 3", chunk)
        self.delete(chunk, then="retiring")
        self.run.end(reader, kill=True)
        self.expect("deleted", chunk)

    def stalled_download_is_deleted(self, chunk: DataChunk) -> None:
        self.run.step("a download that gets no more bytes is deleted in its middle")
        self.want_half(chunk)
        self.delete(chunk, then="stopped")
        self.source.release()

    def failure_stops_no_other(self, chunk: DataChunk, *others: DataChunk) -> None:
        self.run.step("one URL is wrong (HTTP 404): that chunk is shown as failed, all the others go on")
        wrong = FileSource(url=f"{chunk.files['logs.parquet'].url}.not-there")
        self.want(chunk.model_copy(update={"files": {**chunk.files, "logs.parquet": wrong}}), *others, then="")
        self.expect("failed", chunk)
        self.expect("available", *others)
        self.run.step("the want is put right")
        self.want(chunk)

    def reconciler_is_killed(self, held: DataChunk, deleted: DataChunk, late: DataChunk, *cut: DataChunk) -> None:
        reader = self.hold("reader 4", held)
        here = [chunk for chunk in kept(self.source) if chunk.id in self.client.list_chunks()]
        requests = self.source.requests_for(*here)
        self.run.step("two more are wanted, and the reconciler is killed in the middle of both")
        self.want_half(*cut)
        self.run.end(self.reconciler, kill=True)
        self.source.release()
        self.run.step("nobody reconciles now: readers find and read on, and what is asked waits on disk")
        self.read_on(reader, held)
        self.find(held, held.block_range[0])
        self.delete(deleted, then="")
        self.want(late, then="")
        self.run.step("a new reconciler starts: it takes up all that was asked, before and since")
        self.reconciler = self.run.start("the new reconciler", reconcile)
        self.expect("available", *cut, late)
        self.expect("deleted", deleted)
        _must(self.source.requests_for(*here) == requests, "a chunk that was here was fetched after the crash")

    def budget_is_kept(self, chunk: DataChunk, other: DataChunk) -> None:
        self.converge()
        budget = sum(status.size_bytes for status in self.client.status().chunks.values()) + _size_of(chunk) // 2
        self.run.step(f"the reconciler starts anew, with a budget of {readable(budget)}: too little for one more")
        self.run.end(self.reconciler)
        self.reconciler = self.run.start("the reconciler with a budget", reconcile, str(budget))
        requests = self.source.requests_for(chunk)
        self.want(chunk, then="over")
        _must(self.source.requests_for(chunk) == requests, "a chunk that there is no room for was fetched")
        self.run.step("another is deleted: now there is room, and it starts by itself")
        self.delete(other, then="deleted")
        self.expect("available", chunk)
        self.run.until("the reconciler tells how much is taken", partial(self.told, "size"))

    def want(self, *chunks: DataChunk, then: str = "available") -> None:
        self.asked_at = time.monotonic()
        for chunk in chunks:
            self.client.download_chunk(chunk)
        self.expect(then, *chunks)

    def want_half(self, *chunks: DataChunk) -> None:
        """Have chunks downloaded up to the middle of one file, where the source sends no more."""
        held = self.source.hold(*(chunk.files["statediffs.parquet"].url for chunk in chunks))
        self.want(*chunks, then="")
        self.run.until("the downloads are half-way", lambda: self.source.reached >= held)
        for chunk in chunks:
            status = self.client.status().chunks[chunk.id]
            _must(status.state == "downloading", f"a chunk that is half-way is shown as {status.state}")
            here, whole = readable(status.size_bytes), readable(_size_of(chunk))
            self.run.say("half-way", f"{here} of {whole} are here", chunk.id)

    def delete(self, chunk: DataChunk, then: str) -> None:
        self.asked_at = time.monotonic()
        self.client.delete_chunk(chunk.id)
        self.expect(then, chunk)

    def expect(self, kind: str, *chunks: DataChunk) -> None:
        """Wait until an event of each chunk has been told, and its status agrees."""
        for chunk in chunks if kind else ():
            what = f"{SYMBOLS[kind]} {kind} is told and shown of {self.run.names[chunk.id]}"
            self.run.until(what, partial(self.is_so, kind, chunk))

    def is_so(self, kind: str, chunk: DataChunk) -> bool:
        status, listed = self.client.status().chunks.get(chunk.id), chunk.id in self.client.list_chunks()
        shown = (status.state if status else None) == SHOWN.get(kind)
        return shown and listed == (kind == "available") and bool(self.told(kind, chunk.id))

    def told(self, kind: str, chunk_id: str = "") -> list[Line]:
        """List what was told of a chunk, or of all, since something was last wanted or deleted."""
        lines = [line for _, line in self.run.lines if (line.kind, line.chunk_id) == (kind, chunk_id)]
        return [line for line in lines if line.at >= self.asked_at]

    def find(self, chunk: DataChunk, block: int, *, there: bool = True) -> None:
        found = find_id(self.client, chunk.dataset_id, block)
        _must(found == (chunk.id if there else None), f"block {block} leads to {found}")
        self.run.say("found", f"{'' if there else 'nothing is '}found by block {block}", found or "")

    def hold(self, name: str, chunk: DataChunk) -> Child:
        reader = self.run.start(name, hold, chunk.dataset_id, str(chunk.block_range[0]))
        _must(reader.last is not None and reader.last.chunk_id == chunk.id, f"{name} holds another chunk")
        self.run.say("found", f"{name} is process {reader.process.pid}, and holds it", chunk.id)
        return reader

    def read_on(self, reader: Child, chunk: DataChunk) -> None:
        """Wait until a reader has read its chunk once more, from beginning to end."""
        now, size_bytes = time.monotonic(), _size_of(chunk)

        def has_read() -> bool:
            return reader.last is not None and reader.last.at >= now and reader.last.size_bytes == size_bytes

        self.run.until(f"{reader.name} has read on", has_read)
        self.run.say("read", f"{reader.name} has read it again: {readable(size_bytes)}", chunk.id)

    def converge(self) -> None:
        self.run.until("nothing is pending", lambda: not leftovers(self.client.layout))


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FsdmError(otherwise)


def _size_of(chunk: DataChunk) -> int:
    return sum(file.size or 0 for file in chunk.files.values())


def _violations(run: Run) -> list[str]:
    lines = [(child, line) for child, line in run.lines if line.kind == "violation"]
    return [f"{child}, {run.names.get(line.chunk_id, '')}: {line.text}" for child, line in lines]


def _unfinished(run: Run) -> list[str]:
    try:
        chunks = Client(run.data_dir).status().chunks.values()
    except FsdmError as e:
        return [str(e)]
    return [
        f"{run.names.get(chunk.id, chunk.id)} is {chunk.state}: {chunk.error}"
        for chunk in chunks
        if chunk.state != "available"
    ]


def _summarise(run: Run, faults: list[str], chunks: list[DataChunk], where: str) -> None:
    """Write what was wrong, or how much was checked; then the verdict."""
    for fault in faults:
        run.show(Line("wrong", text=fault))
    checked = [] if faults else chunks
    numbers = {
        "chunks": len(checked),
        "files": sum(len(chunk.files) for chunk in checked),
        "bytes": sum(map(_size_of, checked)),
        "seconds": round(time.monotonic() - run.began, 3),
        "checks": sum(line.kind == "checked" for _, line in run.lines),
        "bytes_checked": sum(line.size_bytes for _, line in run.lines),
        "events": sum(line.kind in PHRASES for _, line in run.lines),
        "violations": len(_violations(run)),
    }
    text = (
        "  {chunks} chunks with {files} files and {bytes} bytes are here; readers made {checks} checks of "
        "{bytes_checked} bytes, {violations} violations; it took {seconds} s\n"
    ).format_map(numbers)
    verdict = f"WRONG: {faults[0]}" if faults else f"the end state is right{where}"
    symbol = run.symbols["wrong" if faults else "right"]
    run.write(f"{'' if faults else text}{symbol} {verdict}", {"ok": not faults, **numbers, "faults": faults})
