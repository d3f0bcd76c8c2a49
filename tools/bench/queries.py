"""Queries over a fleet, for `fleet`: what they cost beside one process that holds all, and when nodes are lost.

Eight nodes of this machine, each a Dask worker, share a directory: the routes say who holds what, three nodes each
chunk. The function reads a chunk's file and hashes 4 MB: about 3 ms of CPU. What the processes take at rest, for their
heartbeats, is not the query's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from fsdm import Client
from fsdm.fleet.dask_node import FleetNode
from fsdm.fleet.queries import FleetClient
from fsdm.fleet.routes import Holders, Routes
from fsdm.model.documents import FileEntry, Manifest
from fsdm.model.layout import DATA, READY, Layout, Place
from tools.bench.processes import in_process, process, receive
from tools.bench.query_work import nothing, work_on
from tools.bench.report import Figure
from tools.bench.site import CONTENT, DATASET, make, scratch, write
from tools.support.proc import cpu_ns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from distributed import Client as DaskClient
    from distributed.core import Server

    from fsdm.fleet.task import HeldChunk

NODES: Final = tuple(f"n{number}" for number in range(8))
BLOCKS: Final = 10
COPIES: Final = (0, 1, 3)  # on the nodes so far after the first one
BEGIN_S: Final = 60.0
REST_S: Final = 3.0
NO_DASHBOARD: Final[dict[str, Any]] = {"dashboard": False, "dashboard_address": ":0"}


def _place(number: int) -> Place:
    blocks = range(number * BLOCKS, (number + 1) * BLOCKS)
    return Place.of(DATASET, blocks, hashlib.sha256(b"query %d" % number).hexdigest())


def put(data_dir: str, count: int) -> str:
    """Make a data directory of so many chunks, whose blocks are one range."""
    layout = Layout(make(data_dir))
    files = {"blocks.parquet": FileEntry(size=len(CONTENT), blake3=blake3(CONTENT).hexdigest())}
    for number in range(count):
        place = _place(number)
        path, blocks = layout.path(place), place.block_range
        os.makedirs(f"{path}/{DATA}")
        write(f"{path}/{DATA}/blocks.parquet", CONTENT)
        block_range = {"start": blocks.start, "end": blocks.stop}
        manifest = Manifest(id=place.chunk_id, dataset_id=DATASET, block_range=block_range, files=files)
        write(f"{path}/{READY}", manifest.to_json())
    return data_dir


def _serve(said: Connection, servers: Sequence[Callable[[], Server]]) -> None:
    """Run Dask's servers; say the addresses once they stand."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)

    async def main() -> None:
        running = [await server() for server in servers]
        said.send([one.address for one in running])
        await asyncio.gather(*(one.finished() for one in running))

    asyncio.run(main())


def _schedule(said: Connection) -> None:
    from distributed import Scheduler

    _serve(said, [partial(Scheduler, host="127.0.0.1", port=0, **NO_DASHBOARD)])


def _work(said: Connection, scheduler: str, data_dir: str, names: list[str]) -> None:
    from distributed import Worker

    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "local_directory": f"{data_dir}.dask", **NO_DASHBOARD}
    workers = [
        partial(Worker, scheduler, host="127.0.0.1", plugins=(FleetNode(data_dir, name),), **options) for name in names
    ]
    _serve(said, workers)


@dataclass(frozen=True, slots=True)
class Running:
    """A fleet that runs: a client, and the processes of scheduler and workers."""

    dask: DaskClient
    fleet: FleetClient
    chunks: int
    scheduler: int
    workers: list[int]

    def ask(self, fn: Callable[[HeldChunk], object] = work_on) -> None:
        """Ask for all chunks."""
        answers = list(self.fleet.map_range(fn, DATASET, 0, self.chunks * BLOCKS))
        if len(answers) != self.chunks:
            raise ValueError(f"{len(answers)} answers for {self.chunks} chunks")

    def submit_nothing(self) -> None:
        """Have each worker do nothing, by Dask alone."""
        workers = self.dask.scheduler_info(n_workers=-1)["workers"]
        self.dask.gather([self.dask.submit(nothing, None, workers=[one], pure=False) for one in workers])

    def timed(self) -> float:
        """Return how long a query takes, in seconds."""
        began = time.monotonic()
        self.ask()
        return time.monotonic() - began

    def cpu_ns(self, pids: list[int]) -> int:
        """Return the CPU time of this process and others."""
        return time.process_time_ns() + sum(map(cpu_ns, pids))

    def at_rest_ns(self, pids: list[int]) -> float:
        """Return the CPU time that this process and others take in a second while nothing is asked for."""
        began = self.cpu_ns(pids)
        time.sleep(REST_S)
        return (self.cpu_ns(pids) - began) / REST_S


