"""Counting what chunks take up, and deciding what still fits (PROTOCOL.md, "Room").

A running fetch counts with its whole expected size, so that no two start into the last gap; files that declare no size
count as what has come of them. Sizes are read once for a chunk, and again when something was done to it.
Invariant: the headroom only shrinks between two looks, by what begins; a fetch begins only within it.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from fsdm.concurrency.log import Log
from fsdm.model.errors import InvalidInputError, StaleMarkerError
from fsdm.model.layout import READY, is_id
from fsdm.model.units import readable
from fsdm.store.disk_usage import bytes_in
from fsdm.store.filesystem import exists, free_bytes
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.markers import read_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from fsdm.model.layout import Layout
    from fsdm.model.limits import Limits
    from fsdm.reconcile.actions import Fetch
    from fsdm.store.catalog import Catalog

logger = Log("fsdm")

ID_LENGTH: Final = 64
METADATA_BYTES: Final = 1 << 20  # what directories take up besides: for less than that no fetch is stopped

Part = Literal["here", "retiring", "partial", "trash"]
PARTS: Final[tuple[Part, ...]] = ("here", "retiring", "partial", "trash")


@dataclass(slots=True)
class Usage:
    """Bytes by part and name. Invariant: each total is the sum of its part's sizes."""

    sizes: dict[Part, dict[str, int]] = field(default_factory=lambda: {part: {} for part in PARTS})
    totals: dict[Part, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))

    def put(self, part: Part, name: str, size_bytes: int) -> None:
        sizes = self.sizes[part]
        self.totals[part] += size_bytes - sizes.pop(name, 0)
        if size_bytes:
            sizes[name] = size_bytes

    @property
    def taken_bytes(self) -> int:
        return sum(self.totals.values())


@dataclass(slots=True)
class _Running:
    fetch: Fetch
    need_bytes: int
    came_bytes: int = 0
    allocated_bytes: int = 0
    stopped: bool = False


