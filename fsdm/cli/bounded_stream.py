"""Standard streams that nobody waits for: a thread writes them, as far as they are read.

Invariant: a write neither waits nor raises, and the exit of the process waits only while something still comes through.
What is too much, or refused, is counted, and told as soon as the stream takes anything again.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.channel import signals_blocked

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARS: Final = 4 << 20  # waiting to be written, beside what is being written
PATIENCE_S: Final = 2.0  # at the end, for a stream that takes nothing
END_S: Final = 10.0  # at the end, for all that waits
REST_S: Final = 0.02  # between two writes: what comes meanwhile is written in one


class BoundedStream(io.TextIOBase):
    """Writes a descriptor in a thread of its own.

    `note` makes the line that tells how many were dropped. `refused` is called with the first error, in that thread.
    """

    def __init__(
        self, fd: int, encoding: str, note: Callable[[int], str], refused: Callable[[OSError], None] = lambda _: None
    ) -> None:
        super().__init__()
        self._fd, self._encoding, self._note, self._refused = fd, encoding, note, refused
        self._changed = threading.Condition()
        self._pieces: deque[str] = deque()
        self._chars = self._written = self._dropped = 0
        self._is_full = self._is_ending = self._is_refused = False
        self._thread = threading.Thread(target=self._run, name="fsdm-stream", daemon=True)
        with signals_blocked():
            self._thread.start()
        atexit.register(self.end)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a TextIOBase has none
        return self._encoding

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        with self._changed:
            self._is_full = self._chars > (MAX_CHARS / 2 if self._is_full else MAX_CHARS)
            if self._is_full:
                self._dropped += text.count("\n")
            elif text:
                self._pieces.append(text)
                self._chars += len(text)
                if len(self._pieces) == 1:  # else the thread has been called, or looks again soon
                    self._changed.notify_all()
        return len(text)

    def end(self) -> None:
        """Wait until all is written, as long as the stream takes it."""
        deadline = time.monotonic() + END_S
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        before = -1
        while self._written != before and time.monotonic() < deadline:
            before = self._written
            self._thread.join(PATIENCE_S)

    @property
    def _has_note(self) -> bool:
        return self._dropped > 0 and not self._is_refused

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._is_ending or self._has_note)
                if not self._pieces and not self._has_note:
                    return
                text = "".join(self._pieces)
                self._pieces.clear()
                self._chars = 0
                dropped, self._dropped = self._dropped, 0
            refusal = self._write_all(text, dropped)
            if refusal is not None and not self._is_refused:
                self._refused(refusal)
            self._is_refused = refusal is not None
            with self._changed:
                self._changed.wait_for(lambda: self._is_ending, REST_S)

    def _write_all(self, text: str, dropped: int) -> OSError | None:
        """Write lines, behind the note of those that were dropped; what is refused is counted as dropped."""
        note = self._note(dropped) if dropped else ""
        data, at = (note + text).encode(self._encoding, "backslashreplace"), 0
        while at < len(data):
            end = data.rfind(b"\n", at, at + select.PIPE_BUF) + 1 or at + select.PIPE_BUF
            try:
                at += os.write(self._fd, memoryview(data)[at:end])
                self._written += 1
            except BlockingIOError:  # some other process of the terminal has made it non-blocking
                select.select([], [self._fd], [])
            except OSError as e:
                left, lines = data.count(b"\n", at), text.count("\n")
                with self._changed:
                    self._dropped += left if left <= lines else dropped + lines
                return e
        return None


def bound(name: str, note: Callable[[int], str], refused: Callable[[OSError], None] = lambda _: None) -> None:
    """Have stdout or stderr of this process never wait, until its end; leave alone what was put in its place."""
    number, stream = {"stdout": 1, "stderr": 2}[name], getattr(sys, name)
    try:
        is_ours = stream.fileno() == number
    except (OSError, ValueError):
        is_ours = False
    if is_ours:
        stream.flush()
        setattr(sys, name, BoundedStream(number, stream.encoding, note, refused))
