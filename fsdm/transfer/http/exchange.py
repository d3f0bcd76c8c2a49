"""One request and its answer, as libcurl's callbacks see them.

Over TLS a callback brings one record of 16 kB, so the bytes are only copied there, and handed on in blocks. An error in
a callback is kept, and raised when libcurl has returned.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pycurl

from fsdm.model.errors import HostError
from fsdm.transfer.http.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation

    Body = Callable[[memoryview], object]  # takes the next bytes; they are gone when it returns
    Begin = Callable[[Head], Body | None]  # takes a head; None where its body is not wanted

BLOCK_BYTES: Final = 256 << 10
LOOK_S: Final = 0.04  # what has come is handed on so often, however little it is
HEAD_S: Final = 60.0  # a head that takes longer does not end: silence alone is not all
DRAIN_BYTES: Final = 64 << 10  # a body that nobody wants is taken, if it is no longer, so that its connection stays
DRAIN_S: Final = 0.5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Exchange:
    """Takes one answer. `buffer` is for the blocks, and is used by one exchange at a time."""

    def __init__(self, begin: Begin, stop: Cancellation, idle_timeout_s: float, buffer: memoryview) -> None:
        self.error: BaseException | None = None
        self.location: str | None = None
        self.head: Head | None = None
        self.asked_at: float | None = None
        self._begin: Begin | None = begin
        self._stop = stop
        self._idle_timeout_s = idle_timeout_s
        self._buffer = buffer
        self._filled = 0
        self._body: Body | None = None
        self._lines: list[bytes] = []
        self._came = False
        self._silent_since = self._handed_on_at = 0.0

    def end(self) -> bool:
        """Hand on what is left, and let go of the taker; whether no body was wanted."""
        is_over = self._is_over
        try:
            self.hand_on()
        finally:
            self._begin = self._body = None  # libcurl knows this exchange until the next
        return is_over

    @property
    def _is_over(self) -> bool:
        """Tell whether a head came after which no body is wanted."""
        return self.head is not None and self._body is None

    def hand_on(self) -> None:
        """Give the bytes that have come to where they belong."""
        count, self._filled = self._filled, 0
        if count and self._body is not None:
            self._body(self._buffer[:count])

    def asks(self, *_: object) -> int:
        """PREREQFUNCTION: the connection is made, or is a kept one, and the request goes out."""
        self.asked_at = self._silent_since = time.monotonic()
        return int(pycurl.PREREQFUNC_OK)

    def line(self, line: bytes) -> int | None:
        """HEADERFUNCTION. The lines of a trailer, and of a proxy's word on a tunnel, say nothing."""
        if self.head is not None or self.asked_at is None:
            return None
        self._came = True
        if line.startswith(b"HTTP/"):
            self._lines = []
        if line.strip():
            self._lines.append(line)
            return None
        head = Head.read(self._lines)
        if 100 <= head.status < 200:
            return None
        self.head, self._handed_on_at = head, time.monotonic()
        try:
            if head.status in REDIRECTS and head.get("location"):
                self.location = head.get("location")
            elif self._begin is not None:
                self._body = self._begin(head)
        except BaseException as e:
            self.error = e
        is_short = head.status >= 300 and head.length is not None and head.length <= DRAIN_BYTES
        return None if self._body is not None or is_short else -1

    def data(self, data: bytes) -> int | None:
        """WRITEFUNCTION."""
        self._came = True
        if self._body is None:
            return None
        filled = self._filled + len(data)
        try:
            if filled > len(self._buffer):
                self.hand_on()
                filled = len(data)
            self._buffer[self._filled : filled] = data
            self._filled = filled
        except BaseException as e:
            self.error = e
            return -1
        return None

    def progress(self, *_: object) -> int:
        """XFERINFOFUNCTION, called after each read, and each second: see that it goes on."""
        try:
            self._stop.check()
            now = time.monotonic()
            if self._filled and now - self._handed_on_at >= LOOK_S:
                self.hand_on()
                now = self._handed_on_at = time.monotonic()
            if self._came or self.asked_at is None:
                self._came, self._silent_since = False, now
            self._see_that_it_goes_on(now)
        except BaseException as e:
            self.error = self.error or e
            return 1
        return int(self._is_over and now - self._handed_on_at >= DRAIN_S)

    def _see_that_it_goes_on(self, now: float) -> None:
        what = ""
        if now - self._silent_since >= self._idle_timeout_s:
            what = f"not a byte for {self._idle_timeout_s:g} s"
        elif self.head is None and self.asked_at is not None and now - self.asked_at >= HEAD_S:
            what = "the head of the answer does not end"
        if what:
            raise HostError(what, what=what, cause="timeout")
