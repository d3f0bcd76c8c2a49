"""The processes of the demo, as it begins and ends them; the nursery forks them."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any, Final, Self

from fsdm.model.errors import FsdmError

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN_S: Final = 120.0


@dataclass(slots=True)
class _Process:
    name: str
    pid: int | None = None
    word: str | None = None
    code: int | None = None


@dataclass(slots=True)
class Processes:
    """The processes of the demo, by the name of what they belong to; a context manager, which kills all of them."""

    root: str
    _nursery: Popen[bytes] | None = None
    _all: list[_Process] = field(default_factory=list)
    _unread: bytes = b""

    def __enter__(self) -> Self:
        os.makedirs(f"{self.root}/logs")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-P", "-m", "fsdm.cli.fleet_demo.nursery"]
        with open(f"{self.root}/logs/nursery.log", "wb") as log:
            self._nursery = Popen(command, stdin=PIPE, stdout=PIPE, stderr=log, env=environment, process_group=0)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        with suppress(BrokenPipeError):
            self._nursery.stdin.close()  # at its end all are killed
        with self._nursery.stdout as rest:
            while rest.read(1 << 16):
                pass
        self._nursery.wait()

    def begin(self, name: str, function: str, *arguments: str) -> int:
        """Begin a process, which belongs to a name, by a function of the roles; return its number."""
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        number = len(self._all)
        self._all.append(_Process(name))
        self._nursery.stdin.write(
            json.dumps([number, f"{self.root}/logs/{name}.log", function, *arguments]).encode() + b"\n"
        )
        self._nursery.stdin.flush()
        return number

    def word(self, number: int) -> str:
        """Wait until a process has said its word: an address.

        Raises:
            FsdmError: it has ended before, or says nothing.
        """
        deadline = time.monotonic() + BEGIN_S
        one = self._all[number]
        while one.word is None:
            self.check()
            if time.monotonic() > deadline:
                raise FsdmError(f"{one.name} has said nothing for {BEGIN_S:g} s")
            self._listen(0.1)
        return one.word

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the processes of a name; where it ends them, wait until they have ended, and forget them."""
        some = [one for one in self._all if one.name == name and one.code is None]
        for one in some:
            while one.pid is None:
                self._listen(0.1)
            os.kill(one.pid, number)
        if number in {signal.SIGKILL, signal.SIGTERM}:
            for one in some:
                while one.code is None:
                    self._listen(0.1)
                one.name = ""

    def check(self) -> None:
        """Raise FsdmError where a process has ended, unasked."""
        self._listen(0.0)
        for one in self._all:
            if one.name and one.code is not None:
                raise FsdmError(f"a process of {one.name} has ended with {one.code}: {self._last_words(one.name)}")

    def _last_words(self, name: str) -> str:
        with open(f"{self.root}/logs/{name}.log", encoding="utf-8", errors="replace") as log:
            return (log.read().strip().splitlines() or ["it has said nothing"])[-1][:300]

    def _listen(self, wait_s: float) -> None:
        """Take what the nursery says, and wait for it up to so many seconds."""
        for said in self._said(wait_s):
            one = self._all[said.pop("number")]
            for what, value in said.items():
                setattr(one, what, value)

    def _said(self, wait_s: float) -> Iterator[dict[str, Any]]:
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        if not select.select([self._nursery.stdout], [], [], wait_s)[0]:
            return
        data = os.read(self._nursery.stdout.fileno(), 1 << 16)
        if not data:
            raise FsdmError(f"the process that begins all others has ended: {self._last_words('nursery')}")
        *lines, self._unread = (self._unread + data).split(b"\n")
        yield from map(json.loads, lines)
