"""A trace: what happened, as JSON Lines in a file (`store.trace_file`).

A line has `seq`, `time`, `event`, `chunk_id`, `text`, and what else is known. Invariants: whoever tells an event waits
for no disk. Numbers go on over rotations and processes; each is that of a line, or is covered by one of event *gap*,
which has the `first` and the `last` of those that are missing.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Final, Self

import fsdm
from fsdm.concurrency.channel import Channel, Gap, signals_blocked
from fsdm.model.units import utc
from fsdm.monitoring.repeating import Refusals
from fsdm.status.terminal import encodable
from fsdm.store.trace_file import TraceFile, gap

if TYPE_CHECKING:
    from fsdm.model.events import Event

MAX_BYTES: Final = 64_000_000
MAX_TEXT: Final = 4_000  # characters of `text`
ENDED: Final = "ended"


class Trace:
    """Writes events into a file: give its `tell` as `on_event`. A context manager.

    `max_bytes` are those of all its files. With the first event the file is locked, and a line *began* is written; the
    last one is *ended*.

    Raises:
        InvalidInputError: the file cannot be written, or is none; or `max_bytes` is too small.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> None:
        self._file = TraceFile(path, max_bytes)
        self._base: int | None = None  # the number of the line *began*, once the file is locked
        self._has_begun = False
        self._missing: Gap | None = None  # what is still to be told
        self._refusals = Refusals()
        with signals_blocked():
            self._channel = Channel[dict[str, Any]](self._write, name="fsdm-trace")

    def tell(self, event: Event) -> None:
        """Have an event written, soon."""
        self._channel.put({"time": time.time(), **event.fields()})

    def close(self) -> None:
        """Wait until all is written, for seconds at most where the disk takes nothing."""
        self._channel.put({"time": time.time(), "event": ENDED, "pid": os.getpid()})
        if self._channel.close():
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, number: int, said: dict[str, Any] | Gap) -> None:
        if self._base is None and number == 1 and isinstance(said, dict) and said["event"] == ENDED:
            return  # nothing has happened
        missing = self._missing
        if isinstance(said, Gap):
            missing = Gap(missing.first if missing else said.first, said.last)
        self._missing = Gap(missing.first if missing else number, number)  # unless it is written
        with self._refusals.told(f"the trace {self._file.path} cannot be written"):
            base = self._base = self._file.open() + 1 if self._base is None else self._base
            lines = [] if self._has_begun else [_began(base, said)]
            if missing is not None:
                lines.append(gap(base + missing.first, base + missing.last, "could not be written in time"))
            if isinstance(said, dict):
                lines.append({"seq": base + number, **said})
            self._file.append("".join(map(_line, lines)))
            self._missing, self._has_begun = None, True


def _began(number: int, first: dict[str, Any] | Gap) -> dict[str, Any]:
    at = first["time"] if isinstance(first, dict) else time.time()
    return {"seq": number, "time": at, "event": "began", "pid": os.getpid(), "version": fsdm.__version__}


def _line(said: dict[str, Any]) -> str:
    seq, at = said.pop("seq"), said.pop("time", time.time())
    text = {"text": said["text"][:MAX_TEXT]} if "text" in said else {}
    return encodable(json.dumps({"seq": seq, "time": utc(at), **said, **text}, ensure_ascii=False)) + "\n"
