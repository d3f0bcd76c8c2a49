"""The processes of the demo: each of these functions is one. A node is two: one keeps its chunks, one runs queries."""

from __future__ import annotations

import asyncio
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.fleet_demo.lake import serve
from fsdm.model.follow import Follow
from fsdm.model.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed.core import Server

    Say = Callable[..., None]

EVERY_S: Final = 0.25
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


def keep(_: Say, data_dir: str, node: str, url: str, reports: str) -> None:
    """Be the reconciler of a node; apply its list whenever it has changed, and report what is here."""
    from fsdm.cli.follow import Following
    from fsdm.manager import DataManager

    limits = Limits(durability="none", brake=None)
    follow = Follow(url=f"{url}/fleet/placement.json", every_s=EVERY_S, node_id=node, report=reports)
    with DataManager(data_dir, limits=limits) as dm, Following(dm.layout, follow, (), None, None).running():
        signal.pause()
