"""A libcurl handle: its connections, kept for the next request, and one request at a time in its callbacks.

libcurl lets go of the GIL while it works, and takes it for each callback. Over TLS a callback brings one record, so the
bytes are only copied there, and handed on in blocks. An error in a callback is kept, and raised when libcurl has
returned. Invariant: a descriptor of libcurl's is shut down from another thread only while it is open, and in a forked
child it leads to nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pycurl

from fsdm.model.errors import HostError
from fsdm.transfer.http.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.http.way import Way

    Body = Callable[[memoryview], object]  # takes the next bytes; they are gone when it returns
    Begin = Callable[[Head], Body | None]  # takes a head; None where its body is not wanted

BLOCK_BYTES: Final = 256 << 10
LOOK_S: Final = 0.04  # what has come is handed on so often, however little it is
HEAD_S: Final = 60.0  # a head that takes longer does not end: silence alone is not all
DRAIN_BYTES: Final = 64 << 10  # a body that nobody wants is taken, if it is no longer, so that its connection stays
DRAIN_S: Final = 0.5
KEPT: Final = 2  # connections of a handle: its server's, and that of a redirect

_ALWAYS: Final[Mapping[int, object]] = {
    pycurl.NOSIGNAL: 1,
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
    pycurl.HTTP09_ALLOWED: 0,
    pycurl.HTTP_CONTENT_DECODING: 0,
    pycurl.FOLLOWLOCATION: 0,
    pycurl.PATH_AS_IS: 1,
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.NOPROXY: "",  # the environment is read by `way`
    pycurl.COOKIEFILE: "",  # cookies within a chain of redirects, see `forget_cookies`
    pycurl.SSL_VERIFYPEER: 1,
    pycurl.SSL_VERIFYHOST: 2,
    pycurl.TCP_KEEPALIVE: 1,
    pycurl.MAXCONNECTS: KEPT,
    pycurl.BUFFERSIZE: BLOCK_BYTES,
    pycurl.NOPROGRESS: 0,
    pycurl.USERAGENT: "fsdm",
}


class _Socket:
    """A descriptor of libcurl's, which another thread may shut down while it is open."""

    opened: Final[weakref.WeakSet[_Socket]] = weakref.WeakSet()

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._mutex = threading.Lock()
        os.set_inheritable(fd, False)
        self.opened.add(self)

    def cut(self) -> None:
        with self._mutex:
            if self.fd >= 0:
                sock = socket.socket(fileno=self.fd)
                with suppress(OSError):  # it is not connected: then nothing waits for it
                    sock.shutdown(socket.SHUT_RDWR)
                sock.detach()

    def close(self) -> None:
        with self._mutex:
            os.close(self.fd)
            self.fd = -1


def _after_fork_in_child() -> None:
    """Let no byte of the child's (TLS says goodbye) go over a connection of the parent's."""
    if not _Socket.opened:
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for one in _Socket.opened:
        if one.fd >= 0:
            os.dup2(null, one.fd, inheritable=False)
    os.close(null)


os.register_at_fork(after_in_child=_after_fork_in_child)


