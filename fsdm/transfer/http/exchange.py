"""One request and its answer, as libcurl's callbacks see them.

Over TLS a callback brings one record of 16 kB, so the bytes are only copied there, and handed on in blocks. An error in
a callback is kept, and raised when libcurl has returned.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Final

import pycurl

from fsdm.model.errors import HostError
from fsdm.transfer.http.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.http.bypass import Bypass

    Body = Callable[[memoryview], object]  # takes the next bytes; they are gone when it returns
    Begin = Callable[[Head], Body | None]  # takes a head; None where its body is not wanted

BLOCK_BYTES: Final = 512 << 10
LOOK_S: Final = 0.04  # what has come is handed on so often, however little it is
HEAD_S: Final = 60.0  # a head that takes longer does not end: silence alone is not all
DRAIN_BYTES: Final = 64 << 10  # a body that nobody wants is taken, if it is no longer, so that its connection stays
DRAIN_S: Final = 0.5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Blocks(io.BufferedWriter):
    """Gathers what libcurl hands on; used by one exchange at a time."""

    def __init__(self) -> None:
        self.into = _Into()
        super().__init__(self.into, BLOCK_BYTES)


class _Into(io.RawIOBase):
    take: Callable[[memoryview], None] | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.take is not None:
            self.take(data)
        return len(data)


class Exchange:
    """Takes one answer. `bypass` finds the socket of a local port where the bytes of a body are those on it."""

    def __init__(
        self,
        begin: Begin,
        stop: Cancellation,
        idle_timeout_s: float,
        blocks: Blocks,
        bypass: Callable[[int], Bypass | None],
    ) -> None:
        self.error: BaseException | None = None
        self.location: str | None = None
        self.head: Head | None = None
        self.asked_at: float | None = None
        self.is_bypassed = False
        self._begin: Begin | None = begin
        self._stop = stop
        self._idle_timeout_s = idle_timeout_s
        self._blocks = blocks
        blocks.into.take = self._take
        self._body: Body | None = None
        self._lines: list[bytes] = []
        self._find_bypass = bypass
        self._bypass: Bypass | None = None
        self._head_bytes = 0
        self._came = 0
        self._silent_since = self._head_at = self._look_at = 0.0

    def end(self) -> bool:
        """Hand on what is left, and let go of the taker; whether no body was wanted."""
        is_over = self._is_over
        try:
            self._blocks.flush()
        finally:
            self._blocks.into.take = self._begin = self._body = None  # libcurl knows this exchange until the next
        return is_over

    @property
    def _is_over(self) -> bool:
        """Tell whether a head came after which no body is wanted."""
        return self.head is not None and self._body is None

    def _take(self, data: memoryview) -> None:
        """Give the bytes that have come to where they belong."""
        if self._body is None or self.error is not None:
            return
        try:
            self._body(data)
        except BaseException as e:
            self.error = e

    def asks(self, _: str, __: str, ___: int, port: int) -> int:
        """PREREQFUNCTION: the connection is made, or is a kept one, and the request goes out."""
        self.asked_at = self._silent_since = time.monotonic()
        self._bypass = self._find_bypass(port)
        return int(pycurl.PREREQFUNC_OK)

    def line(self, line: bytes) -> int | None:
        """HEADERFUNCTION. The lines of a trailer, and of a proxy's word on a tunnel, say nothing."""
        if self.head is not None or self.asked_at is None:
            return None
        self._head_bytes += len(line)
        if line.startswith(b"HTTP/"):
            self._lines = []
        if line.strip():
            self._lines.append(line)
            return None
        head = Head.read(self._lines)
        if 100 <= head.status < 200:
            return None
        self.head, self._head_at = head, time.monotonic()
        self._look_at = 0.0 if self._bypass else self._head_at + LOOK_S
        try:
            if head.status in REDIRECTS and head.get("location"):
                self.location = head.get("location")
            elif self._begin is not None:
                self._body = self._begin(head)
        except BaseException as e:
            self.error = e
        is_short = head.status >= 300 and head.length is not None and head.length <= DRAIN_BYTES
        return None if self._body is not None or is_short else -1

    def progress(self, _: int, received: int, *__: int) -> int:
        """XFERINFOFUNCTION, called after each read, and each second: see that it goes on."""
        if self.error is None and time.monotonic() < self._look_at:
            return 0
        try:
            self._look(self._head_bytes + received)
            if self._body is not None:
                self._blocks.flush()
                self._take_rest(received)
            now = time.monotonic()
            self._look_at = now + LOOK_S
            if self._is_over and now - self._head_at >= DRAIN_S:
                return 1
        except BaseException as e:
            self.error = self.error or e
        return int(self.error is not None or self.is_bypassed)

    def _take_rest(self, received: int) -> None:
        length = self.head and self.head.length
        if self._bypass is None or not length:
            return
        left = length - received
        if not self._bypass.is_worth(left, self._head_bytes + received):
            return
        self.is_bypassed = True
        came = self._came

        def take(data: memoryview) -> None:
            nonlocal came
            came += len(data)
            self._take(data)
            if self.error is not None:
                raise self.error

        left = self._bypass.run(left, memoryview(bytearray(BLOCK_BYTES)), take, lambda: self._look(came))
        if left:
            what = f"end of response with {left} bytes missing"
            raise HostError(what, what=what)

    def _look(self, came: int) -> None:
        """See that it goes on."""
        self._stop.check()
        now, what = time.monotonic(), ""
        if came != self._came or self.asked_at is None:
            self._came, self._silent_since = came, now
        if now - self._silent_since >= self._idle_timeout_s:
            what = f"not a byte for {self._idle_timeout_s:g} s"
        elif self.head is None and self.asked_at is not None and now - self.asked_at >= HEAD_S:
            what = "the head of the answer does not end"
        if what:
            raise HostError(what, what=what, cause="timeout")
