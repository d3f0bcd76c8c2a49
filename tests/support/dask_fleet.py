"""Nodes of a fleet on Dask: in this process, where nothing is to die, or each in one of its own."""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler, SpecCluster, Worker
from distributed.core import Server
from distributed.diagnostics.plugin import WorkerPlugin

from fsdm.fleet.dask_node import FleetNode
from fsdm.fleet.queries import FleetClient
from fsdm.fleet.routes import Holders, Routes
from fsdm.model.layout import Layout, Place
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support.chunks import an_id, put_chunk
from tests.support.waiting import PATIENCE_S

DATASET = "d" * 64
BLOCKS = 10  # of each chunk
NO_DASHBOARD = {"dashboard": False, "dashboard_address": ":0"}

# forked from a process that has imported Dask: to import it takes a second of CPU
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["distributed", "fsdm.fleet.dask_node", "tests.support.dask_fleet"])


def _quietly(server: Callable[[], Server], connection: Connection) -> None:
    """Be a scheduler or a worker; tell the address."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    logging.getLogger("tornado").setLevel(logging.CRITICAL)

    async def run() -> None:
        async with server() as one:
            connection.send(one.address)
            await one.finished()

    asyncio.run(run())


def _schedule(port: int, connection: Connection) -> None:
    _quietly(partial(Scheduler, host="127.0.0.1", port=port, **NO_DASHBOARD), connection)


def _work(scheduler: str, data_dir: str, node: str, connection: Connection) -> None:
    plugins = [FleetNode(data_dir, node)]
    options = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "plugins": plugins, "local_directory": data_dir}
    _quietly(partial(Worker, scheduler, **options, **NO_DASHBOARD), connection)


@dataclass
class Nodes:
    """Data directories by the names of their nodes, and the chunks that lie in them: chunk → the nodes that hold it."""

    root: Path
    blocks: int = BLOCKS
    held: dict[str, Holders] = field(default_factory=dict)

    def layout(self, node: str) -> Layout:
        layout = Layout(self.root / node)
        make_layout(layout, FileSystem())
        return layout

    def put(self, *nodes: str, leaving: Sequence[str] = (), **files: bytes) -> Place:
        """Put the next chunk on these nodes."""
        start, chunk_id = len(self.held) * self.blocks, an_id()
        more = {"files": files} if files else {}
        for node in (*nodes, *leaving):
            put_chunk(self.layout(node), chunk_id=chunk_id, start=start, end=start + self.blocks, **more)  # type: ignore[arg-type]
        place = Place.of(DATASET, range(start, start + self.blocks), chunk_id)
        self.held[place.name] = Holders(nodes, tuple(leaving))
        return place

    @property
    def routes(self) -> Routes:
        return Routes({DATASET: self.held}, {})


@contextmanager
def in_this_process(plugins: Mapping[str, WorkerPlugin]) -> Iterator[Client]:
    """A scheduler and workers in this process, each with a plugin."""
    workers = {
        name: {"cls": Worker, "options": {"nthreads": 1, "plugins": [plugin], "memory_limit": 0, **NO_DASHBOARD}}
        for name, plugin in plugins.items()
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, **NO_DASHBOARD}}
    with (
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def a_fleet(nodes: Nodes, *names: str, **options: Any) -> Iterator[FleetClient]:
    """A fleet of nodes in this process."""
    with in_this_process({name: FleetNode(nodes.layout(name).root, name) for name in names}) as client:
        yield FleetClient(client, nodes.routes, **options)


@dataclass
class Processes:
    """A scheduler and workers, each a process; all are killed at the end."""

    nodes: Nodes
    address: str = ""
    scheduler: BaseProcess | None = None
    workers: dict[str, BaseProcess] = field(default_factory=dict)
    all: list[BaseProcess] = field(default_factory=list)

    def start_scheduler(self) -> None:
        """Start it, at the same address as before."""
        self.scheduler, said = self._begun(_schedule, int(self.address.rpartition(":")[2] or 0))
        self.address = _received(said)

    def start(self, *names: str) -> None:
        """Start the workers of nodes, and wait until they have joined."""
        begun = {name: self._begun(_work, self.address, self.nodes.layout(name).root, name) for name in names}
        for name, (worker, said) in begun.items():
            _received(said)
            self.workers[name] = worker

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the worker of a node."""
        pid = self.workers[name].pid
        assert pid is not None
        os.kill(pid, number)

    def _begun(self, work: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=work, args=(*arguments, theirs), daemon=False)
        process.start()
        theirs.close()
        self.all.append(process)
        return process, ours


def _received(connection: Connection) -> str:
    with connection:
        assert connection.poll(PATIENCE_S), "it says nothing"
        return str(connection.recv())


@contextmanager
def in_processes(nodes: Nodes, *names: str) -> Iterator[Processes]:
    processes = Processes(nodes)
    try:
        processes.start_scheduler()
        processes.start(*names)
        yield processes
    finally:
        for one in processes.all:
            one.kill()
        for one in processes.all:
            one.join()


@contextmanager
def connected(processes: Processes, **options: Any) -> Iterator[FleetClient]:
    """A client of them."""
    with Client(processes.address) as client:
        yield FleetClient(client, processes.nodes.routes, **options)
