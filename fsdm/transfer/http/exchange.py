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
from fsdm.transfer.http.bypass import LEAST_BYTES, Bypass
from fsdm.transfer.http.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.file_range import FileRange
    from fsdm.transfer.http.sockets import Sockets

    Body = Callable[[memoryview | FileRange], object]  # takes the next bytes; they are gone when it returns
    Begin = Callable[[Head], Body | None]  # takes a head; None where its body is not wanted

BLOCK_BYTES: Final = 512 << 10
LOOK_S: Final = 0.04  # what has come is handed on so often, however little it is
HEAD_S: Final = 60.0  # a head that takes longer does not end: silence alone is not all
QUIET_S: Final = 1.0  # where nothing comes, it is looked so often whether that is too long
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
    """Takes one answer; `within` bounds its timeouts.

    `sockets` are given where the bytes of a body are those on its connection; `woken_fd`, an eventfd, is readable
    when `stop` is set. Where it does not follow redirects, one of them is an answer like any other.
    """

    def __init__(
        self,
        begin: Begin,
        stop: Cancellation,
        within: Callable[[float], float],
        idle_timeout_s: float,
        blocks: Blocks,
        sockets: Sockets | None,
        woken_fd: int,
        *,
        follows: bool = True,
    ) -> None:
        self.error: BaseException | None = None
        self.location: str | None = None
        self.head: Head | None = None
        self.asked_at: float | None = None
        self.is_bypassed = False
        self.is_large = False  # or of unknown length
        self._begin: Begin | None = begin
        self._stop = stop
        self._within = within
        self._idle_timeout_s = idle_timeout_s
        self._blocks = blocks
        blocks.into.take = self._take
        self._body: Body | None = None
        self.lines: list[bytes] = []  # of the heads that have come
        self._sockets = sockets
        self._woken_fd = woken_fd
        self._follows = follows
        self._port = 0
        self._handed_before = self._head_bytes = 0
        self._came = 0
        self._silent_since = self._head_at = 0.0
        self._quiet_s = min(QUIET_S, idle_timeout_s)
        self.look_at = time.monotonic() + self._quiet_s

    def end(self, received: int) -> bool:
        """Hand on what is left of so many bytes of a body, and let go of the taker; whether no body was wanted."""
        try:
            self._read_head()
            if self._sockets is not None:
                self._sockets.handed_on[self._port] = self._handed_before + self._head_bytes + received
            self._blocks.flush()
            return self._is_over
        finally:
            self._blocks.into.take = self._begin = self._body = None  # libcurl knows this exchange until the next

    @property
    def _is_over(self) -> bool:
        """Tell whether a head came after which no body is wanted."""
        return self.head is not None and self._body is None

    def _take(self, data: memoryview) -> None:
        """Give the bytes that have come to where they belong."""
        self._read_head()
        if self._body is None or self.error is not None:
            return
        try:
            self._body(data)
        except BaseException as e:
            self.error = e

    def asks(self, _: str, __: str, ___: int, port: int) -> int:
        """PREREQFUNCTION: the connection is made, or is a kept one, and the request goes out."""
        self.asked_at = self._silent_since = time.monotonic()
        self.lines.clear()  # what a proxy has said of a tunnel
        if self._sockets is not None:
            self._port, self._handed_before = port, self._sockets.handed_on.get(port, 0)
        return int(pycurl.PREREQFUNC_OK)

    def _read_head(self) -> None:
        """Read the head once its last line has come, and find where its body goes."""
        if self.head is not None or self.asked_at is None:
            return
        first = 0
        for at, line in enumerate(self.lines):
            if not line.strip():
                head, first = Head.read(self.lines[first:at]), at + 1
                if not 100 <= head.status < 200:
                    self._begin_with(head)
                    break

    def _begin_with(self, head: Head) -> None:
        self.head, self._head_at, self._head_bytes = head, time.monotonic(), sum(map(len, self.lines))
        try:
            if self._follows and head.status in REDIRECTS and head.get("location"):
                self.location = head.get("location")
            elif self._begin is not None:
                self._body = self._begin(head)
        except BaseException as e:
            self.error = e
        self.is_large = (head.length or LEAST_BYTES) >= LEAST_BYTES
        if self._body is None or (self.is_large and self._sockets is not None):
            self.look_at = 0.0

    def goes_on(self, received: Callable[[], int], *, has_come: bool) -> bool:
        """Take in what has come; False where no more is wanted, or comes. To be called soon after `look_at`.

        `received` tells the bytes of the body that libcurl has; `has_come`: there may be more of them.
        """
        self._read_head()
        now = time.monotonic()
        if has_come:
            self.look_at = min(self.look_at, now + LOOK_S)
        if now < self.look_at and self.error is None and not self._stop.is_set():
            return True
        try:
            self._look((self._head_bytes or sum(map(len, self.lines))) + received())
            if self._body is not None:
                self._blocks.flush()
                self._take_rest(received())
        except BaseException as e:
            self.error = self.error or e
            return False
        self.look_at = now + self._quiet_s
        if not self._is_over:
            return self.error is None and not self.is_bypassed
        self.look_at = min(self.look_at, self._head_at + DRAIN_S)
        return self._is_drained and now < self._head_at + DRAIN_S

    @property
    def _is_drained(self) -> bool:
        """Tell whether a body that nobody wants is taken, so that its connection stays."""
        head = self.head
        return head is not None and head.status >= 300 and head.length is not None and head.length <= DRAIN_BYTES

    def _take_rest(self, received: int) -> None:
        """Read the rest of a body past libcurl, where it is worth it."""
        left = ((self.head and self.head.length) or 0) - received
        if self._sockets is None or left < LEAST_BYTES:
            return
        bypass = Bypass.find(self._sockets, self._port)
        if bypass is None or not bypass.is_worth(left, self._handed_before + self._head_bytes + received):
            return
        self.is_bypassed = True
        came = self._came

        def take(data: memoryview) -> None:
            nonlocal came
            came += len(data)
            self._take(data)
            if self.error is not None:
                raise self.error

        left = bypass.run(left, memoryview(bytearray(BLOCK_BYTES)), take, lambda: self._look(came), self._woken_fd)
        if left:
            what = f"end of response with {left} bytes missing"
            raise HostError(what, what=what)

    def _look(self, came: int) -> None:
        """See that it goes on."""
        self._stop.check()
        now, what = time.monotonic(), ""
        if came != self._came or self.asked_at is None:
            self._came, self._silent_since = came, now
        if now - self._silent_since >= (idle_timeout_s := self._within(self._idle_timeout_s)):
            what = f"not a byte for {idle_timeout_s:g} s"
        elif self.head is None and self.asked_at is not None and now - self.asked_at >= self._within(HEAD_S):
            what = "the head of the answer does not end"
        if what:
            raise HostError(what, what=what, cause="timeout")
