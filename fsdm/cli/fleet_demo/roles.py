"""The processes of the demo: each of these functions is one. A node is three: it reconciles, follows, runs queries."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.fleet_demo.lake import DATASET, serve
from fsdm.model.documents import DataChunk
from fsdm.store.index_runs import mtime_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed.core import Server

    Say = Callable[..., None]

POLL_S: Final = 0.4
REPORT_S: Final = 1.0
# of what is not needed here, and takes CPU time from what is
SPARING: Final = {
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.disk": False,
}
NO_DASHBOARD: Final[dict[str, Any]] = {"dashboard": False, "dashboard_address": ":0"}


def lake(say: Say, directory: str) -> None:
    """Be the lake: serve a directory; say the URL."""
    serve(directory, lambda url: say(word=url))


def schedule(say: Say, root: str) -> None:
    """Be Dask's scheduler; tell the address."""
    from distributed import Scheduler

    _serve(partial(Scheduler, host="127.0.0.1", port=0, local_directory=f"{root}/dask", **NO_DASHBOARD), say)


def work(say: Say, data_dir: str, node: str, report: str, scheduler: str) -> None:
    """Be the Dask worker of a node; tell the address once it has joined."""
    from distributed import Worker

    from fsdm.fleet.dask_node import FleetNode

    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, **NO_DASHBOARD}
    options |= {"name": node, "plugins": [FleetNode(data_dir, node, report)], "local_directory": f"{data_dir}.dask"}
    _serve(partial(Worker, scheduler, host="127.0.0.1", **options), say)


def _serve(server: Callable[[], Server], say: Say) -> None:
    import dask

    async def main() -> None:
        async with server() as one:
            say(word=one.address)
            await one.finished()

    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(SPARING):
        asyncio.run(main())


def reconcile(_: Say, data_dir: str) -> None:
    """Be the reconciler of a node."""
    from fsdm.cli.main import main

    main(["run", "-d", data_dir, "--durability", "none", "--brake", "off"])


def follow(_: Say, data_dir: str, node: str, url: str, reports: str) -> None:
    """Apply the list of a node whenever it has changed, and report what is here."""
    import requests

    from fsdm.cli.assignment import read_assignment
    from fsdm.cli.main import main
    from fsdm.client import Client
    from fsdm.fleet.report import Report, report
    from fsdm.store.filesystem import FileSystem

    session, fs = requests.Session(), FileSystem()
    applied, wanted = "", list[DataChunk]()
    stamp: object = None
    said, said_at = Report(at=0.0), 0.0
    with Client(data_dir) as client:
        while True:
            with suppress(requests.RequestException, KeyError):
                pointer = session.get(f"{url}/fleet/placement.json", timeout=10)
                pointer.raise_for_status()
                sha256 = json.loads(pointer.content)["lists"][node]["sha256"]
                where = f"{url}/fleet/lists/{sha256}.jsonl.gz"
                if sha256 != applied and main(["sync", "-d", data_dir, where, "--yes"]) == 0:
                    with read_assignment(where) as assignment:
                        applied, wanted = sha256, list(assignment)
            seen = applied, *map(mtime_of, (f"{client.layout.chunks}/{DATASET}", client.layout.delete))
            if applied and (seen != stamp or time.time() - said_at > REPORT_S):
                said_at = time.time()
                said = (
                    report(client, wanted, applied, said_at)
                    if seen != stamp
                    else said.model_copy(update={"at": said_at})
                )
                fs.write(f"{reports}/{node}.json", said.to_json(), durable=False)
                stamp = seen
            time.sleep(POLL_S)
