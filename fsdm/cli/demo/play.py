"""The script: scenes of downloads, deletes, refs that a delete waits for, failures and a crash.

Whatever happens is shown as it happens. Every scene waits for what it has brought about, within a limit; none sleeps to
be in time. At the end the demo looks for itself whether the disk is as it has to be.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.cli.demo.cast import Cast, size_of, url_of, with_wrong_url
from fsdm.cli.demo.check import end_state_faults, leftovers
from fsdm.cli.demo.show import Show
from fsdm.cli.demo.source import Source
from fsdm.cli.demo.stage import DemoError, Stage
from fsdm.client import Client
from fsdm.model.errors import FsdmError, InvalidInputError
from fsdm.model.layout import Layout
from fsdm.model.units import readable
from fsdm.store.filesystem import exists

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fsdm.cli.demo.stage import Child
    from fsdm.model.documents import DataChunk

LIMIT_S: Final = 60.0
PAUSE_S: Final = 0.5  # after a step has been told, for whoever reads along; nothing depends on it


def demo(
    data_dir: Path | None,
    *,
    scale: float = 1.0,
    as_json: bool = False,
    out: TextIO | None = None,
    limit_s: float = LIMIT_S,
) -> bool:
    """Play the whole script; whether the end state is right.

    `data_dir` is to be new or empty, and is kept; without one, a temporary directory is used and removed. `scale`
    multiplies the sizes of the files. With `as_json`, each event is a line {"at", "kind", "chunk_id", "text"}, and the
    last line is a summary with "ok"; `out` is stdout unless told otherwise. After `limit_s` seconds it gives up, and
    says what it was waiting for.

    Raises:
        InvalidInputError: `data_dir` is not an empty directory, or `scale` not above zero.
    """
    if not 0 < scale < float("inf"):
        raise InvalidInputError(f"must be above zero, not {scale}", field="scale")
    show = Show(out or sys.stdout, as_json=as_json)
    with ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="fsdm-demo-")) if data_dir is None else data_dir
        where = os.path.abspath(root)
        _check_empty(where)
        source = stack.enter_context(Source(scale))
        cast = Cast(source)
        stage = stack.enter_context(Stage(where, show, cast.names, limit_s, pause_s=PAUSE_S * min(scale, 1.0)))
        script = _Script(stage, source, cast)
        faults = script.play()
        script.summarise(show, faults, None if data_dir is None else where)
        return not faults


def _check_empty(path: str) -> None:
    try:
        occupied = bool(os.listdir(path))
    except FileNotFoundError:
        return
    except OSError as e:
        raise InvalidInputError(f"{path} cannot be used: {e.strerror}", field="data_dir") from None
    if occupied:
        raise InvalidInputError(
            f"{path} is not empty; the demo needs a directory of its own",
            field="data_dir",
            hint="name one that does not exist yet, or none at all: then a temporary one is used",
        )


class _Script:
    """The scenes, in order. Each leaves nothing pending behind, and raises DemoError where something is wrong."""

    def __init__(self, stage: Stage, source: Source, cast: Cast) -> None:
        self._stage = stage
        self._source = source
        self._cast = cast
        self._layout = Layout(stage.data_dir)
        self._checks = {"checks": 0, "bytes_checked": 0}
        self._reconciler: Child
        self._readers: list[Child]
        self._roamer: Child
        self._client: Client

    def play(self) -> list[str]:
        """Play all; what was wrong."""
        try:
            self._the_curtain_rises()
            with self._client:
                self._chunks_arrive()
                self._a_delete_waits_for_refs()
                self._wanted_again_while_it_is_held()
                self._the_last_release_lets_it_go()
                self._a_killed_reader_holds_nothing()
                self._a_stalled_download_is_deleted()
                self._one_fails_and_the_others_go_on()
                self._the_reconciler_is_killed()
                self._a_budget_is_kept()
                self._the_curtain_falls()
                return self._stage.violations + end_state_faults(self._stage.data_dir, self._client, self._cast.kept)
        except (DemoError, FsdmError) as e:
            return [str(e), *self._standing(), *self._stage.violations]

    # ---------------------------------------------------------------------------------------------------------- scenes

    def _the_curtain_rises(self) -> None:
        stage = self._stage
        stage.step(f"a source at {self._source.url}, a data directory {stage.data_dir}")
        self._reconciler = stage.start("reconcile", "the reconciler")
        self._client = Client(stage.data_dir)
        self._readers = [stage.start("read", f"reader {number}") for number in (1, 2)]
        self._roamer = stage.start("read", "the reader that roams")
        stage.ask(self._roamer, "roam", roads=self._cast.roads)
        pids = ", ".join(str(child.process.pid) for child in (*self._readers, self._roamer))
        stage.step(f"the reconciler is process {self._reconciler.process.pid}, readers are {pids}")

    def _chunks_arrive(self) -> None:
        cast = self._cast
        first, second = cast.ethereum[:2]
        wanted = [first, second, cast.binance[0], *cast.hyperliquid[:2]]
        self._stage.step(f"{len(wanted)} chunks of three datasets are wanted")
        self._want(*wanted)
        self._available(*wanted)
        self._stage.step("found by block; the end of a range is the first block that is not in it")
        reader, end = self._readers[0], second.block_range.stop
        self._hold(reader, first, first.block_range[-1])
        self._hold(reader, second, second.block_range[0])
        self._finds_nothing(reader, second, end)
        self._drop(reader, second)

    def _a_delete_waits_for_refs(self) -> None:
        stage, chunk = self._stage, self._cast.ethereum[0]
        self._hold(self._readers[1], chunk, chunk.block_range[0])
        stage.step("two readers hold a chunk while it is deleted: it waits for them, nobody else gets it")
        mark = self._delete(chunk)
        stage.expect("retiring", chunk.id, mark)
        self._finds_nothing(self._readers[1], chunk, chunk.block_range[0])
        for reader in self._readers:
            self._reads_on(reader, chunk)
        _must(chunk.id not in self._client.list_chunks(), "a chunk that waits for its refs is listed")
        _must(not stage.seen("deleted", chunk.id, mark), "a chunk went while two readers held it")

    def _wanted_again_while_it_is_held(self) -> None:
        stage, chunk = self._stage, self._cast.ethereum[0]
        stage.step("it is wanted again while it is held: available at once, nothing is fetched")
        requests = self._source.requests_for(chunk)
        mark = self._want(chunk)
        stage.expect("available", chunk.id, mark)
        self._available(chunk)
        _must(self._source.requests_for(chunk) == requests, "what was here was fetched again")

    def _the_last_release_lets_it_go(self) -> None:
        stage, chunk = self._stage, self._cast.ethereum[0]
        stage.step("deleted again; one reader lets go, then the other")
        mark = self._delete(chunk)
        stage.expect("retiring", chunk.id, mark)
        self._drop(self._readers[0], chunk)
        self._reads_on(self._readers[1], chunk)
        _must(not stage.seen("deleted", chunk.id, mark), "a chunk went while a reader held it")
        released = stage.at
        self._drop(self._readers[1], chunk)
        gone = stage.expect("deleted", chunk.id, mark)
        self._gone(chunk)
        stage.step(f"gone within {max(gone - released, 0.001) * 1000:.0f} ms of the last release")

    def _a_killed_reader_holds_nothing(self) -> None:
        stage, chunk, reader = self._stage, self._cast.ethereum[1], self._readers[0]
        stage.step("a reader is killed while it keeps a chunk from its delete")
        self._hold(reader, chunk, chunk.block_range[0])
        mark = self._delete(chunk)
        stage.expect("retiring", chunk.id, mark)
        reader.kill()
        stage.say("killed", f"{reader.name}: SIGKILL")
        stage.expect("deleted", chunk.id, mark)
        self._gone(chunk)

    def _a_stalled_download_is_deleted(self) -> None:
        stage, chunk = self._stage, self._cast.ethereum[2]
        stage.step("a download that gets no more bytes is deleted in its middle")
        hold = self._source.hold(url_of(chunk, "statediffs.parquet"))
        mark = self._want(chunk)
        stage.until("a download to stall", hold.reached.is_set)
        self._is_half_way(chunk)
        self._delete(chunk)
        stage.expect("stopped", chunk.id, mark)
        self._gone(chunk)
        hold.release()

    def _one_fails_and_the_others_go_on(self) -> None:
        stage, cast = self._stage, self._cast
        chunk, others = cast.binance[1], [cast.ethereum[3], cast.hyperliquid[2]]
        stage.step("one URL is wrong (HTTP 404): that chunk is shown as failed, all the others go on")
        mark = self._want(with_wrong_url(chunk), *others)
        stage.expect("failed", chunk.id, mark)
        self._available(*others)
        stage.until("`status` to show the failure", lambda: "404" in self._failure(chunk))
        stage.step("the want is put right")
        self._want(chunk)
        self._available(chunk)

    def _the_reconciler_is_killed(self) -> None:
        stage, cast, reader = self._stage, self._cast, self._readers[1]
        kept, (_, one, two, _) = cast.binance[0], cast.ethereum
        self._hold(reader, kept, kept.block_range[0])
        here = [chunk for chunk in cast.kept if chunk.id in self._client.list_chunks()]
        requests = [self._source.requests_for(chunk) for chunk in here]
        stage.step("two more are wanted, and the reconciler is killed in the middle of both")
        holds = [self._source.hold(url_of(chunk, "statediffs.parquet")) for chunk in (one, two)]
        self._want(one, two)
        stage.until("two downloads to be half-way", lambda: all(hold.reached.is_set() for hold in holds))
        self._is_half_way(one)
        self._reconciler.kill()
        stage.say("killed", "the reconciler: SIGKILL")
        for hold in holds:
            hold.release()
        self._nobody_reconciles(reader, kept)
        stage.step("a new reconciler starts: it takes up all that was asked, before and since")
        self._reconciler = stage.start("reconcile", "the new reconciler")
        self._available(one, two, cast.hyperliquid[3])
        self._gone(cast.hyperliquid[0])
        again = [self._source.requests_for(chunk) for chunk in here]
        _must(again == requests, "what was here before the crash was fetched again after it")

    def _nobody_reconciles(self, reader: Child, held: DataChunk) -> None:
        cast = self._cast
        self._stage.step("nobody reconciles now: readers find and read on, and what is asked waits on disk")
        self._reads_on(reader, held)
        self._hold(reader, cast.ethereum[3], cast.ethereum[3].block_range[0])
        self._delete(cast.hyperliquid[0])
        self._want(cast.hyperliquid[3])

    def _a_budget_is_kept(self) -> None:
        stage, (chunk, other, *_) = self._stage, self._cast.ethereum
        stage.until("nothing to be pending any more", lambda: not leftovers(self._layout))
        taken = sum(seen.size_bytes for seen in self._client.status().chunks.values())
        budget = taken + size_of(chunk) // 2
        stage.step(f"the reconciler starts anew, with a budget of {readable(budget)}: too little for one more")
        stage.end(self._reconciler)
        self._reconciler = stage.start("reconcile", "the reconciler with a budget", str(budget))
        requests = self._source.requests_for(chunk)
        mark = self._want(chunk)
        stage.expect("over", chunk.id, mark)
        stage.until("`status` to show that it waits", lambda: self._state(chunk) == "waiting")
        _must(self._source.requests_for(chunk) == requests, "a chunk that there is no room for was fetched")
        stage.step("another is deleted: now there is room, and it starts by itself")
        self._delete(other)
        stage.expect("started", chunk.id, mark)
        self._available(chunk)
        self._gone(other)
        stage.expect("size", "", mark)

    def _the_curtain_falls(self) -> None:
        stage = self._stage
        stage.step("everything has converged; readers and reconciler end, the end state is checked")
        for child in (self._readers[1], self._roamer):
            ended = stage.end(child)
            self._checks["checks"] += ended.get("checks", 0)
            self._checks["bytes_checked"] += ended.get("bytes", 0)
        stage.until("nothing to be pending any more", lambda: not leftovers(self._layout))
        stage.end(self._reconciler)
        stage.step("the end state")

    # ----------------------------------------------------------------------------------------------------------- moves

    def _want(self, *chunks: DataChunk) -> int:
        mark = self._stage.mark()
        for chunk in chunks:
            self._client.download_chunk(chunk)
        return mark

    def _delete(self, chunk: DataChunk) -> int:
        mark = self._stage.mark()
        self._client.delete_chunk(chunk.id)
        return mark

    def _available(self, *chunks: DataChunk) -> None:
        """Wait until they are available and nothing is asked any more."""
        for chunk in chunks:
            self._stage.until(f"{self._name(chunk)} to be available", partial(self._is_available, chunk))

    def _gone(self, chunk: DataChunk) -> None:
        path = self._layout.path(chunk.place)
        self._stage.until(f"{self._name(chunk)} to be gone", lambda: self._is_settled(chunk) and not exists(path))
        _must(not exists(self._layout.partial_of(chunk.id)), f"{self._name(chunk)} is gone, but for its partial")

    def _is_half_way(self, chunk: DataChunk) -> None:
        status = self._client.status().chunks.get(chunk.id)
        if status is None or status.state != "downloading":
            raise DemoError(f"a chunk that is being downloaded is shown as {status}")
        here, whole = readable(status.size_bytes), readable(status.total_bytes or 0)
        self._stage.say("half-way", f"{here} of {whole} are here", chunk.id)

    def _is_available(self, chunk: DataChunk) -> bool:
        return self._is_settled(chunk) and chunk.id in self._client.list_chunks()

    def _is_settled(self, chunk: DataChunk) -> bool:
        layout = self._layout
        return not exists(layout.want_marker(chunk.id)) and not exists(layout.delete_marker(chunk.id))

    def _state(self, chunk: DataChunk) -> str:
        status = self._client.status().chunks.get(chunk.id)
        return status.state if status is not None else ""

    def _failure(self, chunk: DataChunk) -> str:
        status = self._client.status().chunks.get(chunk.id)
        return (status.error or "") if status is not None and status.state == "failed" else ""

    def _hold(self, reader: Child, chunk: DataChunk, block: int) -> None:
        found = self._stage.ask(reader, "hold", dataset_id=chunk.dataset_id, block=block)
        _must(found == chunk.id, f"{reader.name} found {found} at block {block}, not {self._name(chunk)}")
        self._stage.say("found", f"{reader.name} found it by block {block}, and holds it", chunk.id)

    def _finds_nothing(self, reader: Child, chunk: DataChunk, block: int) -> None:
        found = self._stage.ask(reader, "hold", dataset_id=chunk.dataset_id, block=block)
        _must(found is None, f"{reader.name} found {found} at block {block}, where nothing is available")
        self._stage.say("found", f"{reader.name} looks for block {block}: nothing")

    def _reads_on(self, reader: Child, chunk: DataChunk) -> None:
        size = self._stage.ask(reader, "check", chunk_id=chunk.id)
        _must(size == size_of(chunk), f"{reader.name} reads {size} bytes of {self._name(chunk)}")
        self._stage.say("read", f"{reader.name} reads on: {readable(size)}, all digests right", chunk.id)

    def _drop(self, reader: Child, chunk: DataChunk) -> None:
        self._stage.ask(reader, "drop", chunk_id=chunk.id)

    def _name(self, chunk: DataChunk) -> str:
        return self._cast.names[chunk.id]

    # --------------------------------------------------------------------------------------------------------- the end

    def _standing(self) -> list[str]:
        """How things stand, after something went wrong."""
        try:
            chunks = Client(self._stage.data_dir).status().chunks.values()
        except FsdmError as e:
            return [str(e)]
        return [
            f"{self._cast.names.get(chunk.id, chunk.id)} is {chunk.state}" + (f": {chunk.error}" if chunk.error else "")
            for chunk in chunks
            if chunk.state != "available"
        ]

    def summarise(self, show: Show, faults: list[str], kept_at: str | None) -> None:
        """The faults, or a table of what has been checked; the verdict."""
        for fault in faults:
            self._stage.say("wrong", fault)
        checked = [] if faults else self._cast.kept
        numbers: dict[str, object] = {
            "chunks": len(checked),
            "files": sum(len(chunk.files) for chunk in checked),
            "bytes": sum(map(size_of, checked)),
            "seconds": round(self._stage.at, 3),
            **self._checks,
            "events": len(self._stage.events),
            "violations": len(self._stage.violations),
            "faults": faults,
        }
        where = f"; it is kept in {kept_at}" if kept_at else ""
        verdict = f"the end state is right{where}" if not faults else f"WRONG: {faults[0]}"
        show.summary(not faults, numbers, self._table(checked) if checked else [], verdict)

    def _table(self, kept: list[DataChunk]) -> list[tuple[str, ...]]:
        rows = [("dataset", "chunks", "files", "bytes")]
        by_dataset = groupby(kept, lambda chunk: self._name(chunk).split()[0])
        rows += [_row(name, list(chunks)) for name, chunks in by_dataset]
        checks = f"{self._checks['checks']} checks", readable(self._checks["bytes_checked"])
        return [
            *rows,
            _row("in all", kept),
            ("readers", *checks, f"{len(self._stage.violations)} wrong"),
            ("time", f"{self._stage.at:.1f} s"),
        ]


def _row(name: str, chunks: Iterable[DataChunk]) -> tuple[str, str, str, str]:
    chunks = list(chunks)
    return name, str(len(chunks)), str(sum(len(chunk.files) for chunk in chunks)), readable(sum(map(size_of, chunks)))


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoError(otherwise)