@dataclass(slots=True)
class SpaceBudget:
    """The space budget of one data directory. The loop's alone, but for what says otherwise.

    `Limits.max_bytes` bounds all that is here: chunks, available or not, what is in `trash/`, and partials; without a
    `keep_free_bytes` the disk is not asked, until it has been full. With `count_bytes` all is counted in any case.
    """

    layout: Layout
    catalog: Catalog
    limits: Limits
    free: Callable[[str], int] = free_bytes
    _asks_disk: bool = False
    _counts: bool = False  # whatever the limits say
    _usage: Usage = field(default_factory=Usage)
    _running: dict[str, _Running] = field(default_factory=dict)
    _needs: dict[str, tuple[tuple[int, int, int], int]] = field(default_factory=dict)  # id → which want, its need
    _trash: deque[tuple[str, int, bool]] = field(default_factory=deque)  # path, bytes, whether they are the trash's
    _disk_bytes: int = 0
    _headroom_bytes: int = 0
    _short_bytes: int = 0
    _told_bytes: int = 0

    def __post_init__(self) -> None:
        self._asks_disk = self.limits.keep_free_bytes > 0

    @property
    def is_limited(self) -> bool:
        """Tell whether any fetch has to ask."""
        return self.limits.max_bytes is not None or self._asks_disk

    @property
    def _counts_chunks(self) -> bool:
        return self._counts or self.limits.count_bytes or self.limits.max_bytes is not None

    @property
    def _counts_partials(self) -> bool:
        return self._counts or self.limits.count_bytes or self.is_limited

    @property
    def keep_free_bytes(self) -> int | None:
        """The reserve; None where the disk is not asked."""
        return self.limits.keep_free_bytes if self._asks_disk else None

    def bytes_by_part(self, running: Collection[str]) -> dict[Part, int] | None:
        """Tell what there is on the disk; None where chunks are not counted. In any thread.

        Of the `running` fetches it is what has come, not what they will need.
        """
        if not self._counts_chunks:
            return None
        found = {part: self._usage.totals[part] for part in PARTS}
        idle = [size for name, size in list(self._usage.sizes["partial"].items()) if name not in running]
        found["partial"] = sum(idle) + sum(bytes_in(self.layout.partial_of(name))[0] for name in running)
        return found

    @property
    def budgeted_bytes(self) -> int:
        """Return what counts against the budget, as of the last pass. In any thread."""
        return self._usage.taken_bytes

    def here_bytes(self) -> int:
        """Return the bytes of all that is in `chunks/`; from the first time on it is counted, by a READY of each."""
        if not self._counts_chunks:
            self._counts, self._usage = True, Usage()
            self.open()
        self._take_in_trash()
        return self._usage.totals["here"] + self._usage.totals["retiring"]

    def open(self) -> None:
        if self._counts_chunks:
            for place in self.catalog.all_places():
                self.count(place.chunk_id)
        if self._counts_partials:
            for name in os.listdir(self.layout.partial):
                self.count(name)

    def change(self, limits: Limits, running: Iterable[Fetch]) -> None:
        """Use these limits from now on; what runs counts with all that it is to bring.

        A disk that has been full is asked from then on, whatever the reserve.
        """
        counted_chunks, counted_partials = self._counts_chunks, self._counts_partials
        self.limits, self._asks_disk = limits, self._asks_disk or limits.keep_free_bytes > 0
        if (self._counts_chunks, self._counts_partials) != (counted_chunks, counted_partials):
            self._usage = Usage()  # what was counted once may have gone since
            self.open()
        for fetch in running if self.is_limited else ():
            if fetch.id not in self._running:
                self._running[fetch.id] = _Running(fetch, self.need_bytes(fetch))

    def guard(self) -> None:
        """Begin nothing from now on that does not fit into what is free: the disk has been full."""
        if not self._asks_disk:
            self._asks_disk = True
            for name in os.listdir(self.layout.partial):
                self.count(name)

    def count(self, chunk_id: str) -> None:
        """Count an id anew, of which something has changed."""
        if self._counts_chunks:
            places = [place for place in self.catalog.places(chunk_id) if not self.catalog.is_stray(place)]
            size = sum(self._chunk_bytes(self.layout.path(place)) for place in places)
            retires = size > 0 and exists(self.layout.delete_marker(chunk_id))
            self._usage.put("retiring", chunk_id, size if retires else 0)
            self._usage.put("here", chunk_id, 0 if retires else size)
        if self._counts_partials and chunk_id not in self._running:
            self._usage.put("partial", chunk_id, bytes_in(self.layout.partial_of(chunk_id))[0])

    def trashed(self, path: str, *, stays: bool = False) -> None:
        """Count what is in the trash now; `stays`: it could not be erased. In any thread."""
        if self._counts_partials:
            self._trash.append((path, bytes_in(path)[0], not stays))

    def erased(self, path: str) -> None:
        """Count it no more. In any thread."""
        if self._counts_partials:
            self._trash.append((path, 0, True))

    @property
    def is_emptying(self) -> bool:
        """Tell whether something in the trash is still to be erased: then there will soon be more room."""
        self._take_in_trash()
        return self._usage.totals["trash"] > 0

    @property
    def taken_bytes(self) -> int:
        """Return what counts against the budget, running fetches with all that they are to bring."""
        self._take_in_trash()
        return self._usage.taken_bytes

    def news(self) -> str | None:
        """Describe the size, where chunks have come or gone since the last call; None where not."""
        self._take_in_trash()
        if self.limits.max_bytes is None:
            return None
        here = self.taken_bytes - self._usage.totals["partial"]
        if here == self._told_bytes:
            return None
        self._told_bytes = here
        return str(self)

    def __str__(self) -> str:
        return f"{readable(self.taken_bytes)} of {readable(self.limits.max_bytes or 0)}"

    def look(self) -> int:
        """Measure how much more may come, in bytes; below zero where there is too much already."""
        for chunk_id, run in self._running.items():
            run.came_bytes, run.allocated_bytes = bytes_in(self.layout.partial_of(chunk_id))
            self._usage.put("partial", chunk_id, max(run.need_bytes, run.came_bytes))
        unlimited = 1 << 64
        budget = unlimited if self.limits.max_bytes is None else self.limits.max_bytes - self.taken_bytes
        self._disk_bytes = unlimited
        if self._asks_disk:
            to_come = sum(max(run.need_bytes - run.allocated_bytes, 0) for run in self._running.values())
            self._disk_bytes = self.free(self.layout.root) - to_come - self.limits.keep_free_bytes
        self._headroom_bytes = min(budget, self._disk_bytes)
        self._short_bytes = -min(budget, self._disk_bytes + METADATA_BYTES)
        return self._headroom_bytes

    def need_bytes(self, fetch: Fetch) -> int:
        """Estimate what a want needs: the declared sizes, or what has been learned from an attempt."""
        known = self._needs.get(fetch.id)
        if known is not None and known[0] == fetch.want.identity:
            return known[1]
        try:
            files = read_chunk(self.layout, fetch.id, fetch.want, known=fetch.known)[0].files
        except (InvalidInputError, StaleMarkerError, OSError):  # the fetch will meet it as well, and say so
            return 0
        need = sum(file.size or 0 for file in files.values())
        self._needs[fetch.id] = fetch.want.identity, need
        return need

    def begin(self, fetch: Fetch) -> bool:
        """Tell whether a fetch fits into the headroom of the last look; then it counts as running."""
        need, here = self.need_bytes(fetch), self._usage.sizes["partial"].get(fetch.id, 0)
        if need - here > max(self._headroom_bytes, 0) or self._headroom_bytes < 0:
            return False
        self._headroom_bytes -= max(need - here, 0)
        self._running[fetch.id] = _Running(fetch, need)
        self._usage.put("partial", fetch.id, max(need, here))
        return True

    def end(self, chunk_id: str) -> bool:
        """Count a fetch that has ended; tell whether what it has brought may stay."""
        run = self._running.pop(chunk_id, None)
        self.count(chunk_id)
        if run is None or not self.is_limited:
            return True
        if run.stopped:
            return False
        run.came_bytes, run.allocated_bytes = bytes_in(self.layout.partial_of(chunk_id))
        self.look()
        if run.came_bytes <= run.need_bytes or self._short_bytes <= 0:
            return True
        self._learn(run)
        return False

    def too_much(self) -> Fetch | None:
        """Choose the fetch that is to be stopped: the youngest that brought more than it declared.

        None where there is room for that; one at a time. What keeps to what it declared is never stopped.
        """
        self.look()
        over = [run for run in self._running.values() if run.came_bytes > run.need_bytes]
        if self._short_bytes <= 0 or not over or any(run.stopped for run in over):
            return None
        run = max(over, key=lambda run: (run.fetch.since_ns, run.fetch.id))
        run.stopped = True
        self._learn(run)
        return run.fetch

    def forget(self, chunk_id: str) -> None:
        self._needs.pop(chunk_id, None)

    def can_ever_fit(self, need_bytes: int) -> bool:
        """Tell whether so much is within the whole budget."""
        return self.limits.max_bytes is None or need_bytes <= self.limits.max_bytes

    def excess_bytes(self, need_bytes: int) -> int:
        """Tell how much has to go so that so much fits, and no more than `cache_low` of the budget is taken."""
        excess = need_bytes - self._headroom_bytes
        if self.limits.max_bytes is not None:
            low_bytes = int(self.limits.max_bytes * self.limits.cache_low_share)
            excess = max(excess, self.taken_bytes + need_bytes - low_bytes)
        return excess

    def in_the_way(self, fetch: Fetch) -> list[str]:
        """List the partials that are not being fetched, where the fetch would fit without them.

        Complete ones are not among them: they are about to be published.
        """
        sizes, need = self._usage.sizes["partial"], self.need_bytes(fetch) - self._headroom_bytes
        if self._usage.totals["partial"] - sum(sizes.get(name, 0) for name in self._running) < need:
            return []
        idle = [
            name
            for name in sizes
            if name not in self._running and not exists(f"{self.layout.partial_of(name)}/{READY}")
        ]
        return idle if sum(sizes[name] for name in idle) >= need else []

    def lacks_bytes(self, fetch: Fetch) -> int:
        """Tell how much more room a fetch would take to begin."""
        here = self._usage.sizes["partial"].get(fetch.id, 0)
        return max(max(self.need_bytes(fetch) - here, 0) - self._headroom_bytes, 0)

    def why_not(self, fetch: Fetch) -> tuple[str, str]:
        """Say why a fetch does not fit, and what to do about it."""
        needs = f"needs {readable(self.need_bytes(fetch))}"
        if self.limits.max_bytes is None or self._disk_bytes < self.limits.max_bytes - self.taken_bytes:
            keep = self.keep_free_bytes or 0
            free = max(self._disk_bytes + keep, 0)
            reserve = f", and {readable(keep)} are to stay free" if keep else ""
            error = f"{needs}, but {readable(free)} are free on the disk{reserve}"
            return error, "free some room on the disk: it starts by itself then"
        if self.need_bytes(fetch) > self.limits.max_bytes:
            error = f"{needs}, more than the {readable(self.limits.max_bytes)} that all chunks together may take"
            return error, "raise --max-bytes, or withdraw it: it can never fit"
        retiring = self._usage.totals["retiring"]
        of_that = f" ({readable(retiring)} of that by chunks that are retiring)" if retiring else ""
        return f"{needs}, but {self} are taken{of_that}", "delete what is not needed, or raise --max-bytes"

    def _learn(self, run: _Running) -> None:
        """Expect more than the room that it gives back: it begins again when more was made."""
        need = max(run.came_bytes, run.allocated_bytes) + self._short_bytes
        self._needs[run.fetch.id] = run.fetch.want.identity, need

    def _take_in_trash(self) -> None:
        while self._trash:
            path, size, erasable = self._trash.popleft()
            chunk_id = os.path.basename(path).rpartition(".")[0][-ID_LENGTH:]
            if is_id(chunk_id):  # it no longer counts where it was
                self.count(chunk_id)
            self._usage.put("trash", path, size if erasable else 0)
            self._usage.put("here", path, 0 if erasable else size)

    @staticmethod
    def _chunk_bytes(path: str) -> int:
        size = declared_bytes(read_document(f"{path}/{READY}").get("files"))
        return bytes_in(path)[0] if size is None else size  # what READY cannot tell, the files do
