"""The demo's stage: its processes, what they tell, and bounded waiting for it.

One thread, the script's, prints and waits; what the processes write is put into an inbox by a thread for each. Every
wait has a limit, and says what it was waiting for when it fails. Whoever leaves the stage leaves no process behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import fsdm
from fsdm.model.events import SYMBOLS, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.cli.demo.show import Show

T = TypeVar("T")

PATIENCE_S: Final = 20.0  # for one step
POLL_S: Final = 0.01
END_S: Final = 8.0  # a reconciler that stops waits for its crews


class DemoError(Exception):
    """Something is not as it has to be; says what."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a process wrote, and when: seconds since the start."""

    at: float
    child: Child
    document: dict[str, Any]


@dataclass(eq=False, slots=True)
class Child:
    """A process of the demo's, and what it has replied."""

    name: str
    process: subprocess.Popen[str]
    ready: bool = False
    leaving: bool = False
    replies: dict[int, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)

    def send(self, document: dict[str, object]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(document) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise DemoError(f"{self.name} is gone: it takes no orders") from None

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        self.leaving = True
        self.process.kill()
        self.process.wait()

    def end(self, timeout_s: float) -> int:
        """Let it end by itself; its exit code."""
        self.leaving = True
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise DemoError(f"{self.name} did not end within {timeout_s:.1f} s") from None


class Stage:
    """Processes and events of one demo on one data directory. A context manager."""

    def __init__(
        self, data_dir: str, show: Show, names: dict[str, str], limit_s: float, *, pause_s: float = 0.0
    ) -> None:
        self.data_dir = data_dir
        self.events: list[tuple[float, Event]] = []
        self.violations: list[str] = []
        self._show = show
        self._names = names  # chunk id → what people call it
        self._began = time.monotonic()
        self._limit_s = limit_s
        self._pause_s = pause_s
        self._inbox: SimpleQueue[Told] = SimpleQueue()
        self._children: list[Child] = []
        self._pumps: list[threading.Thread] = []
        self._numbers = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children:
            child.kill()
        for pump in self._pumps:
            pump.join(1.0)
        for child in self._children:
            for pipe in (child.process.stdin, child.process.stdout):
                _close(pipe)

    @property
    def at(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def say(self, kind: str, text: str, chunk_id: str | None = None) -> None:
        """Show something of the script's own, after what has happened so far."""
        self._drain()
        self._show.line(self.at, kind, chunk_id, self._names.get(chunk_id or "", ""), text)

    def step(self, text: str) -> None:
        """Tell what comes next, and give people the time to read it."""
        self.say("step", text)
        until = self.at + self._pause_s
        while (left := until - self.at) > 0:
            self._drain(left)

    # ------------------------------------------------------------------------------------------------------- processes

    def start(self, role: str, name: str, *arguments: str) -> Child:
        """Start a process (see `roles`) and wait until it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fsdm.cli.demo.roles", role, self.data_dir, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=_environment(),
            process_group=0,  # Ctrl-C is for the demo, which then ends its processes in order
        )
        child = Child(name, process)
        self._children.append(child)
        pump = threading.Thread(target=self._pump, args=(child,), name=f"pump {name}", daemon=True)
        self._pumps.append(pump)
        pump.start()
        self.until(f"{name} is ready", lambda: child.ready)
        return child

    def ask(self, child: Child, verb: str, **arguments: object) -> Any:
        """What a reader replies to a command."""
        self._numbers += 1
        number = self._numbers
        child.send({"verb": verb, "number": number, **arguments})
        self.until(f"{child.name} replies to {verb!r}", lambda: number in child.replies)
        return child.replies[number]

    def end(self, child: Child) -> dict[str, Any]:
        """Let a process end by itself; what it said last."""
        code = child.end(min(END_S, max(self._limit_s - self.at, 0.1)))
        self._pumps[self._children.index(child)].join(1.0)
        self._drain()
        if code != 0:
            raise DemoError(f"{child.name} ended with {code}")
        return child.ended

    # --------------------------------------------------------------------------------------------------------- waiting

    def until(self, what: str, check: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
        """What `check` returns once it is true; shows what happens meanwhile.

        Raises:
            DemoError: it is not true in time, or a process has ended that should not.
        """
        deadline = min(self.at + patience_s, self._limit_s)
        while True:
            self._drain()
            self._look_after_children()
            seen = check()
            if seen:
                return seen
            if self.at >= deadline:
                whole = f" (the demo's limit is {self._limit_s:g} s)" if deadline == self._limit_s else ""
                raise DemoError(f"in vain it waited for this: {what}{whole}")
            self._drain(POLL_S)

    def mark(self) -> int:
        """A place in the stream of events: now."""
        self._drain()
        return len(self.events)

    def expect(self, kind: str, chunk_id: str, since: int) -> float:
        """Wait for an event about a chunk, after a mark; when it came."""
        symbol = SYMBOLS[kind]  # type: ignore[index]  # a wrong one is a KeyError
        found = self.until(
            f"{symbol} {kind} of {self._names.get(chunk_id, chunk_id)}", lambda: self.seen(kind, chunk_id, since)
        )
        return found[0]

    def seen(self, kind: str, chunk_id: str, since: int) -> list[float]:
        """When there were events of that kind about a chunk, after a mark."""
        return [at for at, event in self.events[since:] if (event.kind, event.chunk_id) == (kind, chunk_id)]

    # ---------------------------------------------------------------------------------------------------------- shared

    def _pump(self, child: Child) -> None:
        assert child.process.stdout is not None
        for line in child.process.stdout:
            self._inbox.put(Told(self.at, child, json.loads(line)))

    def _drain(self, wait_s: float = 0.0) -> None:
        try:
            self._take(self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait())
            while True:
                self._take(self._inbox.get_nowait())
        except Empty:
            return

    def _take(self, told: Told) -> None:
        child, document = told.child, told.document
        match document["kind"]:
            case "ready":
                child.ready = document.get("reconciling", True)
            case "reply":
                child.replies[document["number"]] = document["reply"]
            case "ended":
                child.ended = document
            case kind:
                chunk_id, text = document["chunk_id"], document["text"]
                self._show.line(told.at, kind, chunk_id or None, self._names.get(chunk_id, ""), text)
                if kind == "violation":
                    self.violations.append(f"{child.name}, {self._names.get(chunk_id, chunk_id)}: {text}")
                else:
                    self.events.append((told.at, Event(kind, chunk_id, text)))

    def _look_after_children(self) -> None:
        for child in self._children:
            code = child.process.poll()
            if code is not None and not child.leaving:
                raise DemoError(f"{child.name} has ended with {code}, unasked")


def _environment() -> dict[str, str]:
    """The children run this very package, wherever it lies, and ask the loopback without a proxy."""
    home = str(Path(fsdm.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:  # what was still to be written finds nobody to read it
        return
