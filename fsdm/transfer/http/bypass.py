"""The rest of a body over plain HTTP, read from its socket past libcurl.

libcurl hands a body on in 16 kB, and takes the GIL for each: transfers that are as fast as the disk wait for each
other. The connection is lost with it, so this is for servers that are near: see `is_worth`.
40 files of 50 MB, eight at once, in memory, with BLAKE3: 1.56 CPU seconds a GB; by libcurl alone 2.4.

Invariant: it begins only where libcurl has handed on all that the kernel says it has read since the connection was
made (what is counted of that may be too little, never too much). So no byte is left out.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, Self

from fsdm.transfer.http.sockets import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.transfer.http.sockets import Sockets

SAVED_S: Final = 1e-9  # for each byte that libcurl does not hand on
ROUND_TRIPS: Final = 3  # that a new connection costs
LEAST_BYTES: Final = 4 << 20
WAKE_BYTES: Final = 256 << 10
WAIT_MS: Final = 200  # so many are waited for no longer than that
_TCP_INFO: Final = struct.Struct("=128xQ12xI")  # linux/tcp.h: bytes received; the least round trip, microseconds


class Bypass:
    """The socket of one connection."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def find(cls, sockets: Sockets, port: int) -> Self | None:
        """The bypass of the socket that has a local port."""
        fd = sockets.find(port)
        return None if fd is None else cls(fd)

    def is_worth(self, left: int, handed_on: int) -> bool:
        """Tell whether `left` bytes are to be read here, where libcurl has handed on so many since it connected."""
        read, round_trip_s = self._look()
        return read == handed_on and left * SAVED_S > ROUND_TRIPS * round_trip_s

    def _look(self) -> tuple[int, float]:
        """The bytes that libcurl has read; the least round trip."""
        with borrowed(self._fd) as sock:
            (unread,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
            received, microseconds = _TCP_INFO.unpack(sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, _TCP_INFO.size))
        return received - unread, microseconds * 1e-6

    def run(
        self,
        left: int,
        buffer: memoryview,
        take: Callable[[memoryview], object],
        look: Callable[[], None],
        woken_fd: int,
    ) -> int:
        """Give `left` bytes to `take`, or as many as come; return how many are missing.

        `look` is called after each, each WAIT_MS, and when the eventfd `woken_fd` is written to; it may raise.
        """
        readable = select.poll()
        readable.register(self._fd, select.POLLIN)
        readable.register(woken_fd, select.POLLIN)
        wake = 0
        while left:
            wanted = min(left, len(buffer))
            if wake != min(wanted, WAKE_BYTES):
                wake = min(wanted, WAKE_BYTES)
                with borrowed(self._fd) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wake)
            for fd, _ in readable.poll(WAIT_MS):
                if fd == woken_fd:
                    os.eventfd_read(fd)
            try:
                count = os.readv(self._fd, [buffer[:wanted]])
            except BlockingIOError:
                look()
                continue
            if not count:
                break
            take(buffer[:count])
            left -= count
            look()
        return left
