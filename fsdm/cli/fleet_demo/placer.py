"""The placer of the demo: what `fsdm place` does, round after round, until nothing changes."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from fsdm.fleet.placing import Bounds
from fsdm.fleet.reading import read_reports
from fsdm.fleet.round import Options, Round
from fsdm.fleet.shelf import Directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fsdm.fleet.documents import Pointer
    from fsdm.fleet.report import Report
    from fsdm.model.documents import DataChunk

SILENT_S: Final = 3.0
GRACE_S: Final = 6.0
BOUNDS: Final = Bounds(drops=1.0)  # else one that drains needs hours: its own brake is to stay open


@dataclass(slots=True)
class Moved:
    """The changes of some rounds: copies and bytes that were added, by node, and copies that were dropped."""

    rounds: int = 0
    bytes: int = 0
    added: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


class Wants:
    """The wants of all chunks, by id."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self._documents = documents
        self.sha256 = sha256(b"".join(documents.values())).hexdigest()

    def documents(self, chunk_ids: Iterable[str]) -> Iterator[bytes]:
        """Yield the want of each chunk, as a line with its newline."""
        return map(self._documents.__getitem__, chunk_ids)


@dataclass(slots=True)
class Placer:
    """The inputs of a placement, as files and chunks; `to` is the directory that it publishes to."""

    to: str
    reports: str
    chunks: list[DataChunk]
    copies: int
    capacity: int
    workers: dict[str, dict[str, object]] = field(default_factory=dict)
    pointer: Pointer | None = None
    _wants: Wants = field(init=False)

    def __post_init__(self) -> None:
        self._wants = Wants({chunk.id: chunk.to_json() for chunk in self.chunks})

    def add(self, node: str, zone: str) -> None:
        self.workers[node] = {"name": node, "capacity": self.capacity, "zone": zone}

    def drain(self, node: str) -> None:
        self.workers[node]["draining"] = True

    def remove(self, node: str) -> None:
        del self.workers[node]

    def round(self, moved: Moved) -> bool:
        """Place and publish once; return whether anything has changed, and note in `moved` what."""
        how = Options(bounds=BOUNDS, otherwise=self.copies, silent_s=SILENT_S, grace_s=GRACE_S)
        wants = how.wants()
        for chunk in self.chunks:
            wants.add(chunk)
        path = f"{self.to}.workers.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(worker) + "\n" for worker in self.workers.values())
        one = Round.read(wants, path, self.reports, Directory(self.to), how, time.time())
        pointer = one.publish(self._wants)
        if pointer is None:
            return False
        self.pointer = pointer
        placement, count = one.placement, len(one.workers)
        moved.rounds += 1
        moved.bytes += int(one.chunks.size[placement.added // count].sum())
        names = [worker.name for worker in one.workers.all]
        moved.added.update(names[number] for number in (placement.added % count).tolist())
        moved.dropped.update(names[number] for number in (placement.dropped % count).tolist())
        return True

    @property
    def number(self) -> int:
        """The number of the last placement that was published."""
        return 0 if self.pointer is None else self.pointer.number

    def is_applied(self) -> bool:
        """Tell whether each worker of the list has reported that it has what its list says, and no more."""
        assert self.pointer is not None
        found, _ = read_reports(self.reports)
        lists = self.pointer.lists
        return all(
            node in lists and node in found and _is_applied(found[node], lists[node].sha256, lists[node].changed)
            for node in self.workers
        )

    def has_chunks(self, node: str) -> bool:
        """Tell whether the list of a worker has any chunks."""
        assert self.pointer is not None
        return self.pointer.lists[node].chunks > 0

    def is_braked(self, node: str) -> bool:
        """Tell whether a worker reports that it holds deletes back."""
        found, _ = read_reports(self.reports)
        return node in found and found[node].braked

    def is_live(self, node: str) -> bool:
        """Tell whether a worker has reported a moment ago."""
        return time.time() - os.stat(f"{self.reports}/{node}.json").st_mtime < SILENT_S / 2

    def is_gone(self, node: str) -> bool:
        """Tell whether a worker has been silent for the grace."""
        return time.time() - os.stat(f"{self.reports}/{node}.json").st_mtime > GRACE_S


def _is_applied(report: Report, digest: str, changed: float) -> bool:
    return report.applied == digest and report.at >= changed and not (report.missing or report.extra)
