"""File systems that record each step, or crash before it."""

from __future__ import annotations

import os
from collections.abc import Callable

from fsdm.store.filesystem import FileSystem

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for lives that are simulated: no disk need work


class CrashError(Exception):
    """The process ends here."""


class Recorder(FileSystem):
    """Notes every step, and calls `at[name](path)` just before a step of that name."""

    def __init__(self, **at: Callable[[str], None]) -> None:
        self.steps: list[tuple[str, str]] = []
        self._at = at

    def step(self, name: str, path: str) -> None:
        self.steps.append((name, path))
        if name in self._at:
            self._at[name](path)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.steps]


class CrashBefore(FileSystem):
    """Crashes before the step of this number, counted from 0."""

    def __init__(self, number: int) -> None:
        self._left = number

    def step(self, name: str, path: str) -> None:
        if self._left == 0:
            raise CrashError(f"{name} {path}")
        self._left -= 1


def crash_at_each_step(work: Callable[[FileSystem], object]) -> int:
    """Run `work` with a crash before its first step, its second …, and at last to its end."""
    for number in range(100):
        try:
            work(CrashBefore(number))
        except CrashError:
            continue
        return number
    raise AssertionError("it takes more than 100 steps")
