"""Run the demo's child processes, reconcilers and readers, and show what they tell.

A child writes `Line`s to its stdout as JSON, and ends where its stdin ends: none outlives the demo, however that ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.cli.demo.check import read_chunk
from fsdm.client import Client
from fsdm.model import events
from fsdm.model.errors import FsdmError
from fsdm.model.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JOBS: Final = 4
REST_S: Final = 0.03  # between two checks of a reader
POLL_S: Final = 0.01
PIPE_BYTES: Final = 1 << 20  # no pipe takes more (pipe(7)), so that a read gets whole lines
PHRASES: Final[dict[str, str]] = dict(events.PHRASES.items())
SYMBOLS: Final[dict[str, str]] = dict(events.SYMBOLS.items()) | {
    "step": "──", "found": "🔎", "half-way": "⏳", "read": "📖", "killed": "💀", "violation": "🚨",
    "wrong": "❌", "right": "✅",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, to one chunk or to all.

    `at` is time.monotonic(): one clock for all processes.
    """

    kind: str
    chunk_id: str = ""
    text: str = ""
    size_bytes: int = 0
    at: float = field(default_factory=time.monotonic)


# ------------------------------------------------------------------------------------------------------ in the children


def tell(line: Line) -> None:
    """Write a line to the demo, whole: in one write of less than PIPE_BUF (pipe(7))."""
    with suppress(BrokenPipeError):  # the demo has ended, as stdin says next
        os.write(1, json.dumps(asdict(line)).encode() + b"\n")


def reconcile(data_dir: str, max_bytes: str = "") -> None:
    """Reconcile until stdin ends, within a budget where one is given, and tell every event."""
    from fsdm.manager import DataManager

    def on_event(event: events.Event) -> None:
        tell(Line(event.kind, event.chunk_id, event.text))

    limits = Limits(jobs=JOBS, max_bytes=int(max_bytes) if max_bytes else None)
    with DataManager(data_dir, limits=limits, on_event=on_event):
        tell(Line("ready"))
        sys.stdin.read()


def hold(data_dir: str, dataset_id: str, block: str) -> None:
    """Hold the chunk at a block until stdin ends; read it all the time, and tell what is wrong."""
    with Client(data_dir) as client, ExitStack() as stack:
        ref = client.find_chunk(dataset_id, int(block))
        if ref is None:
            sys.exit(f"no chunk is available at block {block}")
        stack.enter_context(ref)
        while not select.select([sys.stdin], [], [], REST_S)[0]:
            began = time.monotonic()
            size_bytes, faults = read_chunk(str(ref.path.parent))
            for fault in faults:
                tell(Line("violation", ref.id, fault))
            tell(Line("checked", ref.id, size_bytes=size_bytes, at=began))


# ---------------------------------------------------------------------------------------------------------- in the demo


@dataclass(eq=False, slots=True)
class Child:
    """A child process.

    `last` is the last line that it told; `code` the exit code to end with, once it is to end.
    """

    name: str
    process: subprocess.Popen[bytes]
    last: Line | None = None
    code: int | None = None

    def fileno(self) -> int:
        """Tell select(2) which pipe it writes to."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()


class Run(ExitStack):
    """One run of the demo: its child processes, which end with it, and all that is told.

    It writes with symbols, with words where the encoding of `out` has no symbols, or as JSON; `names` are what people
    call the chunks.
    """

    def __init__(
        self, data_dir: str, out: TextIO, names: Mapping[str, str], *, as_json: bool, limit_s: float, pause_s: float
    ) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.names = names
        self.began = time.monotonic()
        self.children: list[Child] = []
        self.lines: list[tuple[str, Line]] = []  # the name of a child, and what it told
        self._out = out
        self._as_json = as_json
        self._limit_s = limit_s
        self._pause_s = pause_s
        self.symbols = SYMBOLS
        try:
            "".join(SYMBOLS.values()).encode(getattr(out, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            self.symbols = {kind: f"[{kind}]" for kind in SYMBOLS}

    def start(self, name: str, role: Callable[..., None], *arguments: str) -> Child:
        """Start a process that runs `role` of this module, and wait until it has told something."""
        no_proxy = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, role.__name__, self.data_dir, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **no_proxy, "PYTHONPATH": os.pathsep.join(sys.path)},  # the modules that we have
            process_group=0,  # Ctrl-C is for the demo alone, which then ends its children
        )
        self.enter_context(process)
        self.callback(process.kill)
        child = Child(name, process)
        self.children.append(child)
        self.until(f"{name} is ready", lambda: child.last)
        return child

    def end(self, child: Child, *, kill: bool = False) -> None:
        """Let a child end by itself, or kill it; wait until it has ended."""
        assert child.process.stdin is not None
        child.code = -signal.SIGKILL if kill else 0
        if kill:
            child.process.kill()
            self.say("killed", f"{child.name}: SIGKILL")
        child.process.stdin.close()
        self.until(f"{child.name} ends", lambda: child not in self.children)

    def until(self, what: str, check: Callable[[], object]) -> None:
        """Wait until `check` is true; show what happens meanwhile.

        Raises:
            FsdmError: the demo's time is up, or a child has ended that should not.
        """
        self.listen()
        while not check():
            if time.monotonic() - self.began >= self._limit_s:
                raise FsdmError(f"the demo gave up after {self._limit_s:g} s, waiting until {what}")
            self.listen(POLL_S)

    def listen(self, wait_s: float = 0.0) -> None:
        """Show what the children have told by now, or else what they tell within `wait_s`."""
        for child in select.select(self.children, [], [], wait_s)[0]:
            told = os.read(child.fileno(), PIPE_BYTES)
            for text in told.splitlines():
                child.last = Line(**json.loads(text))
                self.lines.append((child.name, child.last))
                self.show(child.last)
            if not told:
                self.children.remove(child)
                if (code := child.process.wait()) != child.code:
                    raise FsdmError(f"{child.name} has ended with {code}" + ", unasked" * (child.code is None))

    def step(self, text: str) -> None:
        """Tell what comes next, and give people the time to read it."""
        self.say("step", text)
        until = time.monotonic() + self._pause_s
        self.until("people have read this", lambda: time.monotonic() >= until)

    def say(self, kind: str, text: str, chunk_id: str = "") -> None:
        """Show something of the story's own, after what has happened so far."""
        self.listen()
        self.show(Line(kind, chunk_id, text))

    def show(self, line: Line) -> None:
        """Write a line; one of a kind that has no symbol is for the story alone."""
        if line.kind in SYMBOLS:
            at, chunk_id = line.at - self.began, line.chunk_id
            said = ": ".join(filter(None, (PHRASES.get(line.kind), line.text)))
            words = filter(None, (self.symbols[line.kind], chunk_id[:8], self.names.get(chunk_id), said))
            document = {"at": round(at, 3), "kind": line.kind, "chunk_id": chunk_id or None, "text": line.text}
            self.write(f"{at:6.2f} s  {' '.join(words)}", document)

    def write(self, text: str, document: Mapping[str, object]) -> None:
        """Write one thing in the form that was asked for."""
        self._out.write(f"{json.dumps(document) if self._as_json else text}\n")
        self._out.flush()


if __name__ == "__main__":
    try:
        (reconcile if sys.argv[1] == "reconcile" else hold)(*sys.argv[2:])
    except FsdmError as e:
        sys.exit(f"{e}\n{e.hint}".strip())
