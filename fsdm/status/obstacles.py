"""Obstacles: what holds pending intents up, in sentences for people who wait. Pure.

Invariant: each is told once, however often it is looked at, and of each kind no more than `LISTED`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Final

from fsdm.model.units import ago

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    from fsdm.status.chunk_status import Failing
    from fsdm.status.progress import Retiring, Survey

LISTED: Final = 10

_Obstacle = tuple[str, "Hashable", str]  # the kind, what tells it from others of that kind, and the sentence


class Obstacles:
    """Sentences of what holds these chunks up (all, where none are named), each once."""

    def __init__(self, root: str, chunk_ids: Collection[str] = ()) -> None:
        self._root, self._at = root, f"-d {shlex.quote(root)}"
        self._chunk_ids = frozenset(chunk_ids)
        self._told: set[tuple[str, Hashable]] = set()
        self._counts: Counter[str] = Counter()

    def news(self, survey: Survey) -> list[str]:
        """Return the sentences that have not been told yet."""
        new = []
        for kind, key, sentence in self._found(survey):
            if (kind, key) not in self._told and self._counts[kind] <= LISTED:
                self._told.add((kind, key))
                self._counts[kind] += 1
                more = f"more chunks {kind}: fsdm status {self._at} tells which"
                new.append(sentence if self._counts[kind] <= LISTED else more)
        return new

    def _found(self, survey: Survey) -> Iterator[_Obstacle]:
        yield from self._of_all(survey)
        for one in filter(self._concerns, survey.failing):
            yield "fail", (one.id, one.error), self._failing(one, survey.at)
        for one in filter(self._concerns, survey.waiting):
            yield "wait for room", (one.id, one.error), f"{one.id[:12]} waits for room: it {one.error}"
        for held in filter(self._concerns, survey.retiring):
            holders = () if held.holders is None else held.holders.found
            if holders:
                by = ", ".join(f"pid {holder.pid} `{holder.command}`" for holder in holders)
                yield "are held", (held.id, by), f"{held.id[:12]} is deleted once it is released by {by}"

    def _of_all(self, survey: Survey) -> Iterator[_Obstacle]:
        if survey.reconciler is None:
            start = f"start one: fsdm run {self._at}"
            yield "none", "", f"no process is reconciling {self._root}, so nothing is carried out; {start}"
        elif survey.reconciler_trouble is not None:
            yield "stuck", "", survey.reconciler_trouble
        if survey.paused:
            yield "paused", "", f"downloads are paused; to let them go on: fsdm resume {self._at}"
        if survey.braked:
            yield "braked", "", f"deletes are held back; fsdm status {self._at} tells why"
        if survey.read_only:
            yield "disk", "", "the file system is read-only: nothing can be downloaded or deleted"
        elif not survey.free_bytes:
            yield "disk", "", "the disk is full: downloads go on once there is room"

    def _concerns(self, one: Failing | Retiring) -> bool:
        return not self._chunk_ids or one.id in self._chunk_ids

    def _failing(self, one: Failing, now: float) -> str:
        again = "" if one.next_attempt_at is None else f"; it is tried again at {ago(one.next_attempt_at, now)}"
        passing = again if one.transient else "; it will not pass by itself"
        return f"{one.id[:12]} fails: {one.error}{passing}: fsdm explain {self._at} {one.id}"
