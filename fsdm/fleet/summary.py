"""The summary of a placement, and the reasons for what it does to a chunk or to a worker, as values and as sentences.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.inventory import Presence, hex_id, is_in, union
from fsdm.fleet.placing import Reason
from fsdm.model.units import count, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.fleet.inventory import Chunks, Copies, Ints, Workers
    from fsdm.fleet.placing import Bounds, Placement
    from fsdm.fleet.report import Report

REASONS: Final = {
    Reason.MISSING: "the chunk has too few copies",
    Reason.LEAVING: "another copy is to leave its worker or its zone",
    Reason.BALANCE: "the bytes are balanced",
}
KEYS: Final = {Reason.MISSING: "missing", Reason.LEAVING: "leaving", Reason.BALANCE: "balance"}


@dataclass(frozen=True, slots=True)
class Amount:
    """Copies, and their bytes."""

    copies: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Short:
    """A chunk with fewer copies in the lists than it asks for, how many of those are confirmed, and why."""

    id: str
    copies: int
    wanted: int
    confirmed: int
    why: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The effects of a placement: `added` by reason, `dropped`, what is still `leaving`, and the chunks left `short`.

    `fullness`: the least and the largest part of a capacity that the lists take, of workers that keep their copies.
    `lost`: the chunks that no live worker has confirmed, though they were placed before. `braked`: the workers whose
    own brake holds deletes back; `failing`: how many copies workers say that they cannot fetch.
    """

    chunks: int
    workers: dict[str, int]
    added: dict[str, Amount]
    dropped: Amount
    leaving: Amount
    fullness: tuple[float, float]
    lost: int
    braked: tuple[str, ...]
    failing: int
    short: tuple[Short, ...] = field(repr=False)


def summary(
    chunks: Chunks, workers: Workers, before: Copies, placement: Placement, reports: Mapping[str, Report]
) -> Summary:
    """Sum a placement up, and what the reports of its workers tell."""
    count_ = len(workers)

    def amount(copies: Ints) -> Amount:
        return Amount(int(copies.size), int(chunks.size[copies // count_].sum()))

    keeps = workers.keeps & (workers.capacity > 0)
    full = placement.loads.kept[keeps] / workers.capacity[keeps]
    confirmed = np.bincount(placement.confirmed // count_, minlength=len(chunks))
    placed = np.bincount(before.planned // count_, minlength=len(chunks)) > 0
    standing = {one.name.lower(): int((workers.presence == one).sum()) for one in Presence}
    return Summary(
        chunks=len(chunks),
        workers={**standing, "draining": int(workers.draining.sum())},
        added={KEYS[one]: amount(placement.added[placement.reasons == one]) for one in Reason},
        dropped=amount(placement.dropped),
        leaving=amount(placement.leaving),
        fullness=(float(full.min(initial=1.0)), float(full.max(initial=0.0))) if full.size else (0.0, 0.0),
        lost=int((placed & (confirmed == 0)).sum()),
        braked=tuple(worker.name for worker in workers.all if worker.name in reports and reports[worker.name].braked),
        failing=sum(len(reports[worker.name].failing) for worker in workers.all if worker.name in reports),
        short=tuple(_short(chunks, workers, placement, confirmed)),
    )


def _short(chunks: Chunks, workers: Workers, placement: Placement, confirmed: Ints) -> Iterator[Short]:
    """Find the chunks that are short, those with the fewest confirmed copies first, then with the fewest at all."""
    some = np.flatnonzero(placement.kept < chunks.replicas)
    room = placement.loads.room()
    largest = int(room.max(initial=-1))
    for number in some[np.lexsort((some, placement.kept[some], confirmed[some]))].tolist():
        kept, wanted, size = int(placement.kept[number]), int(chunks.replicas[number]), int(chunks.size[number])
        if kept < placement.replicas[number] and size <= largest:
            why = "it waits for the next round: no worker that may have it has bytes in flight, or moves, left"
        elif int(workers.keeps.sum()) < wanted:
            why = f"there are no more than {count(int(workers.keeps.sum()), 'worker')}"
        elif size > int(workers.capacity[workers.keeps].max(initial=0)):
            why = f"no worker is as large as its {readable(size)}"
        else:
            why = "the workers have no room for more"
        yield Short(hex_id(chunks.ids[number]), kept, wanted, int(confirmed[number]), why)


def explain_chunk(chunks: Chunks, workers: Workers, placement: Placement, number: int) -> list[str]:
    """Say where a chunk is to be, and why: the first line sums it up."""
    mine = union(placement.listed, placement.dropped)
    mine = mine[mine // len(workers) == number]
    kept, wanted = int(placement.kept[number]), int(chunks.replicas[number])
    sure = int(is_in(mine, placement.confirmed).sum())
    here = hex_id(chunks.ids[number])
    lines = [f"{here} is in {count(kept, 'list')} to stay, and asks for {wanted}; {sure} confirmed"]
    for copy in mine.tolist():
        worker = workers.all[copy % len(workers)]
        one = np.array([copy])
        if is_in(one, placement.dropped)[0]:
            what = "dropped: the others are confirmed"
        elif is_in(one, placement.added)[0]:
            what = f"added: {REASONS[Reason(placement.reasons[np.searchsorted(placement.added, copy)])]}"
        else:
            what = "confirmed" if is_in(one, placement.confirmed)[0] else "not confirmed yet"
            what += _leaving(worker.draining) if is_in(one, placement.leaving)[0] else ""
        away = f", {worker.presence.name.lower()}" if worker.presence else ""
        lines.append(f"{worker.name}{f' in {worker.zone}' if worker.zone else ''}{away}: {what}")
    confirmed = np.bincount(placement.confirmed // len(workers), minlength=len(chunks))
    short = next((one.why for one in _short(chunks, workers, placement, confirmed) if one.id == here), "")
    return [*lines, short] if short else lines


def _leaving(is_draining: bool) -> str:
    return f"; it leaves once the others are confirmed{', for the worker drains' * is_draining}"


def explain_worker(chunks: Chunks, workers: Workers, placement: Placement, bounds: Bounds, number: int) -> list[str]:
    """Say what a worker is to hold, and what changes: the first line sums it up."""
    worker, loads = workers.all[number], placement.loads
    standing = ", ".join([worker.presence.name.lower(), *["draining"] * worker.draining])
    lines = [
        f"{worker.name} is {standing}: {readable(worker.capacity_bytes)}, {worker.zone or 'a zone of its own'}",
        f"its list has {_amount(chunks, workers, placement.listed, number)}",
        f"its share is {readable(int(loads.target[number]))}, and it may have {readable(int(loads.limit[number]))}",
        f"on its way: {readable(int(loads.flight[number]))}",
    ]
    for reason, said in REASONS.items():
        new = placement.added[placement.reasons == reason]
        lines.append(f"added, for {said}: {_amount(chunks, workers, new, number)}")
    lines.append(f"leaving, once others are confirmed: {_amount(chunks, workers, placement.leaving, number)}")
    lines.append(f"dropped: {_amount(chunks, workers, placement.dropped, number)}")
    if not worker.draining and worker.presence == Presence.LIVE:
        off = (loads.kept[number] - loads.target[number]) / max(loads.target[number], 1.0)
        lines.append(f"it is {off:+.1%} from its share; copies move from {bounds.tolerance:.0%} on")
    return lines


def _amount(chunks: Chunks, workers: Workers, copies: Ints, number: int) -> str:
    mine = copies[copies % len(workers) == number] // len(workers)
    return f"{count(mine.size, 'chunk')} ({readable(int(chunks.size[mine].sum()))})"
