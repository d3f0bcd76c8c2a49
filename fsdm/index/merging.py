"""The process that merges runs and chunks' indexes into one run: `python -m fsdm.index.merging`, as `worker` is run.

Their records go bucket by bucket, so that no more than a part of them is in memory. Invariant: the new run has all that
its inputs had, but for what is dead: a chunk of a run that does not stand (`standing`).
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from operator import eq
from typing import TYPE_CHECKING, Any, Final

from fsdm.index.confinement import confine, end_with
from fsdm.index.report import reported
from fsdm.index.standing import stands
from fsdm.index.writing import finish_run, new_run
from fsdm.model.index_format import NUMBER, NUMBERED, RECORD, IndexedChunk
from fsdm.model.layout import Layout, Place
from fsdm.store.index_file import ChunkIndex, IndexFile, open_chunk_index
from fsdm.store.index_runs import open_run, run_name

if TYPE_CHECKING:
    from collections.abc import Sequence

TOGETHER: Final = 1 << 17  # records in memory at once, on the average
MEMORY_BYTES: Final = 512 << 20
RELEASE_EVERY: Final = 16  # parts, after which the pages that were read are let go of


@dataclass(frozen=True, slots=True)
class MergeJob:
    """A merge: of which runs and of which chunks' indexes, and where it is written."""

    parent: int
    root: str
    name: str
    definition: str  # in hex
    runs: Sequence[str]  # their names
    places: Sequence[tuple[str, str]]  # dataset and name
    target: str

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(slots=True)
class _Input:
    """A file whose records are merged; `numbers` are what its numbers become, None where a chunk is dead."""

    file: IndexFile
    numbers: Sequence[bytes | None] | bytes  # of a chunk's index: all of them become one
    at: int = 0
    is_same: bool = False

    def take(self, end_hash: bytes | None) -> list[bytes]:
        """Return the records up to a hash with their new numbers, in their order, which is that of hashes alone."""
        data, self.at = self.file.records_from(self.at, end_hash)
        numbers = self.numbers
        if isinstance(numbers, bytes):
            return [hashed + numbers for hashed, _ in NUMBERED.iter_unpack(data)]
        if self.is_same:
            return [record for (record,) in RECORD.iter_unpack(data)]
        found = ((hashed, numbers[number]) for hashed, number in NUMBERED.iter_unpack(data))
        return [hashed + number for hashed, number in found if number is not None]


@dataclass(slots=True)
class _Merge:
    layout: Layout
    job: MergeJob
    stack: ExitStack
    inputs: list[_Input] = field(default_factory=list)
    numbers: dict[IndexedChunk, int] = field(default_factory=dict)  # of the living chunks of the new run
    untaken: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def open(self) -> None:
        for name in self.job.runs:
            run = open_run(f"{self.layout.runs_of(self.job.name)}/{name}")
            if run is None or not self.stack.enter_context(run).is_whole():
                self.damaged.append(name)
                continue
            numbers = [
                None if chunk is None or not stands(self.layout, chunk) else self._number(chunk)
                for chunk in run.chunks()
            ]
            is_same = numbers == [NUMBER.pack(number) for number in range(len(numbers))]
            self.inputs.append(_Input(run, numbers, is_same=is_same))
        for dataset, name in self.job.places:
            index = self._index(Place(dataset, name))
            if index is None:
                self.untaken.append((dataset, name))
                continue
            chunk = IndexedChunk(Place(dataset, name), index.header.identity)
            self.inputs.append(_Input(index, self._number(chunk)))

    def _number(self, chunk: IndexedChunk) -> bytes:
        return NUMBER.pack(self.numbers.setdefault(chunk, len(self.numbers)))

    def _index(self, place: Place) -> ChunkIndex | None:
        index = open_chunk_index(self.layout.path(place), self.job.name)
        if index is None:
            return None
        self.stack.enter_context(index)
        is_ours = index.header.definition == bytes.fromhex(self.job.definition)
        return index if is_ours and index.is_sound() else None

    def write(self) -> str:
        """Write the run; return its name."""
        total = sum(one.file.header.count for one in self.inputs)
        bits = max((total // TOGETHER).bit_length(), 0)
        with open(self.job.target, "xb") as file:
            table = new_run(file, total)
            for part in range(1, (1 << bits) + 1):
                end_hash = None if part == 1 << bits else (part << (64 - bits)).to_bytes(8)
                together = sorted(chain.from_iterable(one.take(end_hash) for one in self.inputs))
                if any(map(eq, together, islice(together, 1, None))):  # a chunk stands once under a hash
                    together = list(dict.fromkeys(together))
                table.add(together)
                if part % RELEASE_EVERY == 0:
                    for one in self.inputs:
                        one.file.release_pages()
            header = finish_run(table, list(self.numbers), bytes.fromhex(self.job.definition))
        return run_name(header.body)


def merge(job: MergeJob) -> dict[str, Any]:
    """Merge; return the report: the run's name (None where nothing lives), and which inputs could not be taken."""
    with ExitStack() as stack:
        it = _Merge(Layout(job.root), job, stack)
        it.open()
        run = it.write() if it.numbers else None
    return {"run": run, "untaken": it.untaken, "damaged": it.damaged}


def main() -> int:
    """Read a job, carry it out, write the report; return the exit code."""

    def carried_out() -> dict[str, Any]:
        given = json.load(sys.stdin)
        job = MergeJob(**{**given, "places": [tuple(place) for place in given["places"]]})
        confine(MEMORY_BYTES)
        end_with(job.parent)
        return merge(job)

    return reported(carried_out)


if __name__ == "__main__":
    sys.exit(main())
