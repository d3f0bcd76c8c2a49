"""Polling the disk, in a thread or on an asyncio loop.

A poll is a generator: it looks, yields the seconds to rest, and returns its result. Invariant: a look never waits.
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
LOOKS_PER_S: Final = 10_000  # of all polls of one client: a look and its turn of the loop take 10 µs
SHARE: Final = 20  # the rest after a look (at 100,000 names, say) is so many times as long as the look


class Poller:
    """The polls of one client: the more there are, the less often each one looks. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._count = 0

    def until(
        self, done: Callable[[], bool], timeout_s: float | None, rest_s: float = REST_S
    ) -> Generator[float, None, bool]:
        """Poll `done()` for at most `timeout_s`, with rests up to `rest_s`; return whether it was true.

        NaN: InvalidInputError.
        """
        if timeout_s is not None and math.isnan(timeout_s):
            raise InvalidInputError("must be a number of seconds", field="timeout_s")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        rest = FIRST_REST_S
        with self._mutex:
            self._count += 1
        try:
            while True:
                began = time.thread_time()  # not the wall clock: to wait for a core is no cost of the look
                if done():
                    return True
                cost = time.thread_time() - began
                left = math.inf if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                yield min(max(rest, SHARE * cost, self._count / LOOKS_PER_S), left)
                rest = min(rest * 1.5, rest_s)
        finally:
            with self._mutex:
                self._count -= 1


def in_thread(looks: Generator[float, None, T], rest: Callable[[float], object]) -> T:
    """Drive a poll in this thread, and return its result; `rest(seconds)` sleeps."""
    with closing(looks):
        try:
            while True:
                rest(next(looks))
        except StopIteration as e:
            return e.value  # type: ignore[no-any-return]


async def on_loop(looks: Generator[float, None, T]) -> T:
    """Drive a poll on asyncio's loop, and return its result. It may be cancelled at any rest."""
    from asyncio import sleep

    with closing(looks):
        try:
            while True:
                await sleep(next(looks))
        except StopIteration as e:
            return e.value  # type: ignore[no-any-return]
