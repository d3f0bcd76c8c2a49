"""Tell the demo's story: each part waits for what it has brought about; none sleeps."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.cli.demo.source import Source
from fsdm.client import Client
from fsdm.concurrency.rate_limit import Rate
from fsdm.model import events
from fsdm.model.documents import DataChunk, FileSource
from fsdm.model.errors import FsdmError, InvalidInputError
from fsdm.model.layout import DATA, READY, WANT
from fsdm.model.units import readable
from fsdm.store.data_dir import open_data_dir
from fsdm.store.json_files import read_manifest
from fsdm.verify.rehash import Pace, rehash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LIMIT_S: Final = 60.0
POLL_S: Final = 0.01
PAUSE_S: Final = 0.5  # after a step has been told, for people who read along; nothing depends on it
PHRASES: Final[dict[str, str]] = dict(events.PHRASES.items())
OWN: Final = {"step": "──", "found": "🔎", "half-way": "⏳", "read": "📖", "killed": "💀", "violation": "🚨"}
SYMBOLS: Final[dict[str, str]] = dict(events.SYMBOLS.items()) | OWN | {"wrong": "❌", "right": "✅"}
# runs a verb, which the kernel kills when the demo has ended, also by SIGKILL: PR_SET_PDEATHSIG of prctl(2)
FSDM: Final = """
import ctypes, os, sys
from fsdm.cli.main import main
ctypes.CDLL(None).prctl(1, 9)
sys.exit(main() if os.getppid() == int(sys.argv.pop(1)) else 0)
"""
RECONCILER: Final = ("run", "--json", "--jobs", "4")
READER: Final = 'cd "$FSDM_CHUNK_PATH" && while read _; do sha256sum -- *; echo; done'


def demo(data_dir: str | None, *, scale: float, as_json: bool = False, out: TextIO | None = None) -> bool:
    """Tell the whole story on stdout, or on `out`, and return whether the end state is right.

    `data_dir` is to be new or empty, and is kept; without one, a temporary directory is used and removed. With
    `as_json`, each event is a line {"at", "kind", "chunk_id", "text"}, and the last line is a summary with "ok".

    Raises:
        InvalidInputError: `data_dir` is not an empty directory, or `scale`, of the files' sizes, not above zero.
    """
    if not 0 < scale < float("inf"):
        raise InvalidInputError(f"must be above zero, not {scale}", field="scale")
    with ExitStack() as stack:
        root = os.path.abspath(data_dir or stack.enter_context(TemporaryDirectory(prefix="fsdm-demo-")))
        _check_empty(root)
        client = stack.enter_context(Client(open_data_dir(root).root))
        source = stack.enter_context(Source(scale))
        threading.Thread(target=source.serve_forever, args=(POLL_S,), name="source", daemon=True).start()
        stack.callback(source.shutdown)
        stack.callback(source.gate.set)
        where = f"; it is kept in {root}" if data_dir else ""
        return _Story(client, source, out or sys.stdout, as_json, stack).tell(where)


def _check_empty(path: str) -> None:
    try:
        is_empty = not os.path.lexists(path) or not os.listdir(path)
    except OSError as e:
        raise InvalidInputError(f"{path} cannot be used: {e.strerror}", field="data_dir") from None
    if not is_empty:
        hint = "name one that does not exist yet, or none at all: then a temporary one is used"
        raise InvalidInputError(f"{path} is not empty; the demo needs its own", field="data_dir", hint=hint)


def kept(source: Source) -> list[DataChunk]:
    """List the chunks that the story leaves: all but ethereum's second and hyperliquid's first."""
    ethereum, binance, hyperliquid = source.chunks.values()
    return [ethereum[0], *ethereum[2:], *binance, *hyperliquid[1:]]


def end_state_faults(client: Client, chunks: list[DataChunk]) -> Iterator[str]:
    """Find what is wrong where these chunks alone are to be here, and nothing is pending."""
    layout, due = client.layout, set[str]()
    for chunk in chunks:
        path, manifest = layout.path(chunk.place), read_manifest(layout.path(chunk.place))
        due |= {os.path.dirname(path), path, *(f"{path}/{name}" for name in (READY, WANT, DATA))}
        due |= {f"{path}/{DATA}/{name}" for name in chunk.files}
        if chunk.id not in client.list_chunks() or manifest is None or not manifest.satisfies(chunk):
            yield f"{path} is not available as it is wanted"
        yield from (f"{path}/{wrong}" for wrong in rehash(path, chunk.place, Pace(Rate(None))))
    here = {str(path) for name in layout.directories() for path in Path(getattr(layout, name)).rglob("*")}
    yield from (f"{path} is {'left over' if path in here else 'missing'}" for path in sorted(here ^ due))


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FsdmError(otherwise)


def _size_of(chunk: DataChunk) -> int:
    return sum(file.size or 0 for file in chunk.files.values())


@dataclass(slots=True)
class _Story:
    """The parts of the story; each raises FsdmError where something is wrong."""

    client: Client
    source: Source
    out: TextIO
    as_json: bool
    stack: ExitStack
    began: float = field(default_factory=time.monotonic)
    children: dict[str, Popen[bytes]] = field(default_factory=dict)
    answer: list[str] = field(default_factory=list)  # of the reader that was asked last
    told: set[tuple[str, str]] = field(default_factory=set)  # kinds and ids, since something was wanted or deleted
    counts: Counter[str] = field(default_factory=Counter)  # of the kinds that were shown; and the bytes that were read

    def tell(self, where: str) -> bool:
        """Tell all parts, and how they ended; return whether the end state is right."""
        faults, right = list[str](), kept(self.source)
        try:
            self.tell_parts(*self.source.chunks.values())
            faults += end_state_faults(self.client, right)
        except FsdmError as e:
            faults.append(str(e))
        for fault in faults:
            self.show("wrong", fault)
        self.summarise(faults, [] if faults else right, where)
        return not faults

    def summarise(self, faults: list[str], right: list[DataChunk], where: str) -> None:
        numbers = {"chunks": len(right), "files": sum(len(one.files) for one in right), "checks": self.counts["read"]}
        numbers |= {"bytes": sum(map(_size_of, right)), "bytes_checked": self.counts["bytes"]}
        numbers |= {"events": sum(self.counts[kind] for kind in PHRASES), "violations": self.counts["violation"]}
        words = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in numbers.items())
        text = f"WRONG: {faults[0]}" if faults else f"the end state is right{where}: {words}"
        more = {"ok": not faults, **numbers, "seconds": round(time.monotonic() - self.began, 3), "faults": faults}
        self.show("wrong" if faults else "right", text, more=more)

    def tell_parts(self, ethereum: list[DataChunk], binance: list[DataChunk], hyperliquid: list[DataChunk]) -> None:
        self.step(f"a source at {self.source.url}, a data directory {self.client.layout.root}")
        self.start("the reconciler", *RECONCILER)
        self.chunks_arrive(*ethereum[:2], binance[0], *hyperliquid[:2])
        self.deletes_wait_for_readers(ethereum[0], ethereum[1])
        self.downloads_end_early(ethereum[2], binance[1], ethereum[3], hyperliquid[2])
        self.reconciler_is_killed(binance[0], hyperliquid[0], hyperliquid[3], *ethereum[1:3])
        self.budget_is_kept(ethereum[0], ethereum[1])
        self.chunk_comes_when_it_is_asked_for(hyperliquid[0])
        self.step("everything has converged; readers and reconciler end, the end state is checked")
        pending = [getattr(self.client.layout, name) for name in self.client.layout.directories() if name != "chunks"]
        self.until("nothing is pending", lambda: not any(map(os.listdir, pending)))
        for name in [*self.children]:
            self.end(name)
        self.step("the end state")

    def chunks_arrive(self, first: DataChunk, second: DataChunk, *others: DataChunk) -> None:
        self.step("chunks of three datasets are wanted")
        self.want(first, second, *others)
        self.step("found by block; the end of a range is the first block that is not in it")
        self.find(first, first.block_range[-1])
        self.find(second, second.block_range[0])
        self.find(second, second.block_range.stop, there=False)

    def deletes_wait_for_readers(self, chunk: DataChunk, other: DataChunk) -> None:
        self.step("two readers hold a chunk while it is deleted: it waits for them, and is found no more")
        self.hold("reader 1", chunk)
        self.hold("reader 2", chunk)
        self.delete(chunk, then="retiring")
        self.find(chunk, chunk.block_range[0], there=False)
        self.read_on("reader 1", chunk)
        self.step("it is wanted again while it is held: available at once, nothing is fetched")
        self.want(chunk, fetched=False)
        self.step("deleted again; one reader lets go, then the other")
        self.delete(chunk, then="retiring")
        self.end("reader 1")
        self.read_on("reader 2", chunk)
        self.end("reader 2")
        self.expect("deleted", chunk)
        self.step("a reader is killed while it keeps a chunk from its delete")
        self.hold("reader 3", other)
        self.delete(other, then="retiring")
        self.end("reader 3", signal.SIGKILL)
        self.expect("deleted", other)

    def downloads_end_early(self, stalled: DataChunk, failing: DataChunk, *others: DataChunk) -> None:
        self.step("a download that gets no more bytes is deleted in its middle")
        self.want_half(stalled)
        self.delete(stalled, then="stopped")
        self.source.gate.set()
        self.step("one URL is wrong (HTTP 404): that chunk is shown as failed, all the others go on")
        wrong = FileSource(url=f"{failing.files['logs.parquet'].url}.not-there")
        self.want(failing.model_copy(update={"files": {**failing.files, "logs.parquet": wrong}}), *others, then="")
        self.expect("failed", failing)
        self.expect("available", *others)
        self.step("the want is put right")
        self.want(failing)

    def reconciler_is_killed(self, held: DataChunk, deleted: DataChunk, late: DataChunk, *cut: DataChunk) -> None:
        self.step("two more are wanted, and the reconciler is killed in the middle of both")
        self.hold("reader 4", held)
        self.want_half(*cut)
        self.end("the reconciler", signal.SIGKILL)
        self.source.gate.set()
        self.step("nobody reconciles now: readers find and read on, and what is asked waits on disk")
        self.read_on("reader 4", held)
        self.find(held, held.block_range[0])
        self.delete(deleted, then="")
        self.want(late, then="")
        self.step("a new reconciler starts: it takes up all that was asked, before and since")
        self.start("the new reconciler", *RECONCILER)
        self.expect("available", *cut, late)
        self.expect("deleted", deleted)
        fetched = {chunk_id for kind, chunk_id in self.told if kind == "started"}
        _must(fetched == {chunk.id for chunk in (*cut, late)}, "a chunk that was here was fetched after the crash")

    def budget_is_kept(self, chunk: DataChunk, other: DataChunk) -> None:
        budget = sum(status.size_bytes for status in self.client.status().chunks.values()) + _size_of(chunk) // 2
        self.step(f"the reconciler starts anew, with a budget of {readable(budget)}: too little for one more")
        self.end("the new reconciler")
        self.start("the reconciler with a budget", *RECONCILER, "--max-bytes", str(budget))
        self.want(chunk, then="over", fetched=False)
        self.step("another is deleted: now there is room, and it starts by itself")
        self.delete(other, then="deleted")
        self.expect("available", chunk)
        self.until("the reconciler tells how much is taken", lambda: ("size", "") in self.told)

    def chunk_comes_when_it_is_asked_for(self, chunk: DataChunk) -> None:
        self.step("a chunk is registered: it may be fetched when somebody asks for it; nothing is fetched yet")
        self.told.clear()
        self.client.register(chunk)
        self.find(chunk, chunk.block_range[0], there=False)
        self.step("a reader acquires it: now it is fetched, once for all who ask")
        self.hold("reader 5", chunk, "acquire")
        self.expect("available", chunk)
        self.step("nobody holds it any more, and its room is needed: it is evicted, and stays registered")
        self.end("reader 5")
        self.until("nobody asks for it", lambda: not os.listdir(self.client.layout.acquire))
        evicted = [one.id for one in self.client.gc(timeout_s=LIMIT_S) if one.outcome == "evicted"]
        _must(evicted == [chunk.id], f"{evicted or 'nothing'} was evicted")
        self.expect("evicted", chunk)
        self.step("asked for again it comes again; a delete takes away both the chunk and its registration")
        self.hold("reader 6", chunk, "acquire")
        self.end("reader 6")
        self.delete(chunk, then="deleted")

    def start(self, name: str, verb: str, *arguments: str) -> None:
        """Start a verb of fsdm in a process group of its own: Ctrl-C is for the demo alone."""
        command = [sys.executable, "-P", "-c", FSDM, str(os.getpid()), verb, "-d", self.client.layout.root, *arguments]
        environment = {**os.environ, "no_proxy": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
        child = self.stack.enter_context(Popen(command, stdin=PIPE, stdout=PIPE, env=environment, process_group=0))
        self.stack.callback(child.kill)
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)  # each line is less than PIPE_BUF, so comes whole: pipe(7)
        self.children[name] = child
        self.step(f"{name} is process {child.pid}")

    def hold(self, name: str, chunk: DataChunk, verb: str = "hold") -> None:
        """Start a reader: a shell that holds the chunk, and reads it for each line it is sent."""
        self.start(name, verb, chunk.dataset_id, str(chunk.block_range[0]), "--", "sh", "-c", READER)
        self.read_on(name, chunk)

    def read_on(self, name: str, chunk: DataChunk) -> None:
        """Have a reader read its chunk from beginning to end: it has the bytes of the source."""
        pipe, size_bytes = self.children[name].stdin, _size_of(chunk)
        assert pipe is not None
        self.answer.clear()
        with suppress(BrokenPipeError):  # it has ended, as is seen next
            os.write(pipe.fileno(), b"\n")
        self.until(f"{name} has read its chunk", lambda: self.answer[-1:] == [""])
        self.counts["bytes"] += size_bytes
        self.show("read", f"{name} holds it, and has read {readable(size_bytes)}", chunk.id)
        due = {f"{file.sha256}  {name}" for name, file in chunk.files.items()}
        if wrong := sorted(due.symmetric_difference(self.answer[:-1])):
            self.show("violation", f"{name}: {wrong}", chunk.id)
            raise FsdmError(f"{name} has not read what the source has: {wrong}")

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a child by a signal; wait until it has ended."""
        child = self.children.pop(name)
        child.send_signal(number)
        self.show("killed", f"{name}: {number.name}")
        self.until(f"{name} ends", lambda: child.poll() is not None)
        self.listen(child)
        _must(child.returncode in {0, -number}, f"{name} has ended with {child.returncode}")

    def until(self, what: str, check: Callable[[], object]) -> None:
        """Wait until `check` is true, within the demo's limit; show what happens meanwhile."""
        self.listen(*self.children.values())
        while not check():
            for name, child in self.children.items():
                _must(child.poll() is None, f"{name} has ended with {child.returncode}, unasked")
            _must(time.monotonic() - self.began < LIMIT_S, f"gave up after {LIMIT_S:g} s, waiting until {what}")
            time.sleep(POLL_S)
            self.listen(*self.children.values())

    def listen(self, *children: Popen[bytes]) -> None:
        """Take the lines that children have printed: events of reconcilers, answers of readers."""
        for line in (line.decode().rstrip("\n") for child in children for line in child.stdout or ()):
            if line.startswith("{"):
                event = json.loads(line)
                self.told.add((event["kind"], event["chunk_id"]))
                self.show(event["kind"], event["text"], event["chunk_id"])
            else:
                self.answer.append(line)

    def want(self, *chunks: DataChunk, then: str = "available", fetched: bool = True) -> None:
        self.told.clear()
        for chunk in chunks:
            self.client.download_chunk(chunk)
        self.expect(then, *chunks)
        _must(fetched or not any(kind == "started" for kind, _ in self.told), "a chunk that was here was fetched again")

    def want_half(self, *chunks: DataChunk) -> None:
        """Have chunks downloaded up to the middle of one file, where the source sends no more."""
        self.source.stopped.clear()
        self.source.gate.clear()
        self.want(*chunks, then="")
        self.until("the downloads are half-way", lambda: len(self.source.stopped) == len(chunks))
        for chunk in chunks:
            status, whole = self.client.status().chunks[chunk.id], readable(_size_of(chunk))
            self.show("half-way", f"{status.state}: {readable(status.size_bytes)} of {whole} are here", chunk.id)

    def delete(self, chunk: DataChunk, then: str) -> None:
        self.told.clear()
        self.client.delete_chunk(chunk.id)
        self.expect(then, chunk)

    def expect(self, kind: str, *chunks: DataChunk) -> None:
        """Wait until an event of this kind tells of each chunk; of none where there is no kind."""
        due, names = {(kind, chunk.id) for chunk in chunks if kind}, [self.source.names[chunk.id] for chunk in chunks]
        self.until(f"{kind} is told of {', '.join(names)}", lambda: due <= self.told)

    def find(self, chunk: DataChunk, block: int, *, there: bool = True) -> None:
        with self.client.find_chunk(chunk.dataset_id, block) or nullcontext() as ref:
            found = ref.id if ref else ""
        _must(found == (chunk.id if there else ""), f"block {block} leads to {found or 'nothing'}")
        self.show("found", f"{'' if there else 'nothing is '}found by block {block}", found)

    def step(self, text: str) -> None:
        """Tell what comes next, and give people the time to read it."""
        self.show("step", text)
        read_at = time.monotonic() + PAUSE_S * min(self.source.scale, 1.0)
        self.until("people have read it", lambda: time.monotonic() >= read_at)

    def show(self, kind: str, text: str, chunk_id: str = "", more: Mapping[str, object] | None = None) -> None:
        """Write one thing that has happened, with a symbol or a word, or as JSON."""
        self.counts[kind] += 1
        at, said = time.monotonic() - self.began, ": ".join(filter(None, (PHRASES.get(kind), text)))
        symbol = SYMBOLS[kind] if SYMBOLS[kind].encode(self.out.encoding or "utf-8", "ignore") else f"[{kind}]"
        words = " ".join(filter(None, (symbol, chunk_id[:8], self.source.names.get(chunk_id), said)))
        document = {"at": round(at, 3), "kind": kind, "chunk_id": chunk_id or None, "text": text, **(more or {})}
        self.out.write(f"{json.dumps(document) if self.as_json else f'{at:6.2f} s  {words}'}\n")
        self.out.flush()