class _Callbacks:
    """What libcurl calls. It does not know its handle: so that closes as soon as it is let go of."""

    def __init__(self, idle_timeout_s: float) -> None:
        self.sockets: dict[int, _Socket] = {}
        self.error: BaseException | None = None
        self._idle_timeout_s = idle_timeout_s
        self._made: socket.socket | None = None
        self._buffer = memoryview(bytearray(BLOCK_BYTES))

    def begin(self, begin: Begin, check_address: Callable[[str], None], stop: Cancellation) -> None:
        self._begin = begin
        self._body: Body | None = None
        self._check_address = check_address
        self._stop = stop
        self.error = None
        self.location: str | None = None
        self._lines: list[bytes] = []
        self._head: Head | None = None
        self._filled = 0
        self._refused: BaseException | None = None
        self._came = False
        self._asked_at: float | None = None
        self._silent_since = self._handed_on_at = 0.0
        for one in self.sockets.values():
            stop.guard(one.cut)

    def end(self) -> None:
        for one in self.sockets.values():
            self._stop.release(one.cut)
        del self._begin, self._body, self._check_address

    def hand_on(self) -> None:
        """Give the bytes that have come to where they belong."""
        count, self._filled = self._filled, 0
        if count and self._body is not None:
            self._body(self._buffer[:count])

    def raise_error(self) -> None:
        """Raise what went wrong in a callback, if anything did."""
        error = self.error or self._refused
        if error is not None:
            raise error

    def see_that_a_head_came(self) -> None:
        """Raise what went wrong where libcurl found nothing wrong: it passes a head that is cut off."""
        if self.error is not None:
            raise self.error
        if self._head is None:
            what = "nothing came but the beginning of a head"
            raise HostError(what, what=what)

    @property
    def has_asked(self) -> bool:
        return self._asked_at is not None

    @property
    def is_over(self) -> bool:
        """Whether a head came after which no body is wanted: then it does not matter how that ends."""
        return self._head is not None and self._body is None

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error

    # --------------------------------------------------------------------------------------------------- connections

    def open_socket(self, _: int, address: Any) -> Any:
        family, kind, protocol, where = address
        try:
            self._stop.check()
            self._check_address(str(where[0]))
            self._made = socket.socket(family, kind, protocol)
        except BaseException as e:  # another address may be better
            self._refused = e
            return pycurl.SOCKET_BAD
        return self._made

    def socket_made(self, fd: int, _: int) -> int:
        """libcurl has a descriptor of its own now (pycurl duplicates the one that it is given)."""
        if self._made is not None:
            self._made.close()
            self._made = self._refused = None
        one = self.sockets[fd] = _Socket(fd)
        self._stop.guard(one.cut)
        return pycurl.SOCKOPT_ERROR if self._stop.is_set() else pycurl.SOCKOPT_OK

    def close_socket(self, fd: int) -> int:
        one = self.sockets.pop(fd, None)
        if one is None:
            os.close(fd)
        else:
            self._stop.release(one.cut)
            one.close()
        return 0

    # ------------------------------------------------------------------------------------------------------ an answer

    def asks(self, *_: object) -> int:
        """The connection is made, or is a kept one: the request goes out."""
        self._asked_at = self._silent_since = time.monotonic()
        return int(pycurl.PREREQFUNC_ABORT if self._stop.is_set() else pycurl.PREREQFUNC_OK)

    def line(self, line: bytes) -> int | None:
        """A line of a head; those of a trailer, and of a proxy's word on a tunnel, say nothing."""
        if self._head is not None or self._asked_at is None:
            return None
        self._came = True
        if line.startswith(b"HTTP/"):
            self._lines = []
        if line.strip():
            self._lines.append(line)
            return None
        head = _parsed(self._lines)
        if 100 <= head.status < 200:
            return None
        self._head = head
        try:
            return self._begin_body(head)
        except BaseException as e:
            self._fail(e)
            return self._unwanted(head)

    def _begin_body(self, head: Head) -> int | None:
        if head.status in {301, 302, 303, 307, 308} and head.get("location"):
            self.location = head.get("location")
        else:
            self._body = self._begin(head)
        self._handed_on_at = time.monotonic()
        return self._unwanted(head) if self._body is None else None

    def _unwanted(self, head: Head) -> int | None:
        """Let a short body come, and end a long one."""
        return None if head.length is not None and head.length <= DRAIN_BYTES else -1

    def data(self, data: bytes) -> int | None:
        self._came = True
        if self._body is None:
            return None
        filled = self._filled + len(data)
        try:
            if filled > BLOCK_BYTES:
                self.hand_on()
                filled = len(data)
            self._buffer[self._filled : filled] = data
            self._filled = filled
        except BaseException as e:
            self._fail(e)
            return -1
        return None

    def progress(self, *_: object) -> int:
        """Called after each read, and each second: see that it goes on."""
        if self._stop.is_set():
            return 1
        now = time.monotonic()
        try:
            if self._filled and now - self._handed_on_at >= LOOK_S:
                self.hand_on()
                now = self._handed_on_at = time.monotonic()
            if self._came or self._asked_at is None:
                self._came, self._silent_since = False, now
            if self.is_over and now - self._handed_on_at >= DRAIN_S:
                return 1
            self._see_that_it_goes_on(now)
        except BaseException as e:
            self._fail(e)
            return 1
        return 0

    def _see_that_it_goes_on(self, now: float) -> None:
        if self._asked_at is None:
            return
        what = ""
        if now - self._silent_since >= self._idle_timeout_s:
            what = f"not a byte for {self._idle_timeout_s:g} s"
        elif self._head is None and now - self._asked_at >= HEAD_S:
            what = "the head of the answer does not end"
        if what:
            raise HostError(what, what=what, cause="timeout")


