"""The numbers of one `DataManager` for Prometheus: their names, and where they come from.

Nothing is counted here: counts come from the manager's counters, all else from what the loop has in memory, without a
lock: so a number may be one pass old, and the cost grows with what is pending. No label comes from outside: their
values are closed sets, or a sha256. `docs/metrics.md` explains each, and how to mount them into an endpoint of one's
own.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from prometheus_client import CollectorRegistry, core
from prometheus_client.registry import Collector

from fsdm.concurrency.single_flight import SingleFlight
from fsdm.model.state import State, name_of
from fsdm.monitoring.health import LOOK_S, health, look_at_disk
from fsdm.reconcile.actions import Fetch
from fsdm.reconcile.counters import Histogram
from fsdm.store.filesystem import exists
from fsdm.store.followed import REPORT, REPORT_MAX_BYTES, path_of, read_followed
from fsdm.store.json_files import read_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric as Family

    from fsdm.index.background import Indexing
    from fsdm.manager import DataManager
    from fsdm.model.layout import Layout
    from fsdm.model.state import Marker
    from fsdm.reconcile.loop import Loop
    from fsdm.reconcile.reconciler import Reconciler

Value = float | Histogram | dict[str, float] | None  # by label, where there is one; None where it is not known
_VERSION: Final = version("fsdm")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `label` is the name of its label, or empty."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    label: str = ""

    def family(self, value: Value) -> Family:
        """Make the metric family with its samples; with none where nothing is known."""
        kind = getattr(core, f"{self.kind.capitalize()}MetricFamily")
        family = kind(self.name, self.help, labels=[self.label] if self.label else [])
        if isinstance(value, Histogram):
            bounds = [*map(repr, map(float, value.bounds)), "+Inf"]
            family.add_metric([], list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
        elif value is not None:
            for label, one in value.items() if isinstance(value, dict) else [("", value)]:
                family.add_metric([label] if self.label else [], one)
        return family  # type: ignore[no-any-return]


METRICS: Final = (
    Metric("fsdm_build_info", "gauge", "1, for the version of fsdm that runs.", "version"),
    Metric("fsdm_healthy", "gauge", "Whether /healthz would say so."),
    Metric("fsdm_reconciling", "gauge", "Whether this process reconciles (1), or stands by or is a client (0)."),
    Metric("fsdm_loop_late_seconds", "gauge", "By how much the loop is overdue: beyond 30 it counts as stuck."),
    Metric("fsdm_pass_seconds", "histogram", "How long the passes of the loop took, without their rest."),
    Metric("fsdm_failed_passes_total", "counter", "Passes of the loop that ended with an error."),
    Metric("fsdm_chunks", "gauge", "Chunks by state, in the words of `fsdm status`.", "state"),
    Metric("fsdm_given_up_chunks", "gauge", "Of these, the failed ones that are not tried again by themselves."),
    Metric("fsdm_held_chunks", "gauge", "Chunks that are to leave, and are kept by refs."),
    Metric("fsdm_oldest_intent_age_seconds", "gauge", "Age of the oldest marker that has not converged.", "intent"),
    Metric("fsdm_want_to_available_seconds", "histogram", "From a want to its chunk being available."),
    Metric("fsdm_delete_to_gone_seconds", "histogram", "From a delete to its chunk having left, refs included."),
    Metric("fsdm_fetch_seconds", "histogram", "How long the downloads took of the chunks that came."),
    Metric(
        "fsdm_fetches", "gauge", "Downloads by state: running, queued for a slot, parked until there is room.", "state"
    ),
    Metric("fsdm_running_actions", "gauge", "Steps being carried out that are no downloads."),
    Metric("fsdm_waiting_chunks", "gauge", "Chunks that are left alone for a time: failed attempts, refs."),
    Metric("fsdm_downloads_paused", "gauge", "Whether downloads pause: the disk refuses them, or `fsdm pause`.", "by"),
    Metric("fsdm_held_back_deletes", "gauge", "Deletes that the brake holds back until `fsdm release`."),
    Metric("fsdm_list_info", "gauge", "1, for the sha256 of the list that is followed and applied.", "sha256"),
    Metric("fsdm_list_chunks", "gauge", "Chunks of that list."),
    Metric("fsdm_list_looked_timestamp_seconds", "gauge", "When it was last seen to be the newest, or became so."),
    Metric("fsdm_list_failing", "gauge", "Whether the last look at the list failed."),
    Metric("fsdm_list_held_back", "gauge", "Whether the brake holds a newer list back until `fsdm release`."),
    Metric("fsdm_list_missing_chunks", "gauge", "Chunks of the list that are not here, as of the last report."),
    Metric("fsdm_list_failing_chunks", "gauge", "Of these, those that cannot be fetched."),
    Metric("fsdm_received_bytes_total", "counter", "Bytes of files that came, also in attempts that failed."),
    Metric("fsdm_published_bytes_total", "counter", "Bytes of the chunks that became available."),
    Metric("fsdm_acquire_misses_total", "counter", "Downloads of registered chunks that somebody has asked for."),
    Metric("fsdm_evicted_bytes_total", "counter", "Bytes of the chunks that were evicted."),
    Metric("fsdm_last_victim_idle_seconds", "gauge", "For how long the chunk had not been used that was evicted last."),
    Metric("fsdm_events_total", "counter", "What happened, by kind, in the words of `fsdm run --json`.", "kind"),
    Metric("fsdm_failures_total", "counter", "Attempts that failed, by cause.", "cause"),
    Metric("fsdm_pending_indexes", "gauge", "Indexes of chunks that are to be made."),
    Metric("fsdm_failing_indexes", "gauge", "Of these, those that rest after a failure."),
    Metric("fsdm_built_indexes_total", "counter", "Indexes of chunks that were made."),
    Metric("fsdm_index_failures_total", "counter", "Attempts to make an index that failed."),
    Metric("fsdm_gathered_chunks", "gauge", "Chunks in the index over all, evicted ones as well.", "index"),
    Metric("fsdm_gathered_bytes", "gauge", "Bytes of the index over all chunks.", "index"),
    Metric("fsdm_stored_bytes", "gauge", "Bytes on the disk: here, retiring, partial, trash.", "part"),
    Metric("fsdm_budget_bytes", "gauge", "What all chunks together may take (--max-bytes)."),
    Metric("fsdm_budgeted_bytes", "gauge", "What counts against that: running downloads count as what they will need."),
    Metric("fsdm_reserve_bytes", "gauge", "What is to stay free on the disk (--keep-free)."),
    Metric("fsdm_disk_free_bytes", "gauge", "Bytes free on the file system of the data directory."),
    Metric("fsdm_disk_size_bytes", "gauge", "Size of that file system."),
    Metric("fsdm_disk_free_inodes", "gauge", "Inodes free on it; 0 also where it has no fixed number of them."),
    Metric("fsdm_disk_read_only", "gauge", "Whether it is read-only."),
)


class Metrics(Collector):
    """The metrics of one manager, in a registry of their own. What is not known has no sample.

    That is so of what only a reconciler knows, of bytes on the disk that are not counted (no budget, and not
    `Limits.count_bytes`), and of a disk that does not answer within a second.
    """

    def __init__(self, dm: DataManager) -> None:
        self._dm = dm
        self._disk = SingleFlight(lambda: (look_at_disk(dm.layout), _stored_bytes(dm), _of_the_list(dm.layout)))
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def describe(self) -> Iterator[Family]:
        """List the names alone."""
        return (metric.family(None) for metric in METRICS)

    def collect(self) -> Iterator[Family]:
        """Read all of them as they are now."""
        values = self._values()
        return (metric.family(values.get(metric.name)) for metric in METRICS)

    def _values(self) -> dict[str, Value]:
        reconciler = self._dm.reconciler
        values = _of_the_process(self._dm, reconciler)
        if reconciler is not None:
            values["fsdm_loop_late_seconds"] = reconciler.loop.heartbeat.late_s
            values["fsdm_received_bytes_total"] = reconciler.received_bytes
            values |= _of_the_loop(reconciler.loop, time.time())
            values |= _of_indexes(reconciler.indexing)
        looked = self._disk.ask(LOOK_S)
        if looked is not None:
            space, values["fsdm_stored_bytes"], of_the_list = looked
            values |= of_the_list
            if not isinstance(space, str):
                values["fsdm_disk_free_bytes"] = space.free_bytes
                values["fsdm_disk_size_bytes"] = space.size_bytes
                values["fsdm_disk_free_inodes"] = space.free_inodes
                values["fsdm_disk_read_only"] = float(space.read_only)
        return values


def _of_the_process(dm: DataManager, reconciler: Reconciler | None) -> dict[str, Value]:
    counts = dm.counters.counts()
    return {
        "fsdm_build_info": {_VERSION: 1.0},
        "fsdm_healthy": float(health(dm).is_well),
        "fsdm_reconciling": float(reconciler is not None),
        "fsdm_pass_seconds": counts.loop,
        "fsdm_failed_passes_total": counts.failed_passes,
        "fsdm_want_to_available_seconds": counts.want_to_available,
        "fsdm_delete_to_gone_seconds": counts.delete_to_gone,
        "fsdm_fetch_seconds": counts.fetches,
        "fsdm_published_bytes_total": counts.published_bytes,
        "fsdm_acquire_misses_total": counts.missed,
        "fsdm_evicted_bytes_total": counts.evicted_bytes,
        "fsdm_last_victim_idle_seconds": counts.last_victim_idle_s,
        "fsdm_events_total": {str(kind): float(count) for kind, count in counts.events.items()},
        "fsdm_failures_total": {str(cause): float(count) for cause, count in counts.failures.items()},
    }


def _of_the_list(layout: Layout) -> dict[str, Value]:
    followed = read_followed(layout)
    if followed is None:
        return {}
    report = read_document(path_of(layout, REPORT), REPORT_MAX_BYTES) if exists(path_of(layout, REPORT)) else None
    counts = {name: _length(report, name) for name in ("missing", "failing")}
    return {
        "fsdm_list_info": None if followed.applied is None else {followed.applied: 1.0},
        "fsdm_list_chunks": followed.chunks,
        "fsdm_list_looked_timestamp_seconds": followed.looked_at,
        "fsdm_list_failing": float(followed.error != ""),
        "fsdm_list_held_back": float(followed.held_back != ""),
        "fsdm_list_missing_chunks": counts["missing"],
        "fsdm_list_failing_chunks": counts["failing"],
    }


def _length(report: dict[str, Any] | None, name: str) -> int | None:
    found = None if report is None else report.get(name)
    return len(found) if isinstance(found, list) else None


def _of_indexes(indexing: Indexing) -> dict[str, Value]:
    gathered = indexing.gathered()
    return {
        "fsdm_pending_indexes": indexing.pending,
        "fsdm_failing_indexes": indexing.failing,
        "fsdm_built_indexes_total": indexing.built,
        "fsdm_index_failures_total": indexing.failed,
        "fsdm_gathered_chunks": {name: float(chunks) for name, (chunks, _) in gathered.items()},
        "fsdm_gathered_bytes": {name: float(size) for name, (_, size) in gathered.items()},
    }


def _of_the_loop(loop: Loop, now: float) -> dict[str, Value]:
    # copies: the loop goes on
    states, actions, queue = list(loop.states.values()), list(loop.executor.actions), loop.work_queue
    fetching = sum(isinstance(action, Fetch) for action in actions)
    max_bytes, keep_free_bytes = loop.space.limits.max_bytes, loop.space.keep_free_bytes
    return {
        "fsdm_chunks": chunks_by_state(loop),
        "fsdm_given_up_chunks": sum(loop.results.is_given_up(state.id) for state in states),
        "fsdm_held_chunks": loop.results.held_chunks,
        "fsdm_oldest_intent_age_seconds": {
            "want": _oldest_age_s((state.want for state in states), now),
            "delete": _oldest_age_s((state.delete for state in states), now),
        },
        "fsdm_fetches": {"running": fetching, "queued": queue.waiting_fetches, "parked": queue.parked_fetches},
        "fsdm_running_actions": len(actions) - fetching,
        "fsdm_waiting_chunks": queue.waits,
        "fsdm_downloads_paused": {"disk": float(bool(loop.disk.refusal)), "hand": float(bool(loop.paused.why))},
        "fsdm_held_back_deletes": loop.delete_brake.held_back,
        "fsdm_budget_bytes": max_bytes,
        "fsdm_budgeted_bytes": None if max_bytes is None else loop.space.budgeted_bytes,
        "fsdm_reserve_bytes": keep_free_bytes,
    }


def chunks_by_state(loop: Loop) -> dict[str, float]:
    """Count the chunks by state; those that the loop has forgotten are available."""
    found = Counter[str](dict.fromkeys(get_args(State), 0))
    pending = 0
    for state in list(loop.states.values()):
        failure = loop.results.memo(state.id).failure
        kind, given_up = None if failure is None else failure.kind, loop.results.is_given_up(state.id)
        name = name_of(state, kind, given_up=given_up)
        if name is not None:
            found[name] += 1
        pending += bool(state.ready or state.unready)
    found["available"] += max(len(loop.catalog) - pending, 0)
    return dict(found)


def _oldest_age_s(markers: Iterable[Marker | None], now: float) -> float:
    placed = (marker.ctime_ns / 1e9 for marker in markers if marker is not None and marker.fault is None)
    return max(now - min(placed, default=now), 0.0)


def _stored_bytes(dm: DataManager) -> dict[str, float] | None:
    reconciler = dm.reconciler
    stored = None if reconciler is None else reconciler.loop.bytes_by_part()
    return None if stored is None else {str(part): float(size) for part, size in stored.items()}
