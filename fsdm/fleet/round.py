"""One round of a placer: what is there is read, all is placed, and it is published if nobody was faster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from fsdm.fleet import summary as summaries
from fsdm.fleet.moves import moves
from fsdm.fleet.placing import Bounds, place
from fsdm.fleet.publishing import LISTS, ROUTES, publish, read_copies, read_pointer
from fsdm.fleet.reading import read_reports, read_workers, workers_of
from fsdm.fleet.shelf import KEPT_S
from fsdm.fleet.wants import Wants
from fsdm.model.errors import NotAvailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.fleet.documents import Pointer
    from fsdm.fleet.inventory import Chunks, Copies, Workers
    from fsdm.fleet.moves import Move
    from fsdm.fleet.placing import Placement
    from fsdm.fleet.publishing import Documents, Published
    from fsdm.fleet.reading import Texts
    from fsdm.fleet.report import Report
    from fsdm.fleet.shelf import Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a round: copies by dataset and `otherwise`, bounds (see `Bounds`), and when a worker is gone.

    A worker is away once it has not reported for `silent_s`, and gone after `grace_s`. `peers`, with `{name}` in it, is
    where the chunks of those that name no URL are served to the others.
    """

    bounds: Bounds
    replicas: Mapping[str, int] = field(default_factory=dict)
    otherwise: int = 3
    assumed_bytes: int | None = None
    silent_s: float = 120.0
    grace_s: float = 600.0
    peers: str = ""

    def wants(self) -> Wants:
        """Return what takes the wants of a round, none yet."""
        return Wants(self.replicas, self.otherwise, self.assumed_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """A placement with all that it was made of. `broken`: what is wrong with reports that cannot be read."""

    shelf: Shelf
    published: Published
    reports: Mapping[str, Report]
    broken: Mapping[str, str]
    wants: Wants
    chunks: Chunks
    workers: Workers
    before: Copies
    placement: Placement
    options: Options
    now: float

    @classmethod
    def read(
        cls, wants: Wants, workers_file: str, reports: str | Texts | None, shelf: Shelf, how: Options, now: float
    ) -> Self:
        """Read what is there, and place it; `now` is in seconds since the epoch.

        `reports` are in a directory, or those that are given by NAME.json; None: there are none.

        Raises:
            InvalidInputError: the workers cannot be taken.
            DataDirectoryError: what is published cannot be read.
            BrakedError: too much would be lost, or given up.
        """
        published = read_pointer(shelf)
        found, broken = read_reports(reports) if reports is not None else ({}, {})
        listed = read_workers(workers_file)
        times_s = {"silent_s": how.silent_s, "grace_s": how.grace_s}
        workers = workers_of(listed, published.lists, found, broken, now=now, peers=how.peers, **times_s)
        chunks = wants.chunks()
        before = read_copies(shelf, published, chunks, workers, found, now)
        placement = place(chunks, workers, before, how.bounds)
        return cls(shelf, published, found, broken, wants, chunks, workers, before, placement, how, now)

    def publish(self, documents: Documents) -> Pointer | None:
        """Publish it; return None where nothing has changed.

        Raises:
            PublishedMeanwhileError: another process was faster.
            DataDirectoryError: it cannot be written.
        """
        how = (self.shelf, self.published, self.before, self.placement, self.workers, self.wants)
        pointer = publish(*how, documents, self.now)
        if pointer is not None:
            applied = {report.applied for report in self.reports.values()}
            both = [pointer, *filter(None, [self.published.pointer])]
            lists = {one.sha256 for which in both for one in which.lists.values()}
            routes = {which.routes for which in both}
            for directory, keep in ((LISTS, lists | applied), (ROUTES, routes)):
                self.shelf.prune(directory, {f"{one}.jsonl.gz" for one in keep}, self.now - KEPT_S)
        return pointer

    def moves(self) -> Iterator[Move]:
        """Yield each copy that it adds or drops, and why."""
        return moves(self.chunks, self.workers, self.placement)

    def summary(self) -> summaries.Summary:
        """Return what it does, summed up."""
        return summaries.summary(self.chunks, self.workers, self.before, self.placement, self.reports)

    def explain(self, asked: str) -> list[str]:
        """Say why a worker, or a chunk, is to have what it is to have.

        Raises:
            NotAvailableError: there is neither a worker nor a chunk of that name.
        """
        how = (self.chunks, self.workers, self.placement)
        if (worker := self.workers.names.get(asked)) is not None:
            return summaries.explain_worker(*how, self.options.bounds, worker)
        try:
            number = int(self.chunks.numbers([bytes.fromhex(asked)])[0]) if len(asked) == 64 else -1
        except ValueError:
            number = -1
        if number < 0:
            raise NotAvailableError(
                f"there is neither a worker nor a chunk called {asked!r:.80}", hint="check the name"
            )
        return summaries.explain_chunk(*how, number)
