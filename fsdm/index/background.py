"""Keeping the indexes of all chunks, for one reconciler, beside its loop.

An event only wakes it: what is missing is found by a look at the files. Invariant: for each chunk and index at most one
process runs, `jobs` in all; a failure concerns that one alone, and rests before it is tried again.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.index.building import FIRST_REST_S, Building
from fsdm.index.gathering import Gathering
from fsdm.model.errors import IndexerError, StoppedError
from fsdm.verify.rehash import check_may_go_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.concurrency.workers import Workers
    from fsdm.index.gathering import Merge
    from fsdm.model.indexes import Index
    from fsdm.model.layout import Layout, Place
    from fsdm.model.limits import Limits
    from fsdm.store.catalog import Catalog
    from fsdm.store.index_failures import IndexFailure

EVERY_S: Final = 3600.0  # then all that is there is looked at again: files may have gone
REST: Final = 4.0  # so many times as long as a look took, it rests
LOOK_S: Final = 30.0  # so often it is looked whether runs were removed
GATHER_S: Final = 0.05  # chunks that come together are looked at together
STEP_REST: Final = 10.0  # so many times as long as a step took, it rests: where there are thousands, it takes some time
STEP_REST_MAX_S: Final = 1.0

logger = Log("fsdm")

Task = tuple["Place", str]


class Indexing:
    """The indexes of one data directory. The thread that steps owns it, but for what says otherwise."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        building: Building,
        indexes: Iterable[Index],
        jobs: int,
        workers: Workers,
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._building = building
        self._indexes = {index.name: index for index in indexes}
        self._jobs = jobs
        self._workers = workers
        self._clock = building.clock
        self._due: dict[Task, float | None] = {}  # when it is to be made, since the epoch; None where it is there
        self._running: set[Task] = set()
        self._ended: deque[tuple[Task, float | None]] = deque()
        self._surveyed = -EVERY_S  # monotonic
        self._came: deque[str] = deque()
        self._gatherings: dict[str, Gathering] = {}
        self._dirty: set[str] = set()  # the indexes whose runs are to be looked at
        self._merging: set[str] = set()
        self._merged: deque[tuple[str, list[Place], float]] = deque()
        self._rests: dict[str, float] = {}  # monotonic: till then no merge of an index begins
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self.built = 0
        self.failed = 0

    @property
    def pending(self) -> int:
        """Return how many indexes of chunks are to be made. In any thread."""
        return sum(at is not None for at in list(self._due.values())) + len(self._running)

    @property
    def failing(self) -> int:
        """Return how many of them rest after a failure. In any thread."""
        now = self._clock()
        return sum(at is not None and at > now for at in list(self._due.values()))

    def gathered(self) -> dict[str, tuple[int, int]]:
        """Return how many chunks are in the runs of each index, and the bytes of these. In any thread."""
        runs = {name: list(gathering.runs.values()) for name, gathering in list(self._gatherings.items())}
        return {
            name: (sum(len(info.chunks) for info in infos), sum(info.size_bytes for info in infos))
            for name, infos in runs.items()
        }

    def start(self) -> None:
        """Begin in a thread of its own, as soon as there is an index to keep. In any thread."""
        with self._mutex:
            if self._thread is None and self._indexes and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="fsdm-index", daemon=True)
                self._thread.start()

    def stop(self, timeout_s: float | None) -> bool:
        """End soon; tell whether the thread has ended in time. The processes are ended by their workers."""
        with self._mutex:
            self._stop.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def wake(self, chunk_id: str) -> None:
        """Look at this chunk soon: it has come. In any thread."""
        self._came.append(chunk_id)
        self._woken.set()

    def change(self, indexes: Iterable[Index], limits: Limits) -> None:
        """Keep to these from now on: the processes of other indexes end, too many at once go on. In any thread."""
        self._indexes = {index.name: index for index in indexes}
        self._jobs = limits.index_jobs
        self._workers.resize(limits.index_jobs)
        self._building.keep_free_bytes = limits.keep_free_bytes
        self._surveyed = -EVERY_S
        self._woken.set()
        self.start()

    def settle(self, stop: threading.Event) -> None:
        """Make what is missing, in this thread and the workers, but for what rests after a failure."""
        while self._indexes and not stop.is_set():
            self.step()
            now = self._clock()
            is_due = any(at is not None and at <= now for at in self._due.values())
            if not (self._running or self._merging or is_due):
                return
            self._woken.wait(GATHER_S)
        self._stop.set()

    def step(self) -> float:
        """Take in what has ended, look what is missing, begin it; return for how many seconds nothing is due."""
        self._woken.clear()
        self._take_in()
        indexes = dict(self._indexes)
        if self._came or time.monotonic() >= self._surveyed + EVERY_S or self._runs_have_changed(indexes):
            self._survey(indexes)
        now = self._clock()
        waiting = ((at, task) for task, at in self._due.items() if at is not None)
        for at, task in heapq.nsmallest(self._jobs - len(self._running), waiting):
            if at <= now and task[1] in indexes:
                del self._due[task]
                self._running.add(task)
                self._workers.submit(partial(self._build, task, indexes[task[1]]))
        for index in indexes.values():
            self._gather(index)
        left = [at - now for at in self._due.values() if at is not None] if len(self._running) < self._jobs else []
        return max(min([LOOK_S, *left]), GATHER_S)

    def _take_in(self) -> None:
        while self._ended:
            task, at = self._ended.popleft()
            self._due[task] = at
            self._running.discard(task)
            if at is None and (gathering := self._gatherings.get(task[1])) is not None:
                gathering.forget_places([task[0]])
            self._dirty.add(task[1])
        while self._merged:
            name, untaken, rest_s = self._merged.popleft()
            self._merging.discard(name)
            self._rests[name] = time.monotonic() + rest_s
            self._dirty.add(name)
            gathering = self._gatherings[name]
            gathering.forget()
            gathering.forget_places(untaken)
            self._due |= {(place, name): 0.0 for place in untaken if (place, name) not in self._running}

    def _runs_have_changed(self, indexes: dict[str, Index]) -> bool:
        """Tell whether somebody has removed runs: then chunks' indexes may have gone as well."""
        for name in indexes:
            gathering = self._gatherings.get(name)
            if name not in self._merging and gathering is not None and gathering.has_changed():
                self._surveyed = -EVERY_S
                return True
        return False

    def _gather(self, index: Index) -> None:
        """Begin the merge that is due of an index, if one is."""
        name = index.name
        gathering = self._gatherings.get(name)
        if name in self._merging or time.monotonic() < self._rests.get(name, 0.0):
            return
        if gathering is None or gathering.index.definition != index.definition:
            gathering = self._gatherings[name] = Gathering(self._layout, self._building.fs, index)
            self._dirty.add(name)
        if name not in self._dirty:
            return
        self._dirty.discard(name)
        indexed = [place for (place, of), at in self._due.items() if of == name and at is None]
        now = self._clock()
        is_calm = not any(task[1] == name for task in self._running) and not any(
            of == name and at is not None and at <= now for (_, of), at in self._due.items()
        )
        try:
            merge = gathering.look(set(self._catalog.all_places()), indexed, is_calm=is_calm)
        except OSError as e:
            logger.warning("cannot look at the runs of index %s: %s", name, e)
            self._merged.append((name, [], FIRST_REST_S))
            return
        if merge is not None:
            self._merging.add(name)
            self._workers.submit(partial(self._merge, gathering, merge))

    def _merge(self, gathering: Gathering, merge: Merge) -> None:
        untaken: list[Place] = []
        rest_s = FIRST_REST_S
        name = merge.index.name

        def go_on() -> None:
            if self._stop.is_set() or self._is_changed(merge.index):
                raise StoppedError(f"the merge of index {name} was stopped")

        try:
            untaken = gathering.merge(merge, go_on)
            rest_s = 0.0
        except StoppedError:
            rest_s = 0.0
        except (IndexerError, OSError) as e:
            logger.warning("the runs of index %s cannot be merged: %s; it is tried again in %d s", name, e, rest_s)
        finally:
            self._merged.append((name, untaken, rest_s))
            self._woken.set()

    def _is_changed(self, index: Index) -> bool:
        return self._indexes.get(index.name) != index

    def _survey(self, indexes: dict[str, Index]) -> None:
        """Look at the chunks that have come since the last look; at all of them once in a while."""
        came = set()
        while self._came:  # before the look: what comes meanwhile is looked for in the next one
            came.add(self._came.popleft())
        tasks = {(place, name) for place in self._catalog.all_places() for name in indexes}
        self._dirty |= indexes.keys()
        if time.monotonic() >= self._surveyed + EVERY_S:
            self._surveyed = time.monotonic()
            self._due = {}
        self._due = {task: at for task, at in self._due.items() if task in tasks and task[0].chunk_id not in came}
        for task in sorted(tasks - self._due.keys() - self._running):
            began = time.monotonic()
            self._due[task] = self._look(task, indexes[task[1]])
            if self._stop.wait((time.monotonic() - began) * REST):
                return

    def _look(self, task: Task, index: Index) -> float | None:
        try:
            return self._building.due_at(task[0], index)
        except OSError as e:
            logger.warning("cannot look at index %s of %s: %s", index.name, self._layout.path(task[0]), e)
            return self._clock() + FIRST_REST_S

    def _build(self, task: Task, index: Index) -> None:
        place = task[0]

        def go_on() -> None:
            check_may_go_on(self._layout, place, self._stop)
            if self._is_changed(index):
                raise StoppedError(f"index {index.name} is no longer to be made so")

        due: float | None = self._clock() + FIRST_REST_S
        try:
            failure = self._building.build(place, index, go_on)
            if failure is not None:
                self._failed(place, failure)
            looked = self._look(task, index)
            if looked != 0.0:  # else it is not available: an event tells once it is
                due = looked
            if looked is None:
                self.built += 1
        except StoppedError:
            due = 0.0  # by what it is to be made now, if it is
        except OSError as e:
            logger.warning("cannot make index %s of %s: %s", index.name, self._layout.path(place), e)
        finally:
            self._ended.append((task, due))
            self._woken.set()

    def _failed(self, place: Place, failure: IndexFailure) -> None:
        self.failed += 1
        rest_s = failure.next_attempt_at - failure.last_at
        told = (failure.name, place.chunk_id, failure.error, rest_s)
        logger.warning("index %s of %s cannot be made: %s; it is tried again in %d s", *told)

    def _run(self) -> None:
        wait_s, rest_s = 0.0, GATHER_S
        while not self._stop.is_set():
            self._woken.wait(wait_s)
            if self._stop.wait(rest_s):
                return
            began = time.thread_time()
            try:
                wait_s = self.step()
            except Exception:  # a defect of ours, or a disk that fails: bytes are served all the same
                logger.exception("a step of the indexes failed")
                wait_s = FIRST_REST_S
            rest_s = min(max(GATHER_S, (time.thread_time() - began) * STEP_REST), STEP_REST_MAX_S)
