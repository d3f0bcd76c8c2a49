"""One response's body → one sink, by the fastest road that is open.

- **splice**: socket → pipe → file, without the bytes ever being in user space. For a body of known length over plain
  HTTP, as it is.
- **readinto**: large blocks through one buffer a thread. For TLS, and for bodies of unknown length.
- **stream**: urllib3's public road, slower; where the response is not what the two above know.

requests has read the head, and with it perhaps the beginning of the body: what its buffer holds goes first. Where the
whole body has been taken, the connection goes back to its pool clean; otherwise it is closed. Invariant: never a byte
more than the head's Content-Length is taken from the socket, so what follows on the connection is untouched.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import io
import os
import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from urllib3.exceptions import IncompleteRead, ProtocolError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import HTTPResponse

BLOCK_BYTES: Final = 512 << 10
PIPE_BYTES: Final = 1 << 20
READ_BYTES: Final = 64 << 10  # at once into user space: more than a TLS record has
LOOK_S: Final = 0.04  # while bytes drip, `check` is called so often; on the first road also while a server is silent
SMALL_BYTES: Final = 1 << 20  # below this a pipe is not worth its system calls

_threads = threading.local()  # a pipe and a buffer for each thread


class Writer(Protocol):
    """What a body is poured into: an open file, which is told what has been appended."""

    fd: int
    size: int

    def put(self, data: bytes | memoryview) -> None:
        """Append bytes that are in user space."""

    def took(self, count: int) -> None:
        """So many bytes have been appended by the kernel."""


def _all(most: int) -> int:
    return most


def pour(
    raw: HTTPResponse,
    sink: Writer,
    *,
    at_most: int | None,
    idle_timeout_s: float,
    check: Callable[[], None],
    block: Callable[[int], int] = _all,
) -> None:
    """Take the whole body into `sink`. `check` is called between blocks, and may raise to end it.

    `block` says how many bytes to take at once, up to what it is given. Of a body that does not say its length, no more
    than `at_most` bytes and one are taken before `check` is called.

    Raises:
        IncompleteRead, ReadTimeoutError, or another of urllib3's or http.client's errors: the body did not come whole.
        OSError: the connection or the disk.
    """
    parser = getattr(raw, "_fp", None)
    if not isinstance(parser, http.client.HTTPResponse) or parser.fp is None:
        for data in raw.stream(block(BLOCK_BYTES), decode_content=False):
            sink.put(data)
            check()
        return
    length = None if parser.chunked else parser.length
    sock = _plain_socket(parser)
    if length is not None and sock is not None and length > SMALL_BYTES:
        _splice(raw, parser, sock, sink, length, idle_timeout_s, check, block)
    else:
        _readinto(raw, parser, sink, length, at_most, check, block)
    _hand_back(raw, parser)


def _plain_socket(parser: http.client.HTTPResponse) -> socket.socket | None:
    """The connection's socket, if bytes on it are the body's bytes: not TLS."""
    sock = getattr(getattr(parser.fp, "raw", None), "_sock", None)
    return sock if type(sock) is socket.socket and hasattr(os, "splice") else None


def _readinto(
    raw: HTTPResponse,
    parser: http.client.HTTPResponse,
    sink: Writer,
    length: int | None,
    at_most: int | None,
    check: Callable[[], None],
    block: Callable[[int], int],
) -> None:
    left = length
    while left is None or left > 0:
        room = BLOCK_BYTES if at_most is None else min(at_most - sink.size + 1, BLOCK_BYTES)
        with _connection_errors(raw):
            data = _fill(parser, block(room if left is None else min(room, left)))
        count = len(data)
        if count == 0:
            break
        sink.put(data)
        check()
        left = None if left is None else left - count
    check()
    if left:
        raise IncompleteRead(sink.size, left)


def _fill(parser: http.client.HTTPResponse, most: int) -> memoryview:
    """What comes of a body, up to `most` bytes; no more is waited for once LOOK_S have passed. Empty at its end."""
    buffer, count, until = _buffer(), 0, time.monotonic() + LOOK_S
    while count < most:
        data = parser.read1(min(most - count, READ_BYTES))  # it gives what is there; readinto waits for all of it
        if not data:
            break
        buffer[count : count + len(data)] = data
        count += len(data)
        if time.monotonic() >= until:
            break
    return buffer[:count]


def _splice(
    raw: HTTPResponse,
    parser: http.client.HTTPResponse,
    sock: socket.socket,
    sink: Writer,
    length: int,
    idle_timeout_s: float,
    check: Callable[[], None],
    block: Callable[[int], int],
) -> None:
    with _connection_errors(raw):
        # what the buffer holds already, all of it, or else what comes: then it is empty
        first = parser.read1(max(block(BLOCK_BYTES), io.DEFAULT_BUFFER_SIZE))
    if not first:  # the connection has ended, and http.client has closed it
        check()
        raise IncompleteRead(0, length)
    sink.put(first)
    check()
    left = length - len(first)
    timeout_s = sock.gettimeout()
    _block_for(sock, min(idle_timeout_s, LOOK_S))
    silent_since = time.monotonic()
    try:
        while left > 0:
            try:
                count = _move(raw, sock.fileno(), sink, block(min(left, PIPE_BYTES)))
            except ReadTimeoutError:
                if time.monotonic() - silent_since >= idle_timeout_s:
                    raise
                check()
                continue
            if count == 0:
                break
            left -= count
            check()
            silent_since = time.monotonic()
    finally:
        sock.settimeout(timeout_s)
    check()  # a connection that was cut looks like an end
    if left:
        raise IncompleteRead(length - left, left)
    parser.length = 0


def _move(raw: HTTPResponse, sock: int, sink: Writer, limit: int) -> int:
    """Move what the socket has, up to `limit` bytes, into the file; how many, 0 at the end of the connection."""
    reading, writing = _pipe()
    with _connection_errors(raw):
        count = os.splice(sock, writing, limit)
    try:
        _empty(reading, sink, count)
    except BaseException:
        drop_pipe()  # what is left in it must not come into the next file
        raise
    return count


def _empty(pipe: int, sink: Writer, count: int) -> None:
    """Move `count` bytes from the pipe to the file."""
    left = count
    try:
        while left > 0:
            left -= os.splice(pipe, sink.fd, left)
    except OSError as e:
        if e.errno != errno.EINVAL:  # this file system takes no splice: by hand then
            raise
    sink.took(count - left)
    while left > 0:
        block = os.read(pipe, left)
        sink.put(block)
        left -= len(block)


def _hand_back(raw: HTTPResponse, parser: http.client.HTTPResponse) -> None:
    """Let urllib3 know that the body is at its end, so that the connection serves the next request."""
    raw.length_remaining = 0
    parser.length = 0 if parser.length is not None else None
    raw.read(1)


def _block_for(sock: socket.socket, timeout_s: float) -> None:
    """A blocking socket whose reads (and splices) fail with EAGAIN after `timeout_s` of silence (socket(7))."""
    sock.settimeout(None)
    seconds = int(timeout_s)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, int((timeout_s - seconds) * 1_000_000))
    )


@contextmanager
def _connection_errors(raw: HTTPResponse) -> Iterator[None]:
    """The socket's errors as urllib3's, to tell them from the disk's."""
    try:
        yield
    except (TimeoutError, BlockingIOError) as e:
        raise ReadTimeoutError(raw._pool, raw.geturl() or "", "Read timed out.") from e  # type: ignore[arg-type]  # noqa: SLF001
    except OSError as e:
        raise ProtocolError(f"Connection broken: {e!r}", e) from e


def _buffer() -> memoryview:
    buffer: memoryview | None = getattr(_threads, "buffer", None)
    if buffer is None:
        buffer = _threads.buffer = memoryview(bytearray(BLOCK_BYTES))
    return buffer


class _Pipe:
    """A pipe that is closed with its thread."""

    def __init__(self) -> None:
        self.ends = os.pipe()
        try:
            fcntl.fcntl(self.ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # over the user's limit (pipe(7)): a small one works as well
            return

    def __del__(self) -> None:
        for end in self.ends:
            os.close(end)


def _pipe() -> tuple[int, int]:
    pipe: _Pipe | None = getattr(_threads, "pipe", None)
    if pipe is None:
        pipe = _threads.pipe = _Pipe()
    return pipe.ends


def drop_pipe() -> None:
    """Forget this thread's pipe: there may be bytes in it."""
    _threads.pipe = None
