"""Tasks of queries on a Dask scheduler: sent in one graph, each to one worker; their answers are gathered in batches.

Invariant: an order ends once: answered, lost, withdrawn (its scheduler has gone, with all that it knew), or dropped.
"""

from __future__ import annotations

import asyncio
import pickle
import queue
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from dask.base import annotate
from distributed.scheduler import KilledWorker, NoValidWorkerError

from fsdm.fleet.dask_node import run
from fsdm.model.errors import SchedulerLostError

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Mapping

    from distributed import Client, Future

    from fsdm.fleet.routing import Order
    from fsdm.fleet.task import Answer, Work

LOOK_EVERY_S: Final = 0.5
LOOKS_PER_WORKER_S: Final = 0.0025  # two thousand workers are looked at every 5 s: what they say is megabytes
RETRY_S: Final = 0.2
A_BATCH: Final = 0  # the number of no order


@dataclass(slots=True)
class Ended:
    """The orders that have ended: with their answers, lost by Dask, or withdrawn."""

    answers: list[tuple[int, Answer]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    withdrawn: list[int] = field(default_factory=list)


class Dispatch:
    """A Dask client, as queries use it."""

    def __init__(self, client: Client, patience_s: float) -> None:
        self.client = client
        self.scheduler = ""  # the id of the one that was last heard of
        self.look_every_s = LOOK_EVERY_S
        self._patience_s = patience_s

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Ask the scheduler for its workers: by address, what each says with its heartbeats.

        Raises:
            SchedulerLostError: it has not answered for the client's patience, or the client is closed.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            said = self._identity(deadline - time.monotonic())
            if said is not None:
                self.scheduler = said["id"]
                workers: dict[str, dict[str, Any]] = said["workers"]
                self.look_every_s = max(LOOK_EVERY_S, LOOKS_PER_WORKER_S * len(workers))
                return workers
            if self.client.status == "closed":
                raise SchedulerLostError("the Dask client is closed", hint="make a new one, and ask again")
            if time.monotonic() > deadline:
                what = f"the scheduler has not answered for {self._patience_s:g} s"
                raise SchedulerLostError(what, hint="start it again: no chunk is lost with it; then ask again")
            time.sleep(RETRY_S)

    def _identity(self, timeout_s: float) -> dict[str, Any] | None:
        scheduler = self.client.scheduler
        if self.client.status != "running" or scheduler is None:
            return None
        try:
            # not scheduler_info: what it returns may be replaced, by one without workers, before it is read
            said: dict[str, Any] = self.client.sync(
                scheduler.identity, n_workers=-1, callback_timeout=max(timeout_s, RETRY_S)
            )
        except (OSError, TimeoutError):  # Dask's own ones of a connection are OSErrors; it says so again, or comes back
            return None
        return said

    def tasks(self) -> Tasks:
        """Return the tasks of a query, none yet."""
        return Tasks(self)


class Tasks:
    """The tasks of one query that are under way."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch, self._client = dispatch, dispatch.client
        self._name = f"fsdm-query-{uuid.uuid4().hex}"
        self._futures: dict[int, Future[Answer]] = {}
        self._schedulers: dict[int, str] = {}
        self._events: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._gathering: dict[concurrent.futures.Future[dict[int, Answer | None]], set[int]] = {}

    def submit(self, works: Mapping[Order, Work]) -> None:
        """Send the works of orders to their workers, and to no others."""
        if not works:
            return
        keys = {f"{self._name}-{order.number}": order for order in works}
        graph = {key: (run, pickle.dumps(works[order]), order.is_alone) for key, order in keys.items()}
        where = {key: [order.address] for key, order in keys.items()}
        with annotate(workers=where.__getitem__, allow_other_workers=False):
            futures = self._client.get(graph, list(keys), sync=False)
        for order, future in zip(keys.values(), futures, strict=True):
            self._futures[order.number] = future
            self._schedulers[order.number] = self._dispatch.scheduler
            future.add_done_callback(partial(self._is_done, order.number))

    def _is_done(self, number: int, _: object) -> None:
        self._events.put(number)

    def ended(self, wait_s: float) -> Ended:
        """Return what has ended; wait for it up to so many seconds.

        Raises:
            Exception: what the function of a query has raised.
        """
        found = Ended()
        done: set[int] = set()
        try:
            done.add(self._events.get(timeout=wait_s))
            while True:
                done.add(self._events.get_nowait())
        except queue.Empty:
            pass
        batch = {}
        for number in done & self._futures.keys():
            future = self._futures[number]
            if future.status == "finished":
                batch[number] = future
            elif future.status == "error":
                self._failed(number, future, found)
            else:  # cancelled: the connection to the scheduler has broken
                found.withdrawn.append(number)
        found.withdrawn += [
            number
            for number, scheduler in self._schedulers.items()
            if scheduler != self._dispatch.scheduler and number not in found.withdrawn
        ]
        self._gather({number: future for number, future in batch.items() if number not in found.withdrawn})
        self._gathered(found)
        for number in (*found.withdrawn, *found.lost, *(number for number, _ in found.answers)):
            self.drop(number)
        return found

    def _failed(self, number: int, future: Future[Answer], found: Ended) -> None:
        error = future.exception()
        if not isinstance(error, KilledWorker | NoValidWorkerError):
            future.result()  # raises it, with the traceback of the worker
        found.lost.add(number)

    def _gather(self, batch: Mapping[int, Future[Answer]]) -> None:
        if batch:
            loop: asyncio.AbstractEventLoop = cast("Any", self._client.loop).asyncio_loop
            asked = self._client.gather(dict(batch), errors="skip", asynchronous=True)
            gathering = asyncio.run_coroutine_threadsafe(asked, loop)
            self._gathering[gathering] = set(batch)
            gathering.add_done_callback(partial(self._is_done, A_BATCH))

    def _gathered(self, found: Ended) -> None:
        for gathering in [one for one in self._gathering if one.done()]:
            numbers = self._gathering.pop(gathering) & self._futures.keys()
            if gathering.cancelled():
                continue
            try:
                answers = gathering.result()
            except OSError:
                found.lost |= numbers
                continue
            for number in numbers:
                answer = answers[number]
                if answer is None:
                    found.lost.add(number)
                else:
                    found.answers.append((number, answer))

    def drop(self, number: int) -> None:
        """Forget an order, whatever comes of it. Those that are gathered with it are gathered by themselves."""
        future = self._futures.pop(number, None)
        self._schedulers.pop(number, None)
        if future is not None:
            future.release()
        for gathering, numbers in list(self._gathering.items()):
            if number in numbers:
                del self._gathering[gathering]
                gathering.cancel()
                for other in numbers & self._futures.keys():
                    self._gather({other: self._futures[other]})

    def close(self) -> None:
        """Drop all of them."""
        for gathering in self._gathering:
            gathering.cancel()
        self._gathering.clear()
        for number in list(self._futures):
            self.drop(number)
