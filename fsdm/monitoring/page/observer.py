"""The one thread that looks at a data directory for the page, and answers what is asked about it.

All that touches the disk is done here: so a disk that hangs keeps this thread, and no request beyond its patience, and
what a look has read needs no lock. While a browser looks, a look is taken each INTERVAL_S. At rest that takes no more
than a 100th of a core, as long as a change is still shown within a second; and never more than a 10th. While none
looks, a reading for the plots is taken each ten seconds: by counters of the reconciler, where it is in this process,
without a look.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsdm.concurrency.log import Log
from fsdm.model.errors import FsdmError, InvalidInputError, NotAvailableError
from fsdm.monitoring.page import documents
from fsdm.monitoring.page.board import Board
from fsdm.monitoring.page.history import EACH_S, History, Reading
from fsdm.monitoring.page.search import Query, search
from fsdm.monitoring.page.table import ChunkTable
from fsdm.monitoring.page.window import window
from fsdm.status.chunk_status import read_surroundings, stamp_of
from fsdm.status.explain import explain_chunks
from fsdm.status.progress import Progress
from fsdm.status.survey import Surveyor
from fsdm.store.data_dir import check_format
from fsdm.store.dataset_names import by_id, read_dataset_names
from fsdm.store.filesystem import read_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.manager import DataManager
    from fsdm.model.layout import Layout
    from fsdm.status.chunk_status import Stamp

logger = Log("fsdm")

INTERVAL_S: Final = 0.5
REST_SHARE: Final = 100
BUSY_SHARE: Final = 10
SECOND_S: Final = 0.9
FIRST_S: Final = 0.05  # while something was never read yet: it is read by several looks, and questions come between
FIRST_SHARE: Final = 3
PATIENCE_S: Final = 5.0  # of a request
ASKED_MAX: Final = 32  # requests that wait at once
FORGET_S: Final = 300.0  # after which what no one looks at is forgotten, where no plot needs it
HITS: Final = 30
END_S: Final = 1.0

T = TypeVar("T")


class BusyError(FsdmError):
    """Too much is asked at once, or the disk does not answer."""


class _Sight:
    """The data directory, as of the last look."""

    def __init__(self, dm: DataManager) -> None:
        self.surveyor = Surveyor(dm.layout)
        self.progress = Progress(dm.limits.max_bytes)
        self.table = ChunkTable(dm.layout, self.surveyor)
        self.drawn: dict[str, tuple[object, documents.Document]] = {}  # the last map of each dataset, and of what
        self.datasets: dict[str, str] = {}  # ids by name
        self.names: dict[str, str] = {}  # the other way round
        self.told: tuple[str, ...] = ()  # what is wrong with the names
        self._names_of: Stamp | None = None

    def read_names(self, layout: Layout) -> None:
        """Read the names of datasets, where their file has changed; one that cannot be taken names none."""
        stamp = stamp_of(layout.dataset_names)
        if stamp == self._names_of:
            return
        try:
            self.datasets, self.told = read_dataset_names(layout), ()
        except InvalidInputError as e:
            self.datasets, self.told = {}, (f"No dataset has a name here: {e}",)
        self.names, self._names_of = by_id(self.datasets), stamp


class Observer:
    """Looks at the data directory of a manager, which may reconcile it or not; without `names`, no dataset has one."""

    def __init__(self, dm: DataManager, *, names: bool = True) -> None:
        self.board = Board()
        self._dm = dm
        self._names = names
        self._layout = dm.layout
        self._wakeup = threading.Condition()
        self._questions: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._watchers = 0
        self._stopped = False
        self._history = History()  # this, and what follows, is the thread's alone
        self._sight: _Sight | None = None
        self._looked_at = -math.inf  # monotonic, as the others
        self._rest_s = INTERVAL_S
        self._read_at = -math.inf
        self._wanted_at = -math.inf

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Look, in a thread, until the end of the block."""
        thread = threading.Thread(target=self._run, name="fsdm-page", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._wakeup:
                self._stopped = True
                self._wakeup.notify_all()
            self.board.close()
            thread.join(END_S)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have it look again and again, until the end of the block."""
        with self._wakeup:
            self._watchers += 1
            self._wakeup.notify_all()
        try:
            yield
        finally:
            with self._wakeup:
                self._watchers -= 1

    def map_of(self, dataset_id: str, start: int | None, end: int | None) -> dict[str, Any]:
        """Draw a dataset, or the blocks `[start, end)` of it.

        Raises:
            NotAvailableError: there is no chunk of it.
            BusyError: it takes too long.
        """

        def draw() -> dict[str, Any]:
            sight = self._seen()
            found, is_counted = sight.table.coverage(dataset_id), not sight.table.is_counting
            if found is None:
                raise NotAvailableError(f"nothing is known of a dataset {dataset_id}")
            version, whole = found
            key, drawn = (version, start, end, is_counted), sight.drawn.get(dataset_id)
            if drawn is None or drawn[0] != key:
                shown = window(whole, start, end)
                drawn = key, documents.dataset_map(version, whole, shown, is_counted=is_counted)
                sight.drawn[dataset_id] = drawn
            return drawn[1]

        return self._ask(draw)

    def explain(self, chunk_id: str) -> dict[str, Any]:
        """Explain how a chunk stands. Raises BusyError."""

        def look() -> dict[str, Any]:
            sight = self._seen()
            [found] = explain_chunks(self._layout, [chunk_id], sight.names)
            return documents.explained(found, sight.table.status(chunk_id), sight.names)

        return self._ask(look)

    def find(self, text: str) -> dict[str, Any]:
        """Find chunks by what a person has typed so far; a hint says what else could be. Raises BusyError."""

        def look() -> dict[str, Any]:
            sight = self._seen()
            try:
                query = Query.parse(text, sight.datasets)
            except InvalidInputError as e:
                return {"hits": [], "more": False, "hint": e.hint}
            table, hint = sight.table, "nothing is known of that"
            hits = list(islice(search(filter(None, map(table.status, table.ids())), query), HITS + 1))
            shown = [documents.hit(chunk, sight.names) for chunk in hits[:HITS]]
            return {"hits": shown, "more": len(hits) > HITS, "hint": "" if hits else hint}

        return self._ask(look)

    def _ask(self, question: Callable[[], T]) -> T:
        """Have the thread answer, with what it has seen by then."""
        answer: Future[T] = Future()
        with self._wakeup:
            if self._stopped or len(self._questions) >= ASKED_MAX:
                raise BusyError("too much is asked at once", hint="ask again in a moment")
            self._questions.append((question, answer))
            self._wakeup.notify_all()
        try:
            return answer.result(PATIENCE_S)
        except TimeoutError:
            answer.cancel()
            raise BusyError("the disk does not answer", hint="ask again in a moment") from None

    def _seen(self) -> _Sight:
        if self._sight is None:
            raise BusyError("the data directory cannot be looked at", hint="the page says why")
        return self._sight

    def _run(self) -> None:
        while True:
            with self._wakeup:
                if not (self._stopped or self._questions):
                    self._wakeup.wait(self._due_in_s())  # not wait_for: who begins to watch changes what is due
                if self._stopped:
                    return
                questions, watchers = list(self._questions), self._watchers
                self._questions.clear()
            try:
                self._work(is_wanted=bool(questions or watchers))
            except Exception:  # a defect of ours: the page stands still, and nothing else does
                logger.exception("the page could not be made")
            for question, answer in questions:
                _answer(question, answer)

    def _due_in_s(self) -> float:
        now = time.monotonic()
        due = self._read_at + EACH_S
        if self._watchers:
            due = min(due, self._looked_at + self._rest_s)
        return max(due - now, 0.0)

    def _work(self, *, is_wanted: bool) -> None:
        now = time.monotonic()
        self._wanted_at = now if is_wanted else self._wanted_at
        is_read = now >= self._read_at + EACH_S
        in_process = self._dm.reconciler is not None
        is_due = self._sight is None or now >= self._looked_at + self._rest_s
        if (is_wanted and is_due) or (is_read and not in_process):
            self._look()
        if is_read:
            self._read_at = now
            self._take_reading()
        if in_process and not is_wanted and now > self._wanted_at + FORGET_S:
            self._sight = None

    def _look(self) -> None:
        began = time.thread_time()  # not the wall clock: to wait for a core is no cost of the look
        try:
            check_format(self._layout)
            if self._sight is None:
                self._sight = _Sight(self._dm)
            sight, progress = self._sight, self._sight.progress
            survey = sight.surveyor.look()
            around = read_surroundings(self._layout)
            progress.max_bytes = self._dm.limits.max_bytes
            progress.take(survey, time.monotonic())
            sight.table.refresh(survey)
            if self._names:
                sight.read_names(self._layout)
            table, names = sight.table, sight.names
            changed = self.board.put(
                {
                    "trouble": "",
                    "head": documents.head(self._layout.root, progress, survey, around, sight.told),
                    "lists": documents.lists(progress, survey, table.status, names),
                    "datasets": documents.datasets(table.datasets(), table.count, table.unplaced(), names),
                }
            )
            is_complete = table.is_complete
        except (OSError, FsdmError) as e:
            self._sight = None
            changed, is_complete = self.board.put({"trouble": documents.trouble(self._layout.root, e)}), True
        cost = time.thread_time() - began
        self._looked_at = time.monotonic()
        self._rest_s = rest_s(cost, is_complete=is_complete, changed=changed)

    def _take_reading(self) -> None:
        now, survey = time.time(), None if self._sight is None else self._sight.progress.survey
        reconciler = self._dm.reconciler
        try:
            free = read_space(self._layout.root).free_bytes
        except OSError:
            free = None
        if reconciler is not None:
            stored = reconciler.loop.bytes_by_part()
            here = None if stored is None else sum(stored.values())
            reading = Reading(now, reconciler.received_bytes, here, free)
        elif survey is not None:
            here = None if survey.uncounted else survey.here_bytes + sum(one.size_bytes for one in survey.running)
            reading = Reading(now, survey.came_bytes, here, free)
        else:
            reading = Reading(now, free_bytes=free)
        self._history.take(reading)
        self.board.put({"history": self._history.document(now)})


def rest_s(cost_s: float, *, is_complete: bool, changed: bool) -> float:
    """Tell how long to rest after a look that took so much of a core."""
    if not is_complete:
        return max(FIRST_S, cost_s * FIRST_SHARE)
    busy_s = cost_s * BUSY_SHARE
    return max(INTERVAL_S, busy_s if changed else min(cost_s * REST_SHARE, max(SECOND_S, busy_s)))


def _answer(question: Callable[[], Any], answer: Future[Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(question())
    except (FsdmError, OSError) as e:
        answer.set_exception(e)
    except Exception as e:  # a defect of ours: told to who asks, and in the log
        logger.exception("a question of the page failed")
        answer.set_exception(e)
