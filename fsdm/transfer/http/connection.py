"""Connections that a `Cancellation` can cut at any moment, and the pools that keep them.

urllib3 makes them, with the TLS and the proxies that requests asks for. One that has been kept is asked again here,
with the very bytes that requests had it asked with before, but for the target; and a head that is plain is taken by one
regular expression: without these two, a small file costs three times as much. What is not plain is left to http.client,
untouched. Invariant: a connection goes back to its pool with nothing of an answer left on it, or closed.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import select
import socket
import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final

from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from fsdm.transfer.http.lookup import look_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.source_policy import Policy

# RFC 9112 §4, §5; nothing that http.client and urllib3 do not read in the same way, and nothing that backtracks
_PLAIN_HEAD: Final = re.compile(
    rb"HTTP/1\.1 (200|206) ([\x20-\x7e]*+)\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n){1,99}+)\r\n"
)
_LENGTH: Final = re.compile(r"[0-9]{1,19}")
HEAD_S: Final = 60.0  # a head, or the end of a chunked body, that takes longer does not end: silence alone is not all

_current_stop: ContextVar[Cancellation | None] = ContextVar("_current_stop", default=None)
_current_policy: ContextVar[Policy | None] = ContextVar("_current_policy", default=None)


@contextmanager
def kept_to(policy: Policy) -> Iterator[None]:
    """No connection of this thread is made meanwhile to an address that `policy` refuses."""
    token = _current_policy.set(policy)
    try:
        yield
    finally:
        _current_policy.reset(token)


class StaleError(http.client.RemoteDisconnected):
    """A connection that was kept has ended before an answer: its server had closed it meanwhile."""


@contextmanager
def cut_by(stop: Cancellation) -> Iterator[None]:
    """What this thread does over any connection meanwhile, `stop` cuts."""
    token = _current_stop.set(stop)
    try:
        yield
    finally:
        _current_stop.reset(token)
        stop.done()


class _Lines:
    """What http.client reads lines from; each is to have come by `until` (monotonic), however slowly it comes."""

    def __init__(self, whole: Any, until: float) -> None:
        self._whole = whole
        self._until = until

    def readline(self, limit: int) -> bytes:
        line = b""
        while len(line) < limit and not line.endswith(b"\n"):
            if time.monotonic() > self._until:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the head of the answer does not end")
            there = self._whole.peek()  # it waits for some bytes, not for all of a line
            if not there:
                break
            line += self._whole.read(min(there.find(b"\n") + 1 or len(there), limit - len(line)))
        return line

    def close(self) -> None:
        self._whole.close()


class _Answer(http.client.HTTPResponse):
    """http.client's, which takes a plain head at once, and waits for the end of no line, nor of all lines, for ever."""

    def begin(self) -> None:
        head = _PLAIN_HEAD.match(self.fp.peek()) if self._method == "GET" else None  # type: ignore[attr-defined]
        if head is None or not self._take(head):
            with self._in_time():
                super().begin()

    def _read_next_chunk_size(self) -> int:
        with self._in_time():
            size: int = super()._read_next_chunk_size()  # type: ignore[misc]
            return size

    def _read_and_discard_trailer(self) -> None:
        with self._in_time():
            super()._read_and_discard_trailer()  # type: ignore[misc]

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        whole: Any = self.fp
        self.fp: Any = _Lines(whole, time.monotonic() + HEAD_S)
        try:
            yield
        finally:
            if self.fp is not None:  # http.client has not closed it
                self.fp = whole

    def _take(self, head: re.Match[bytes]) -> bool:
        """Whether the head could be taken; of one that could not, nothing has been read."""
        lines = head[3].decode("iso-8859-1").split("\r\n")[:-1]
        fields = [(name, value.lstrip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
        known = {name.lower(): value for name, value in fields}
        length = known.get("content-length", "")
        if len(known) < len(fields) or "transfer-encoding" in known or not _LENGTH.fullmatch(length):
            return False
        self.fp.read(head.end())
        self.version, self.chunked, self.length = 11, False, int(length)
        self.code = self.status = int(head[1])
        self.reason = head[2].decode().strip()
        self.will_close = "close" in known.get("connection", "").lower()
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in fields:
            self.headers.set_raw(name, value)
        return True


class Guarded(HTTPConnection):
    """A connection that a `Cancellation` can cut at any moment, also while it connects or waits for a head."""

    response_class = _Answer
    asked = b""  # the head of the last request
    _kept = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._kept = self.sock is not None
        if self.sock is not None:
            _guard(self.sock, connected=True)
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if isinstance(data, bytes):
            self.asked = data
        super().send(data)

    def getresponse(self) -> Any:
        try:
            return super().getresponse()
        except BaseException as e:
            _close_left_open(_Answer, e)  # urllib3 leaves one with a Content-Length that it refuses to the collector
            if self._kept and isinstance(e, ConnectionResetError | BrokenPipeError):  # RemoteDisconnected is one
                raise StaleError(*e.args) from e
            raise

    def ask(self, pool: HTTPConnectionPool, target: str, rest: bytes, timeout_s: float) -> HTTPResponse:
        """The answer to a GET of `target`; `rest` is what follows the target in the head of the request."""
        sock = self.sock
        assert sock is not None
        _guard(sock, connected=True)
        if sock.gettimeout() != timeout_s:
            sock.settimeout(timeout_s)
        sock.sendall(b"GET " + target.encode() + rest)
        answer = _Answer(sock, method="GET")
        try:
            answer.begin()
            if answer.will_close:
                self.close()
            return HTTPResponse(
                answer,
                HTTPHeaderDict(answer.headers.raw_items()),
                answer.status,
                version=answer.version,
                version_string="HTTP/1.1" if answer.version == 11 else "HTTP/1.0",
                reason=answer.reason,
                preload_content=False,
                decode_content=False,
                original_response=answer,
                pool=pool,
                connection=self,
                request_method="GET",
                request_url=target,
                sock_shutdown=sock.shutdown,
            )
        except BaseException:
            answer.close()
            raise

    def _new_conn(self) -> socket.socket:
        # urllib3's own gives the socket out of hand only when it is connected
        try:
            found = look_up(self._dns_host, self.port or 0, _current_stop.get(), self.timeout)
        except (OSError, UnicodeError) as e:  # a label of a name may be too long, or empty
            raise NameResolutionError(self.host, self, e) from e  # type: ignore[arg-type]
        policy, addresses = _current_policy.get(), [str(address[0]) for *_, address in found]
        allowed = addresses if policy is None else policy.addresses(self.host, addresses)
        error: OSError = OSError("no address")
        for family, kind, protocol, _, address in found:
            if str(address[0]) not in allowed:
                continue
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                _connect(sock, address, self.timeout)
            except OSError as e:
                sock.close()
                error = e
            else:
                return sock
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {self.host} within {self.timeout} s") from error
        raise NewConnectionError(self, f"no connection to {self.host}: {error}") from error


def _connect(sock: socket.socket, address: Any, timeout_s: float | None) -> None:
    """connect(2) that a `Cancellation` can cut, once it is under way."""
    sock.setblocking(False)
    code = sock.connect_ex(address)
    _guard(sock)
    if code == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.settimeout(timeout_s)


def _guard(sock: socket.socket, *, connected: bool = False) -> None:
    stop = _current_stop.get()
    if stop is not None:
        stop.guard(sock, connected=connected)


class _GuardedTls(Guarded, HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        try:
            super().connect()
        except BaseException as e:
            _close_left_open(ssl.SSLSocket, e)  # CPython leaves one that is reset before the handshake (`_create`)
            raise


def _close_left_open(kind: type[Any], error: BaseException) -> None:
    """Close what was made of this kind, on the way to an error, by those who have left it to the garbage collector."""
    for frame, _ in walk_tb(error.__traceback__):
        for value in list(frame.f_locals.values()):
            if isinstance(value, kind):
                value.close()


class Pool(HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = Guarded

    def ask(self, target: str, rest: bytes, timeout_s: float) -> HTTPResponse | None:
        """The answer to a GET over a kept connection (see `Guarded.ask`); None where none is there to be asked.

        Raises:
            ReadTimeoutError, ProtocolError: no answer came.
        """
        conn = self._get_conn()
        if not isinstance(conn, Guarded) or conn.sock is None:
            self._put_conn(conn)
            return None
        try:
            return conn.ask(self, target, rest, timeout_s)
        except BaseException as e:
            conn.close()
            self._put_conn(None)
            if isinstance(e, ConnectionResetError | BrokenPipeError):  # its server had ended it: ask over another one
                return None
            if isinstance(e, TimeoutError):
                raise ReadTimeoutError(self, target, "Read timed out.") from e
            if isinstance(e, OSError | http.client.HTTPException):
                raise ProtocolError("Connection aborted.", e) from e
            raise


class TlsPool(Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _GuardedTls
