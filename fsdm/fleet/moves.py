"""The moves of a placement: each copy that comes to a list or goes from one, with the reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fsdm.fleet.inventory import hex_id
from fsdm.fleet.placing import Reason
from fsdm.fleet.summary import KEYS, REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.fleet.inventory import Chunks, Ints, Workers
    from fsdm.fleet.placing import Placement

DROPPED: Final = "dropped"
DRAINS: Final = "its worker drains"


@dataclass(frozen=True, slots=True)
class Move:
    """A copy of a chunk, of so many bytes: from a worker (None: it is made anew), to one (None: it goes), and why.

    `reason` is a key of the summary's `added`, or `dropped`; `why` says it in words.
    """

    chunk: str
    bytes: int
    origin: str | None
    target: str | None
    reason: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it as an object."""
        how = {"from": self.origin, "to": self.target, "reason": self.reason, "why": self.why}
        return {"id": self.chunk, "bytes": self.bytes, **how}


def moves(chunks: Chunks, workers: Workers, placement: Placement) -> Iterator[Move]:
    """Yield the copies that come, by chunk, then those that go.

    One that moves comes from where one is to leave: it goes there in a later round, once the new one is confirmed.
    """
    count, names = len(workers), [worker.name for worker in workers.all]
    moved = placement.reasons != Reason.MISSING
    origins = _origins(placement.added[moved] // count, placement.leaving, count)
    for copy, number in zip(placement.added.tolist(), placement.reasons.tolist(), strict=True):
        chunk, worker = divmod(copy, count)
        reason = Reason(number)
        origin = None if reason == Reason.MISSING else next(origins)
        why = REASONS[reason]
        if reason == Reason.LEAVING and origin is not None and workers.draining[origin]:
            why = DRAINS
        yield _move(chunks, chunk, None if origin is None else names[origin], names[worker], KEYS[reason], why)
    for copy in placement.dropped.tolist():
        chunk, worker = divmod(copy, count)
        yield _move(chunks, chunk, names[worker], None, DROPPED, "the others are confirmed")


def _move(chunks: Chunks, chunk: int, origin: str | None, target: str | None, reason: str, why: str) -> Move:
    return Move(hex_id(chunks.ids[chunk]), int(chunks.size[chunk]), origin, target, reason, why)


def _origins(moved: Ints, leaving: Ints, count: int) -> Iterator[int | None]:
    """Yield the worker that each of the copies leaves, of chunks in order: of one that is leaving, the next."""
    first = np.searchsorted(leaving // count, moved)
    last = np.searchsorted(leaving // count, moved, side="right")
    before, nth = -1, 0
    for chunk, begin, end in zip(moved.tolist(), first.tolist(), last.tolist(), strict=True):
        nth = nth + 1 if chunk == before else 0
        before = chunk
        yield int(leaving[begin + nth]) % count if begin + nth < end else None