@contextmanager
def running(data_dir: str, chunks: int, groups: list[list[str]]) -> Iterator[Running]:
    """Run a scheduler, and a process for each group of nodes."""
    from distributed import Client as DaskClient

    names = [name for group in groups for name in group]
    held = {
        _place(number).name: Holders(tuple({names[(number + more) % len(names)]: 0 for more in COPIES}))
        for number in range(chunks)
    }
    with ExitStack() as stack:
        scheduler, said = stack.enter_context(process(_schedule))
        [address] = receive(said, BEGIN_S)
        begun = [stack.enter_context(process(_work, address, data_dir, group)) for group in groups]
        for _, told in begun:
            receive(told, BEGIN_S)
        dask = stack.enter_context(DaskClient(address))
        fleet = FleetClient(dask, Routes({DATASET: held}, {}))
        pids = [child.pid for child, _ in begun if child.pid is not None]
        yield Running(dask, fleet, chunks, scheduler.pid or 0, pids)


def _alone(data_dir: str, chunks: int) -> int:
    """Do the same work in one process that holds all; return its CPU time."""
    with Client(data_dir) as client, client.hold_range(DATASET, 0, BLOCKS, whole=True) as held:
        for ref in held.refs:  # once before, as the workers have
            work_on(ref)
        began = time.process_time_ns()
        for number in range(chunks):
            with client.hold_chunk(DATASET, number * BLOCKS) as ref:
                work_on(ref)
        return time.process_time_ns() - began


def queries(args: argparse.Namespace) -> Iterator[Figure]:
    """A query over all chunks, against the same work in one process; then while a node is killed, or frozen."""
    chunks = 200 if args.quick else 2000
    what = f"a query over {chunks:,} chunks on {len(NODES)} nodes"
    with scratch(args.dir) as base:
        data_dir = put(str(base / "data"), chunks)
        alone_ns = in_process(_alone, data_dir, chunks)
        with running(data_dir, chunks, [[name] for name in NODES]) as one:
            one.ask()
            pids = [one.scheduler, *one.workers]
            at_rest_ns = one.at_rest_ns(pids)
            began = one.cpu_ns(pids)
            usual_s = one.timed()
            taken_ns = one.cpu_ns(pids) - began - at_rest_ns * usual_s
            yield Figure(
                "queries", f"{what}: CPU, against one process that holds all", taken_ns / alone_ns, "times", 1, 1.3
            )
            yield Figure("queries", f"{what}: time", usual_s, "s", 1)
            for number, how, goal_s, pid in (
                (signal.SIGKILL, "killed", 2.0, one.workers[2]),
                (signal.SIGSTOP, "frozen", 10.0, one.workers[5]),
            ):
                timer = threading.Timer(usual_s / 2, os.kill, (pid, number))
                timer.start()
                took_s = one.timed()
                timer.join()
                yield Figure("queries", f"{what}: one {how} in its middle, longer by", took_s - usual_s, "s", 1, goal_s)


def tasks(args: argparse.Namespace) -> Iterator[Figure]:
    """Queries of a task on each of many nodes: the CPU time of client and scheduler a task, and of Dask's submit."""
    nodes, rounds = (20, 2) if args.quick else (200, 10)
    with scratch(args.dir) as base:
        data_dir = put(str(base / "data"), nodes)
        with running(data_dir, nodes, [[f"n{number}" for number in range(nodes)]]) as one:
            at_rest_ns = one.at_rest_ns([one.scheduler])

            def cost_ms(ask: Callable[[], object]) -> float:
                ask()
                began, began_at = one.cpu_ns([one.scheduler]), time.monotonic()
                for _ in range(rounds):
                    ask()
                taken_ns = one.cpu_ns([one.scheduler]) - began
                return (taken_ns - at_rest_ns * (time.monotonic() - began_at)) / 1e6 / nodes / rounds

            asked_ms = cost_ms(partial(one.ask, nothing))
            plain_ms = cost_ms(one.submit_nothing)
    what = f"queries over {nodes} nodes: CPU of client and scheduler a task"
    yield Figure("tasks", what, asked_ms, "ms", nodes * rounds, 1.2)
    yield Figure("tasks", f"{what}, by client.submit alone", plain_ms, "ms", nodes * rounds)
