"""Tell the story of a fleet: each part waits for what it has brought about, and checks it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.cli.fleet_demo.lake import BLOCKS, DATASET, fill, value_of
from fsdm.cli.fleet_demo.placer import Moved, Placer
from fsdm.cli.fleet_demo.processes import Processes
from fsdm.cli.fleet_demo.rows import OVER, Rows
from fsdm.client import Client
from fsdm.fleet.queries import FleetClient
from fsdm.model.errors import FsdmError, InvalidInputError
from fsdm.model.units import count, readable
from fsdm.store.data_dir import open_data_dir
from fsdm.store.json_files import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsdm.model.documents import DataChunk

LIMIT_S: Final = 600.0
POLL_S: Final = 0.05
SILENT_S: Final = 3.0  # a worker that has not beaten for so long is frozen
COPIES: Final = 2
RACKS: Final = 4
FIRST: Final = tuple(f"node-{number}" for number in range(1, 9))
KILLED, FROZEN, JOINING, DRAINED = "node-3", "node-7", "node-9", "node-1"  # the first two are in one rack
SYMBOLS: Final = {
    "step": "──",
    "node": "🖥 ",
    "moved": "🚚",
    "query": "🔎",
    "killed": "💀",
    "frozen": "🧊",
    "wrong": "❌",
    "right": "✅",
}


def demo(data_dir: str | None, *, chunks: int, as_json: bool = False, out: TextIO | None = None) -> bool:
    """Tell the whole story on stdout, or on `out`, and return whether the end is right.

    `data_dir` is to be new or empty, and is kept; without one, a temporary directory is used and removed. With
    `as_json`, each line is {"at", "kind", "text"}, and the last one is a summary with "ok".

    Raises:
        InvalidInputError: `data_dir` is not an empty directory.
    """
    with ExitStack() as stack:
        root = os.path.abspath(data_dir or stack.enter_context(TemporaryDirectory(prefix="fsdm-fleet-demo-")))
        if os.path.lexists(root) and not (os.path.isdir(root) and not os.listdir(root)):
            raise InvalidInputError(f"{root} is not an empty directory", hint="name one that is new")
        os.makedirs(root, exist_ok=True)
        processes = stack.enter_context(Processes(root))
        return _Story(root, processes, stack, chunks, as_json, out or sys.stdout).tell()


@dataclass(slots=True)
class _Story:
    """The parts of the story; each raises FsdmError where something is wrong."""

    root: str
    processes: Processes
    stack: ExitStack
    count: int
    as_json: bool
    out: TextIO
    began: float = field(default_factory=time.monotonic)
    url: str = ""
    scheduler: str = ""
    chunks: list[DataChunk] = field(default_factory=list)
    live: set[str] = field(default_factory=set)
    joining: dict[str, int] = field(default_factory=dict)  # the workers that are to join
    queries: int = 0

    def tell(self) -> bool:
        """Tell all parts, and how they ended."""
        try:
            self.tell_parts()
        except FsdmError as e:
            self.show("wrong", str(e), ok=False, seconds=self.seconds())
            return False
        text = (
            f"the end is right: {self.count} chunks are on {COPIES} nodes or more, as were the answers of all queries"
        )
        self.show("right", text, ok=True, chunks=self.count, queries=self.queries, seconds=self.seconds())
        return True

    def tell_parts(self) -> None:
        self.step(
            f"a lake of {self.count} chunks, of {BLOCKS} rows each; 8 nodes in {RACKS} racks, each with a Dask worker"
        )
        self.url = self.processes.word(self.processes.begin("lake", "lake", f"{self.root}/lake"))
        self.chunks = fill(f"{self.root}/lake/chunks", self.url, self.count)
        os.makedirs(f"{self.root}/reports")
        self.scheduler = self.processes.word(self.processes.begin("scheduler", "schedule", self.root))
        capacity = int(
            sum(file.size or 0 for chunk in self.chunks for file in chunk.files.values()) * COPIES / len(FIRST) / 0.7
        )
        placer = Placer(f"{self.root}/lake/fleet", f"{self.root}/reports", self.chunks, COPIES, capacity)
        for node in FIRST:
            placer.add(node, f"rack-{int(node[5:]) % RACKS}")  # no two copies of a chunk in one
            self.start(node)
        self.wait_for_workers(FIRST)
        self.settle(placer, "the first placement")
        fleet = self.connect()
        self.query(fleet, "a query over all rows")
        self.query_with_losses(fleet)
        self.step(f"{FROZEN} goes on as if nothing had been; {KILLED} is gone for good: its copies are made anew")
        self.processes.send(FROZEN, signal.SIGCONT)
        self.live.add(FROZEN)
        self.until(f"{FROZEN} reports again", lambda: placer.is_live(FROZEN))
        self.until(f"{KILLED} has been silent for the grace", lambda: placer.is_gone(KILLED))
        placer.remove(KILLED)
        self.settle(placer, f"{KILLED} is gone")
        self.step(f"{JOINING} joins")
        placer.add(JOINING, "rack-1")
        self.start(JOINING)
        self.wait_for_workers([JOINING])
        gained = self.settle(placer, f"{JOINING} joins")
        _must(set(gained.added) == {JOINING}, f"a node that joins has moved copies between others: {gained.added}")
        self.step(f"{DRAINED} drains, and may be taken away then")
        placer.drain(DRAINED)
        self.settle(placer, f"{DRAINED} drains", emptied=DRAINED)
        _must(not self.held_by(DRAINED), f"{DRAINED} has drained, and still holds chunks")
        placer.remove(DRAINED)
        self.end(DRAINED)
        self.settle(placer, f"{DRAINED} is taken away")
        answering = self.query(fleet, "the same query, where the copies are now")
        _must(not answering & {KILLED, DRAINED}, "a node that is gone has answered")
        self.check_end()

    def start(self, node: str) -> None:
        """Start the two processes of a node."""
        data_dir = open_data_dir(f"{self.root}/nodes/{node}").root
        self.processes.begin(node, "keep", data_dir, node, self.url, f"{self.root}/reports")
        report = f"{self.root}/reports/{node}.json"
        self.joining[node] = self.processes.begin(node, "work", data_dir, node, report, self.scheduler)
        self.live.add(node)

    def query_with_losses(self, fleet: FleetClient) -> None:
        """Ask again, while one node is killed, and one is frozen."""

        def work_both() -> bool:
            return all(os.path.exists(f"{self.root}/stopped-{self.queries}/{node}") for node in (KILLED, FROZEN))

        def meddle() -> None:
            self.until(f"{KILLED} and {FROZEN} work on the query", work_both)
            for node, number, kind in ((KILLED, signal.SIGKILL, "killed"), (FROZEN, signal.SIGSTOP, "frozen")):
                self.processes.send(node, number)
                self.live.discard(node)
                self.show(kind, f"{node}, in the middle of the query")

        meddler = threading.Thread(target=meddle, name="meddler", daemon=True)
        meddler.start()
        what = "the same query; meanwhile a rack loses a node that is killed, and one that is frozen"
        answering = self.query(fleet, what, (KILLED, FROZEN))
        meddler.join()
        _must(not answering & {KILLED, FROZEN}, "a node that was lost has answered")

    def check_end(self) -> None:
        self.step("the end: what lies on the disks of the nodes, with the files of the wants")
        found: dict[str, int] = {}
        for node in sorted(self.live):
            for chunk_id in self.held_by(node):
                found[chunk_id] = found.get(chunk_id, 0) + 1
        few = [chunk.id for chunk in self.chunks if found.get(chunk.id, 0) < COPIES]
        _must(not few, f"{len(few)} chunks have fewer than {COPIES} copies: {few[:3]}")
        _must(len(found) == self.count, "there are chunks that nobody has asked for")

    def held_by(self, node: str) -> list[str]:
        """Return the chunks that lie on the disk of a node as they are wanted."""
        found = []
        wanted = {chunk.id: chunk for chunk in self.chunks}
        with Client(f"{self.root}/nodes/{node}") as client:
            for place in client.available_places():
                manifest = read_manifest(client.layout.path(place))
                if manifest is not None and manifest.satisfies(wanted[place.chunk_id]):
                    found.append(place.chunk_id)
        return found

    def connect(self) -> FleetClient:
        """Return a client of the fleet, whose routes are those that the lake serves."""
        from distributed import Client as DaskClient

        dask = self.stack.enter_context(DaskClient(self.scheduler))
        return FleetClient(dask, f"{self.url}/fleet", silent_s=SILENT_S)

    def wait_for_workers(self, names: Iterable[str]) -> None:
        """Wait until the Dask workers of nodes have joined."""
        for node in names:
            self.processes.word(self.joining.pop(node))
            self.show("node", f"{node} has joined")

    def settle(self, placer: Placer, why: str, emptied: str | None = None) -> Moved:
        """Place, and let the nodes follow and report, until nothing changes; one may be `emptied`."""
        moved, before = Moved(), time.monotonic()
        while placer.round(moved):
            if emptied is not None and not placer.has_chunks(emptied):
                self.release(placer, emptied)
                emptied = None
            self.until(f"all lists of placement {placer.number} are applied", placer.is_applied)
        added = ", ".join(f"{node} +{number}" for node, number in sorted(moved.added.items())) or "nothing added"
        dropped = ", ".join(f"{node} −{number}" for node, number in sorted(moved.dropped.items()))
        took = f"{count(moved.rounds, 'round')} in {time.monotonic() - before:.1f} s"
        self.show("moved", f"{why}: {readable(moved.bytes)} moved, {took}: {'; '.join(filter(None, (added, dropped)))}")
        return moved

    def release(self, placer: Placer, node: str) -> None:
        """Say that it is meant that a node is to have nothing: `fsdm release`."""
        self.until(f"{node} holds its list back", lambda: placer.is_braked(node))
        self.show("node", f"the list of {node} is empty now, and held back: fsdm release says that it is meant")
        with Client(f"{self.root}/nodes/{node}") as client:

            def is_released() -> bool:
                client.release_deletes()  # again, as long as it looks at its list anew meanwhile
                return not placer.is_braked(node)

            self.until(f"{node} takes its list", is_released)

    def query(self, fleet: FleetClient, what: str, stopping: tuple[str, ...] = ()) -> set[str]:
        """Ask for all rows, and compare what comes with what the lake has; return the nodes that answered."""
        os.makedirs(stopped := f"{self.root}/stopped-{self.queries}")
        before, blocks = time.monotonic(), self.count * BLOCKS
        found = list(fleet.map_range(Rows(stopped, stopping), DATASET, 0, blocks))
        with open(f"{stopped}/{OVER}", "wb"):
            pass
        took_s = time.monotonic() - before
        _must(
            [one[0] for one in found] == list(range(0, blocks, BLOCKS)),
            "the answers are not those of all chunks, in order",
        )
        rows, total = sum(one[1] for one in found), sum(one[2] for one in found)
        _must(
            (rows, total) == (blocks, sum(map(value_of, range(blocks)))),
            f"{rows} rows with a sum of {total} are not right",
        )
        answering = {one[3] for one in found}
        self.queries += 1
        self.show(
            "query", f"{what}: {rows} rows from {len(answering)} nodes in {took_s:.1f} s, sum {total}, which is right"
        )
        return answering

    def end(self, node: str) -> None:
        """End the processes of a node."""
        self.processes.send(node, signal.SIGTERM)
        self.live.discard(node)

    def until(self, what: str, check: Callable[[], object]) -> None:
        """Wait until `check` is true, within the demo's limit."""
        while not check():
            self.processes.check()
            _must(time.monotonic() - self.began < LIMIT_S, f"gave up after {LIMIT_S:g} s, waiting until {what}")
            time.sleep(POLL_S)

    def seconds(self) -> float:
        return round(time.monotonic() - self.began, 3)

    def step(self, text: str) -> None:
        self.show("step", text)

    def show(self, kind: str, text: str, **more: object) -> None:
        """Write one thing that has happened, with a symbol or a word, or as JSON."""
        symbol = SYMBOLS[kind] if SYMBOLS[kind].encode(self.out.encoding or "utf-8", "ignore") else f"[{kind}]"
        document = {"at": self.seconds(), "kind": kind, "text": text, **more}
        self.out.write(f"{json.dumps(document) if self.as_json else f'{self.seconds():6.2f} s  {symbol} {text}'}\n")
        self.out.flush()


def _must(holds: object, otherwise: str) -> None:
    if not holds:
        raise FsdmError(otherwise)
