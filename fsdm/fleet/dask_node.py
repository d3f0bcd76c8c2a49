"""A Dask worker as a node of the fleet: what it reports with its heartbeats, and the tasks of queries that it runs.

    FSDM_DATA_DIR=data dask worker tcp://scheduler:8786 --preload fsdm.fleet.dask_node

The node is known by the id in its data directory. A worker's restart costs nothing: all that it has is in the files.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
from typing import TYPE_CHECKING, Any, Final, cast

from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker import get_worker

from fsdm.client import Client
from fsdm.fleet.alone import work_alone
from fsdm.fleet.members import METRIC
from fsdm.fleet.report import Report, name_of
from fsdm.fleet.task import work_on
from fsdm.model.errors import InvalidInputError
from fsdm.store.filesystem import read_regular

if TYPE_CHECKING:
    from distributed import Worker

    from fsdm.fleet.task import Answer, Work

REPORT_MAX_BYTES: Final = 1 << 26
BROKEN_MAX: Final = 300  # it travels with each heartbeat
START_WITHIN_S: Final = 2.0  # the workers of a fleet that starts at once join within


class FleetNode(WorkerPlugin):
    """The plugin of a worker that is a node: it opens the data directory, and adds a metric to the heartbeats.

    The metric is `fsdm`: `{"node", "applied", "missing", "bytes", "braked", "failing"}`, what the node has last
    reported, with the numbers of chunks that are missing and failing; without a report, `node` alone. `broken` says why
    a report cannot be read.
    """

    name = "fsdm"

    def __init__(self, data_dir: str, node: str, report: str | None = None) -> None:
        """Take the data directory, the id of the node, and the file that it writes its reports to."""
        self.data_dir, self.node, self.report = os.path.abspath(data_dir), node, report
        self._seen: tuple[object, dict[str, Any]] = (None, {"node": node})

    def setup(self, worker: Worker) -> None:
        """Open the data directory.

        Raises:
            DataDirectoryError: it cannot be opened.
        """
        self.client = Client(self.data_dir)
        worker.metrics[METRIC] = self.metric

    def teardown(self, worker: Worker) -> None:
        """Release what is held."""
        worker.metrics.pop(METRIC, None)
        self.client.close()

    async def metric(self, worker: object) -> dict[str, Any]:  # noqa: ARG002 Dask calls it so
        """Return what the node has last reported."""
        if self.report is None:
            return self._seen[1]
        return await asyncio.to_thread(self._read, self.report)

    def _read(self, path: str) -> dict[str, Any]:
        """Read the report again where it is another file now; where it cannot be taken, say why as `broken`."""
        try:
            found = os.stat(path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._seen[0] != stamp:
                read = read_regular(path, REPORT_MAX_BYTES)
                more = {} if read is None else _figures(Report.parse(read[1]))
                self._seen = stamp, {"node": self.node, **more}
        except FileNotFoundError:
            return {"node": self.node}
        except (OSError, InvalidInputError) as e:
            return {"node": self.node, "broken": f"the report cannot be read: {e}"[:BROKEN_MAX]}
        return self._seen[1]


def _figures(report: Report) -> dict[str, Any]:
    return {
        "applied": report.applied,
        "missing": len(report.missing),
        "bytes": report.bytes,
        "braked": report.braked,
        "failing": len(report.failing),
    }


def run(pickled: bytes, is_alone: bool) -> Answer:
    """Do the work of a task on this worker: a pickled `Work`; `is_alone`: in a process of its own.

    Raises:
        InvalidInputError: the worker is no node of the fleet.
        Exception: whatever the function raises.
    """
    worker = get_worker()
    node = worker.plugins.get(FleetNode.name)
    if not isinstance(node, FleetNode):
        hint = "start it with --preload fsdm.fleet.dask_node"
        raise InvalidInputError("this worker is no node of the fleet", hint=hint)
    work: Work = pickle.loads(pickled)  # noqa: S301 who may send it may run anything here: Dask's own terms
    if is_alone:
        key = worker.get_current_task()
        return work_alone(node.data_dir, node.node, work, lambda: _is_wanted(worker, key))
    return work_on(node.client.ref_at, node.node, work)


def _is_wanted(worker: Worker, key: object) -> bool:
    """Tell whether anybody waits for a task that runs: Dask does not end it when it is cancelled."""
    task = worker.state.tasks.get(cast("Any", key))
    return task is not None and task.state != "cancelled"


def start_delay_s(node: str, within_s: float) -> float:
    """Return how long a node waits before it joins, in seconds: many that start at once are spread evenly."""
    drawn = int.from_bytes(hashlib.sha256(node.encode()).digest()[:8], "big")
    return within_s * drawn / (1 << 64)


async def dask_setup(worker: Worker) -> None:
    """Make a worker a node, before it joins: Dask calls this by `--preload`.

    `FSDM_DATA_DIR` names the data directory, `FSDM_REPORT` the file with the node's reports, `FSDM_START_WITHIN` the
    seconds that the nodes of a fleet are spread over when they start (2).

    Raises:
        InvalidInputError: no data directory is named, or it has no node's id.
        DataDirectoryError: it cannot be opened.
    """
    data_dir = os.environ.get("FSDM_DATA_DIR")
    if not data_dir:
        raise InvalidInputError("no data directory is named", hint="set FSDM_DATA_DIR")
    plugin = FleetNode(data_dir, name_of(Client(data_dir).layout, None), os.environ.get("FSDM_REPORT"))
    await asyncio.sleep(start_delay_s(plugin.node, float(os.environ.get("FSDM_START_WITHIN", START_WITHIN_S))))
    await worker.plugin_add(plugin, catch_errors=False)
