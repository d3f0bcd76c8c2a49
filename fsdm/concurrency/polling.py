"""Waiting for something on the disk, by looks: in a thread, or on an event loop, by the same plan.

A plan of looks is a generator: it looks, yields how many seconds to rest before the next look, and returns what it
found. Who drives it owns the resting: `in_thread` sits in it, `on_loop` lets the loop go on. Invariants: a look never
waits; the looks of one client, however many wait, take a small share of the time (of the loop that they share, say).
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final, TypeVar

from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

FIRST_REST_S: Final = 0.001
REST_S: Final = 0.05
LOOKS_PER_S: Final = 10_000  # of all waits of one client together: a look and the turn of the loop for it take 10 µs
SHARE: Final = 20  # a look (at a listing of 100,000 names, say) is followed by so many times its own duration at rest


class Poller:
    """The waits of one client: how many there are says how often each may look. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._count = 0

    def until(self, done: Callable[[], bool], timeout_s: float | None) -> Generator[float, None, bool]:
        """Look until `done()`, or for `timeout_s` seconds and once more at their end; whether it was done.

        Raises:
            InvalidInputError: `timeout_s` is no number (NaN): no time would ever be up.
        """
        if timeout_s is not None and math.isnan(timeout_s):
            raise InvalidInputError("must be a number of seconds", field="timeout_s")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        rest = FIRST_REST_S
        self._add(1)
        try:
            while True:
                began = time.thread_time()  # not the clock on the wall: who had to wait for a core has not cost more
                if done():
                    return True
                cost = time.thread_time() - began
                left = math.inf if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                yield min(max(rest, SHARE * cost, self._count / LOOKS_PER_S), left)
                rest = min(rest * 1.5, REST_S)
        finally:
            self._add(-1)

    def _add(self, more: int) -> None:
        with self._mutex:
            self._count += more


def in_thread(looks: Generator[float, None, T], rest: Callable[[float], object]) -> T:
    """What the looks find; `rest` is how this thread rests for so many seconds."""
    with closing(looks):
        while True:
            try:
                pause = next(looks)
            except StopIteration as e:
                return e.value  # type: ignore[no-any-return]
            rest(pause)


async def on_loop(looks: Generator[float, None, T]) -> T:
    """What the looks find; between them asyncio's loop is free. May be cancelled at any of them."""
    from asyncio import sleep

    with closing(looks):
        while True:
            try:
                pause = next(looks)
            except StopIteration as e:
                return e.value  # type: ignore[no-any-return]
            await sleep(pause)
