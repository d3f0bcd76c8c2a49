"""One file from its source, over HTTP(S), checked: status, length, and the size and digests that the want gives.

requests is the HTTP layer: TLS is verified; redirects, proxies and netrc are as requests has them. There is no total
timeout, only one for the connection and one for silence. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from fsdm.body import pour
from fsdm.errors import TransferError
from fsdm.sink import open_sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.fs import FileSystem
    from fsdm.model import FileEntry, FileSource
    from fsdm.sink import Sink
    from fsdm.stop import Stop

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
ENVIRONMENT_S: Final = 10.0
MANY_ORIGINS: Final = 64
TRANSIENT_STATUS: Final = frozenset({408, 425, 429})  # and 5xx (RFC 9110 §15.6)

_current_stop: ContextVar[Stop | None] = ContextVar("_current_stop", default=None)


class _Guarded(HTTPConnection):
    """A connection that a `Stop` can cut at any moment, also while it connects or waits for the head of an answer."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _guard(self.sock)
        super().request(*args, **kwargs)

    def _new_conn(self) -> socket.socket:
        # urllib3's own gives the socket out of hand only when it is connected
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except OSError as e:
            raise NameResolutionError(self.host, self, e) from e  # type: ignore[arg-type]
        error: OSError = OSError("no address")
        for family, kind, protocol, _, address in found:
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
    """connect(2) that a `Stop` can cut: it is guarded once it is under way, for before that there is nothing to cut."""
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


def _guard(sock: socket.socket) -> None:
    stop = _current_stop.get()
    if stop is not None:
        stop.guard(sock)


class _GuardedTls(_Guarded, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


class HttpFetcher:
    """Files over HTTP(S), by requests: TLS is verified, redirects, proxies and netrc are as requests has them."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        durable: bool = True,
    ) -> None:
        self._durable = durable
        self._timeout = (connect_timeout_s, idle_timeout_s)
        self._threads = threading.local()  # a Session is not promised to be thread-safe

    def fetch(self, source: FileSource, path: str, fs: FileSystem, stop: Stop) -> FileEntry:
        """See `Fetcher.fetch`."""
        token = _current_stop.set(stop)
        try:
            return self._fetch(source, path, fs, stop)
        finally:
            _current_stop.reset(token)
            stop.done()

    def _fetch(self, source: FileSource, path: str, fs: FileSystem, stop: Stop) -> FileEntry:
        with (
            _http_errors(source.url, stop, self._timeout),
            self._get(source.url) as response,
        ):
            _check_head(source, response)
            fs.step("create", path)
            sink = open_sink(path, sha256=source.sha256 is not None, writeback=self._durable)
            try:
                sink.expect(_length(response))
                _receive(source, response, sink, stop, self._timeout[1])
                entry = sink.entry()
                _check_digests(source, entry)
                if self._durable:
                    fs.fsync_file(sink.fd, path)
            finally:
                os.close(sink.fd)
        return entry

    def _get(self, url: str) -> requests.Response:
        """`Session.get`, which asks the environment and netrc for each request; here they are asked for each origin."""
        session = self._session()
        settings, auth = self._environment(session, url)
        request = requests.PreparedRequest()
        request.prepare("GET", url, session.headers, auth=auth, cookies=session.cookies or None)
        return session.send(request, timeout=self._timeout, **settings)

    def _environment(self, session: requests.Session, url: str) -> tuple[dict[str, Any], Any]:
        """Proxies, verification and credentials for a URL, as requests finds them; up to ENVIRONMENT_S old."""
        parts = urlsplit(url)
        origin, now = (parts.scheme, parts.netloc), time.monotonic()
        known: dict[tuple[str, str], tuple[float, dict[str, Any], Any]] = self._threads.environments
        found = known.get(origin)
        if found is None or found[0] < now:
            if len(known) >= MANY_ORIGINS:
                known.clear()
            settings = dict(session.merge_environment_settings(url, {}, True, None, None))
            found = known[origin] = (now + ENVIRONMENT_S, settings, requests.utils.get_netrc_auth(url))
        return found[1], found[2]

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            self._threads.environments = {}
            session.headers["Accept-Encoding"] = "identity"
            session.headers["User-Agent"] = "fsdm"
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter())
        return session


def _length(response: requests.Response) -> int | None:
    """The Content-Length, where the head has one that can be taken."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and length.isascii() and len(length) < 20 else None


def _check_head(source: FileSource, response: requests.Response) -> None:
    url, status = shown(source.url), response.status_code
    if status != 200:
        transient = status in TRANSIENT_STATUS or status >= 500
        hint = "" if transient else "check the URL in the want; `touch want/ID` tries again at once"
        raise TransferError(f"{url}: HTTP {status} {response.reason}", transient=transient, hint=hint)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        raise TransferError(f"{url}: the body comes with Content-Encoding {encoding}, unasked", transient=False)
    length = _length(response)
    if None not in {source.size, length} and length != source.size:
        raise TransferError(f"{url}: {length} bytes are offered, {source.size} are wanted", transient=False)


def _receive(source: FileSource, response: requests.Response, sink: Sink, stop: Stop, idle_timeout_s: float) -> None:
    url = shown(source.url)

    def check() -> None:
        stop.check()
        if source.size is not None and sink.size > source.size:
            raise TransferError(f"{url}: more than the {source.size} bytes that are wanted", transient=False)

    pour(response.raw, sink, at_most=source.size, idle_timeout_s=idle_timeout_s, check=check)
    check()  # a cut connection may look like the end of a body without a length
    if source.size is not None and sink.size != source.size:
        raise TransferError(f"{url}: {sink.size} bytes came, {source.size} are wanted", transient=True)


def _check_digests(source: FileSource, entry: FileEntry) -> None:
    for name in ("sha256", "blake3"):
        wanted, came = getattr(source, name), getattr(entry, name)
        if wanted is not None and wanted != came:
            raise TransferError(
                f"{shown(source.url)}: the {name} is {came}, wanted is {wanted}",
                transient=False,
                hint="the server has other bytes than the want describes",
            )


@contextmanager
def _http_errors(url: str, stop: Stop, timeout: tuple[float, float]) -> Iterator[None]:
    """requests' and urllib3's errors as ours, without the secrets that a URL may carry."""
    try:
        yield
    except (requests.RequestException, HTTPError, http.client.HTTPException) as e:
        stop.check()
        raise TransferError(f"{shown(url)}: {_reason(e, timeout)}", transient=_may_pass(e)) from e


def _may_pass(error: Exception) -> bool:
    return not isinstance(
        error,
        requests.exceptions.SSLError
        | requests.exceptions.TooManyRedirects
        | requests.exceptions.InvalidURL
        | requests.exceptions.InvalidSchema,
    )


def _reason(error: Exception, timeout: tuple[float, float]) -> str:
    match error:
        case requests.exceptions.ConnectTimeout():
            return f"no connection within {timeout[0]:g} s"
        case requests.exceptions.ReadTimeout() | ReadTimeoutError():
            return f"not a byte for {timeout[1]:g} s"
        case requests.exceptions.TooManyRedirects():
            return "too many redirects"
    seen: BaseException | None = error
    cause = ""
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            cause = seen.strerror
        nested = getattr(seen, "reason", None) or next((a for a in seen.args if isinstance(a, BaseException)), None)
        seen = nested if isinstance(nested, BaseException) else seen.__cause__ or seen.__context__
    return cause or f"the connection broke ({type(error).__name__})"


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
