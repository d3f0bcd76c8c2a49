"""Queries over a fleet, by Dask: a task runs on a node that holds its chunks, and is asked of another where it fails.

    fleet = FleetClient(dask_client, "https://lake.example/fleet")
    for rows in fleet.map_range(count_rows, dataset, 0, 1_000_000):

Whoever takes the results drives the query: no thread runs beside. A `FleetClient` may be used from any thread, a query
by one at a time.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import cloudpickle

from fsdm.fleet.dispatch import Dispatch
from fsdm.fleet.members import Members
from fsdm.fleet.routes import Routes, RoutesReader, reading
from fsdm.fleet.routing import Routing
from fsdm.fleet.task import HeldChunk, Work
from fsdm.model.errors import ClosedError, FsdmError, InvalidInputError, QueryDiedError, WaitTimeoutError
from fsdm.model.index_format import as_index_name, as_key

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from distributed import Client

    from fsdm.fleet.routes import Part, Reading
    from fsdm.fleet.task import Answer, How

T = TypeVar("T")

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
REFRESH_S: Final = 10.0  # routes that are older are asked for again before a query
LACKING_REFRESH_S: Final = 1.0  # and while a part has nobody
ABSENT: Final = object()


class FleetClient:
    """Runs queries on the nodes of a fleet that hold what they read."""

    def __init__(
        self,
        dask_client: Client,
        routes: str | os.PathLike[str] | Reading | Routes,
        *,
        silent_s: float = 5.0,
        cool_down_s: float = 30.0,
        patience_s: float = 10.0,
    ) -> None:
        """Take a Dask client that is not asynchronous, and what is published: a directory, a URL, or what reads it.

        A worker that has not beaten for `silent_s` seconds (and for three of Dask's intervals, which grow with the
        workers: 0.5 s for ten, 6 s for a thousand) is taken for frozen: what it was asked for is asked of others. A
        node that was lost is asked last for `cool_down_s`. A chunk that no node answers for, and a scheduler that is
        gone, are waited for `patience_s`.

        Raises:
            InvalidInputError: the client is asynchronous, or a time is not above zero.
        """
        if dask_client.asynchronous:
            raise InvalidInputError("it must not be asynchronous", field="dask_client", hint="Client(address)")
        for name, value in (("silent_s", silent_s), ("cool_down_s", cool_down_s), ("patience_s", patience_s)):
            if not 0 < value < float("inf"):
                raise InvalidInputError(f"must be above zero, not {value}", field=name)
        self._dispatch = Dispatch(dask_client, patience_s)
        self._reader = None if isinstance(routes, Routes) else RoutesReader(reading(routes))
        self._routes = routes if isinstance(routes, Routes) else None
        self._routes_at = float("-inf")
        self._seen_at = float("-inf")
        self.patience_s = patience_s
        self.members = Members(silent_s, cool_down_s)
        self._mutex = threading.Lock()

    def map_range(self, fn: Callable[[HeldChunk], T], dataset_id: str | bytes, start: int, end: int) -> Query[T]:
        """Call `fn` for each chunk that has some of the blocks `[start, end)` of a dataset, where it is held.

        Each block is in the `blocks` of one call. Returns at once: what is returned is an iterator over what the calls
        have returned, in the order of the blocks.

        Raises:
            NotHeldError: nobody holds some of the blocks; here, or while the query is iterated over.
            InvalidInputError: the range is empty, or `fn` cannot be sent.
            DataDirectoryError: the routes cannot be read.
            QueryDiedError: `fn` ends its process.
            SchedulerLostError: the scheduler is gone, and does not come back.
            Exception: what `fn` raises, while the query is iterated over.
        """
        return self._query(fn, "each", self.routes().cover(dataset_id, start, end))

    def map_nodes(
        self, fn: Callable[[Sequence[HeldChunk]], T], dataset_id: str | bytes, start: int, end: int
    ) -> Query[T]:
        """Call `fn` once a node, with all its chunks of the blocks `[start, end)` of a dataset, in order.

        It is for engines that read many files at once, and for sums. Each chunk is in one call. The results come in
        the order of the first blocks; there may be more of them than nodes, where one was lost.

        Raises:
            Exception: as `map_range`.
        """
        return self._query(fn, "all", self.routes().cover(dataset_id, start, end))

    def map_key(
        self, name: str, key: bytes, fn: Callable[[HeldChunk], T], dataset_id: str | bytes | None = None
    ) -> Query[T]:
        """Call `fn` for each chunk that holds a key by its index `name`, of one dataset or of all.

        Every chunk is asked for by its own index, on one of its nodes. The results come in order of dataset and block.

        Raises:
            NotHeldError: nobody holds some chunk, or none of its holders has this index of it.
            InvalidInputError: `name` or `key` is none.
            Exception: as `map_range`.
        """
        return self._query(fn, "each", self.routes().every(dataset_id), (as_index_name(name), as_key(key)))

    def submit(self, fn: Callable[[HeldChunk], T], dataset_id: str | bytes, block: int) -> Query[T]:
        """Call `fn` where the chunk of a block is held: `submit(…).result()` returns what it has returned.

        Raises:
            Exception: as `map_range`.
        """
        return self._query(fn, "each", self.routes().cover(dataset_id, block, block + 1))

    def routes(self, older_s: float = REFRESH_S) -> Routes:
        """Return the routes, asked for again where they are older than so many seconds.

        Where that fails, those that were read before hold: nodes are asked, and say what they have not.

        Raises:
            DataDirectoryError: they cannot be read, and never were.
        """
        with self._mutex:
            if self._reader is not None and time.monotonic() - self._routes_at > older_s:
                try:
                    self._routes = self._reader.current()
                except FsdmError as e:
                    if self._routes is None:
                        raise
                    log.warning("the routes cannot be read, and those of before hold: %s", e)
                self._routes_at = time.monotonic()
            assert self._routes is not None
            return self._routes

    def look(self) -> None:
        """Ask the scheduler for its workers, unless it was just asked.

        Raises:
            SchedulerLostError: it does not answer.
        """
        with self._mutex:
            if time.monotonic() - self._seen_at < self._dispatch.look_every_s:
                return
            asked_at = time.monotonic()
            workers = self._dispatch.workers()
            self._seen_at = time.monotonic()
            self.members.see(workers, self._seen_at, self._seen_at - asked_at)

    def _query(
        self, fn: Callable[[Any], T], how: How, parts: list[Part], key: tuple[str, bytes] | None = None
    ) -> Query[T]:
        try:
            function: bytes = cloudpickle.dumps(fn)
        except (TypeError, AttributeError, pickle.PicklingError) as e:
            raise InvalidInputError(f"it cannot be sent to the nodes: {e}", field="fn") from e
        return Query(self, self._dispatch, parts, partial(Work, function, how, key=key))


class Query(Generic[T]):
    """The results of a query, in order: an iterator, and a context manager, which ends it."""

    def __init__(self, fleet: FleetClient, dispatch: Dispatch, parts: list[Part], work: Callable[..., Work]) -> None:
        self._fleet, self._work = fleet, work
        self._routes, self._parts = fleet.routes(), parts
        self._tasks = dispatch.tasks()
        self._routing = Routing(parts, fleet.members, fleet.patience_s, Random())  # noqa: S311 no secret
        self._values: dict[int, Any] = {}
        self._answered: set[int] = set()
        self._next = 0
        self._is_closed = False
        self._guarded(self._ask)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self._take(None)

    def result(self, timeout_s: float | None = None) -> T:
        """Return the next result, and wait for it up to `timeout_s` seconds: of `submit` there is one.

        Raises:
            WaitTimeoutError: it has not come in time; the query goes on.
            Exception: as `FleetClient.map_range`; StopIteration never: InvalidInputError where there is none.
        """
        try:
            return self._take(None if timeout_s is None else time.monotonic() + timeout_s)
        except StopIteration:
            raise InvalidInputError("all results have been taken", hint="ask again") from None

    def close(self) -> None:
        """End the query: what runs is cancelled, and what comes of it is dropped. A second time it does nothing."""
        self._is_closed = True
        self._tasks.close()
        self._values.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, deadline: float | None) -> T:
        while True:
            if self._next == len(self._parts):
                self.close()
                raise StopIteration
            if self._next in self._answered:
                self._next += 1
                value = self._values.pop(self._next - 1, ABSENT)
                if value is not ABSENT:
                    return value  # type: ignore[no-any-return]
                continue
            if self._is_closed:
                raise ClosedError("this query has been closed, or has failed", hint="ask again")
            if deadline is not None and time.monotonic() > deadline:
                part = self._parts[self._next]
                raise WaitTimeoutError(f"{part} has not been answered for in time", hint="wait on, or close() it")
            self._guarded(self._step)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException:
            self.close()
            raise

    def _step(self) -> None:
        """Take what has come, see who is lost, and ask others."""
        self._fleet.look()  # first: of a scheduler that is another one now, nothing comes, and no worker is to blame
        ended = self._tasks.ended(TICK_S)
        for number, answer in ended.answers:
            self._answer(number, answer)
        self._routing.withdrawn(ended.withdrawn)
        now = time.monotonic()
        for order in list(self._routing.orders.values()):
            why = "Dask has lost it" if order.number in ended.lost else self._fleet.members.trouble(order.address, now)
            if why is not None:
                self._tasks.drop(order.number)
                self._routing.lost(order.number, why, now)
        if self._routing.is_waiting:
            self._ask()

    def _answer(self, number: int, answer: Answer) -> None:
        order = self._routing.answered(number, answer.refused)
        if order is None:
            return
        if answer.died is not None:
            part, how = answer.died
            what = f"the query has ended its process with {self._parts[part]} on node {order.node}: {how}"
            raise QueryDiedError(what, hint="run it on this chunk alone to see why")
        self._values.update(answer.values)
        self._answered.update(set(order.parts) - set(answer.refused))

    def _ask(self) -> None:
        self._fleet.look()
        orders = self._routing.next_orders(self._routes.holders, time.monotonic())
        if self._routing.is_waiting and (routes := self._fleet.routes(LACKING_REFRESH_S)) is not self._routes:
            self._routes = routes
            self._routing.told_anew()
            orders += self._routing.next_orders(routes.holders, time.monotonic())
        self._tasks.submit({order: self._work([(part, self._parts[part]) for part in order.parts]) for order in orders})