class Handle:
    """An easy handle; used by one thread at a time."""

    def __init__(self, connect_timeout_s: float, idle_timeout_s: float) -> None:
        self._calls = calls = _Callbacks(idle_timeout_s)
        self._curl = pycurl.Curl()
        callbacks = {
            pycurl.OPENSOCKETFUNCTION: calls.open_socket,
            pycurl.SOCKOPTFUNCTION: calls.socket_made,
            pycurl.CLOSESOCKETFUNCTION: calls.close_socket,
            pycurl.PREREQFUNCTION: calls.asks,
            pycurl.HEADERFUNCTION: calls.line,
            pycurl.WRITEFUNCTION: calls.data,
            pycurl.XFERINFOFUNCTION: calls.progress,
        }
        for option, value in {**_ALWAYS, **callbacks}.items():
            self._curl.setopt(option, value)
        self._curl.setopt(pycurl.CONNECTTIMEOUT_MS, round(connect_timeout_s * 1000))
        self._ca = ""

    def forget_cookies(self) -> None:
        """Let no cookie go from one file's requests to another's."""
        self._curl.setopt(pycurl.COOKIELIST, "ALL")

    def get(
        self,
        url: str,
        way: Way,
        headers: Sequence[bytes],
        begin: Begin,
        check_address: Callable[[str], None],
        stop: Cancellation,
    ) -> str | None:
        """Ask once; the Location where the answer redirects, or else None: then all of the answer came.

        Raises:
            pycurl.error: what libcurl says; `errno` tells more. Or what `begin`, its body or `check_address` raised.
            HostError: the server was silent for too long.
        """
        curl, calls = self._curl, self._calls
        self._set_way(way)
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.HTTPHEADER, headers)
        calls.begin(begin, check_address, stop)
        try:
            try:
                curl.perform()
            finally:
                calls.hand_on()
        except pycurl.error:
            calls.raise_error()
            if not calls.is_over:
                raise
        finally:
            calls.end()
        calls.see_that_a_head_came()
        return calls.location

    def _set_way(self, way: Way) -> None:
        if way.ca != self._ca:
            for file, directory in ((pycurl.CAINFO, pycurl.CAPATH), (pycurl.PROXY_CAINFO, pycurl.PROXY_CAPATH)):
                self._curl.setopt(directory if os.path.isdir(way.ca) else file, way.ca)
            self._ca = way.ca
        self._curl.setopt(pycurl.PROXY, way.proxy.encode())  # "" is none, whatever the environment says
        self._curl.setopt(pycurl.RESOLVE, way.resolve)

    @property
    def errno(self) -> int:
        """What the system said of the last connection that failed."""
        return int(self._curl.getinfo(pycurl.OS_ERRNO))

    @property
    def has_asked(self) -> bool:
        """Whether the last request went out."""
        return self._calls.has_asked


def _parsed(lines: list[bytes]) -> Head:
    status = lines[0].split(None, 2)[1:2] if lines else []
    fields: list[tuple[str, str]] = []
    for line in lines[1:]:
        text = line.decode("latin-1")
        name, colon, value = text.partition(":")
        if text[0] in " \t" and fields:  # folded (RFC 9112 §5.2)
            fields[-1] = (fields[-1][0], f"{fields[-1][1]} {text.strip()}")
        elif colon:
            fields.append((name.strip(), value.strip()))
    return Head.of(int(status[0]) if status and status[0].isdigit() else 0, fields)
