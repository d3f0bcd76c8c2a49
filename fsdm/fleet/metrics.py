"""The metrics of a round, for Prometheus, as a text that the textfile collector of the node exporter reads. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fsdm.fleet.inventory import Presence, totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.fleet.documents import Pointer
    from fsdm.fleet.round import Round

    Samples = Mapping[str, float]  # by the value of the label; by "" where there is none


class Metric(NamedTuple):
    """A gauge: its name, its meaning, and its label, if it has one."""

    name: str
    help: str
    label: str = ""


METRICS: Final = (
    Metric("fsdm_place_timestamp_seconds", "When the last round was made that was not refused."),
    Metric("fsdm_place_number", "The number of the placement that holds."),
    Metric("fsdm_place_chunks", "Chunks that are to be placed."),
    Metric("fsdm_place_workers", "Workers, by how they stand; those that drain are counted once more.", "standing"),
    Metric("fsdm_place_below_target_chunks", "Chunks with fewer confirmed copies than they ask for."),
    Metric("fsdm_place_short_chunks", "Chunks with fewer copies in the lists than they ask for."),
    Metric("fsdm_place_lost_chunks", "Chunks that were placed, and that no live worker has confirmed."),
    Metric("fsdm_place_added_bytes", "Bytes of the copies that the round has added, by reason.", "reason"),
    Metric("fsdm_place_leaving_bytes", "Bytes of the copies that are to go once others are confirmed."),
    Metric("fsdm_place_dropped_bytes", "Bytes of the copies that the round has dropped."),
    Metric("fsdm_place_in_flight_bytes", "Bytes that workers have still to fetch."),
    Metric("fsdm_place_worker_in_flight_bytes", "Bytes that a worker has still to fetch, where it has any.", "worker"),
    Metric("fsdm_place_worker_behind_seconds", "How long a worker has not applied its list, where so.", "worker"),
    Metric("fsdm_place_applied_workers", "Workers that have applied the list that they are to have."),
    Metric("fsdm_place_braked_workers", "Workers whose own brake holds deletes back."),
    Metric("fsdm_place_fullness", "The part of a capacity that a list takes: the least, and the largest.", "of"),
)


def metrics(one: Round, pointer: Pointer | None) -> str:
    """Write the metrics of a round; `pointer` is what holds after it."""
    found = _samples(one, pointer)
    return "".join(line for metric in METRICS for line in _lines(metric, found[metric.name]))


def _lines(metric: Metric, samples: Samples) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} gauge\n"
    for value, sample in samples.items():  # the names of workers need no escapes
        labels = f'{{{metric.label}="{value}"}}' if metric.label else ""
        yield f"{metric.name}{labels} {sample:.17g}\n"


def _samples(one: Round, pointer: Pointer | None) -> dict[str, Samples]:
    summary, count = one.summary(), len(one.workers)
    confirmed = np.bincount(one.placement.confirmed // count, minlength=len(one.chunks))
    flight = np.setdiff1d(one.placement.listed, one.placement.confirmed, assume_unique=True)
    flight = flight[one.workers.presence[flight % count] == Presence.LIVE]
    coming = totals(flight % count, one.chunks.size[flight // count], count)
    lists = pointer.lists if pointer is not None else {}
    behind, applied = dict[str, float](), 0
    for name, said in lists.items():
        report = one.reports.get(name)
        is_applied = report is not None and report.applied == said.sha256
        applied += is_applied
        if not is_applied:
            behind[name] = max(one.now - said.changed, 0.0)
    return {
        "fsdm_place_timestamp_seconds": {"": one.now},
        "fsdm_place_number": {"": pointer.number if pointer is not None else 0},
        "fsdm_place_chunks": {"": summary.chunks},
        "fsdm_place_workers": summary.workers,
        "fsdm_place_below_target_chunks": {"": int((confirmed < one.chunks.replicas).sum())},
        "fsdm_place_short_chunks": {"": len(summary.short)},
        "fsdm_place_lost_chunks": {"": summary.lost},
        "fsdm_place_added_bytes": {reason: amount.bytes for reason, amount in summary.added.items()},
        "fsdm_place_leaving_bytes": {"": summary.leaving.bytes},
        "fsdm_place_dropped_bytes": {"": summary.dropped.bytes},
        "fsdm_place_in_flight_bytes": {"": int(coming.sum())},
        "fsdm_place_worker_in_flight_bytes": {
            one.workers.all[number].name: int(coming[number]) for number in np.flatnonzero(coming).tolist()
        },
        "fsdm_place_worker_behind_seconds": behind,
        "fsdm_place_applied_workers": {"": applied},
        "fsdm_place_braked_workers": {"": len(summary.braked)},
        "fsdm_place_fullness": dict(zip(("least", "largest"), summary.fullness, strict=True)),
    }
