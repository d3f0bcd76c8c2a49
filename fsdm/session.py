"""The HTTP layer: requests' sessions, one a thread, whose connections a `Stop` can cut at any moment.

TLS is verified; proxies, netrc and CA bundles are as requests finds them. Redirects are followed as requests does it:
credentials do not go on to another host. One from https to http is refused. Nothing is retried here but what met a kept
connection that its server had ended; no encoding is asked for, and no cookie is kept: a file does not depend on what
was fetched before it. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import errno
import http.client
import http.cookiejar
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

from fsdm.errors import HostError, TransferError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import HTTPResponse

    from fsdm.stop import Stop

ENVIRONMENT_S: Final = 10.0
MANY_ORIGINS: Final = 64
_OF_THE_FILE: Final = (
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
DRAIN_BYTES: Final = 64 << 10

_current_stop: ContextVar[Stop | None] = ContextVar("_current_stop", default=None)


class _StaleError(http.client.RemoteDisconnected):
    """A connection that was kept has ended before any byte of an answer."""


class _Guarded(HTTPConnection):
    """A connection that a `Stop` can cut at any moment, also while it connects or waits for the head of an answer."""

    _kept = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._kept = self.sock is not None
        if self.sock is not None:
            _guard(self.sock)
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        try:
            return super().getresponse()
        except (ConnectionResetError, BrokenPipeError) as e:  # RemoteDisconnected is one
            if self._kept:
                raise _StaleError(*e.args) from e
            raise

    def _new_conn(self) -> socket.socket:
        # urllib3's own gives the socket out of hand only when it is connected
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:  # a label of a name may be too long, or empty
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


class Session(requests.Session):
    """requests' session, which refuses what a redirect may not do."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.clear()
        self.headers.update({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "fsdm"})
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where an answer redirects to, if it does."""
        try:
            target: str | None = super().get_redirect_target(resp)
            to = urlsplit(target or "")
            _ = to.port
        except ValueError as e:
            resp.close()
            raise TransferError(f"{shown(resp.url or '')}: redirected to what is no URL", transient=False) from e
        left = resp.raw.length_remaining
        if target and (left is None or left > DRAIN_BYTES):
            resp.raw.close()  # requests would read the body of it to its end, and it may have none
        if target and urlsplit(resp.url or "").scheme == "https" and to.scheme == "http":
            resp.close()
            raise TransferError(
                f"{shown(resp.url or '')}: redirected from https to {shown(target)}, which is refused", transient=False
            )
        return target


class Sessions:
    """A session for each thread, for one is not promised to be thread-safe."""

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float) -> None:
        self._timeout = (connect_timeout_s, idle_timeout_s)
        self._threads = threading.local()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], stop: Stop) -> Iterator[HTTPResponse]:
        """The answer to a GET, its body unread. Left with a body that was taken whole, the connection is kept.

        Raises:
            TransferError: requests, urllib3 or http.client failed, here or while the body was taken.
            StoppedError: `stop` was set.
        """
        token = _current_stop.set(stop)
        try:
            with _http_errors(url, stop, self._timeout):
                raw = self._send(url, headers, stop)
                try:
                    yield raw
                finally:
                    raw.close()
                    raw.release_conn()
        finally:
            _current_stop.reset(token)
            stop.done()

    def _send(self, url: str, headers: Mapping[str, str], stop: Stop) -> HTTPResponse:
        """`Session.get`, which asks the environment and netrc for each request; here they are asked for each origin."""
        session = self._session()
        settings, auth = self._environment(session, url)
        request = requests.PreparedRequest()
        request.prepare("GET", url, {**session.headers, **headers}, auth=auth)
        try:
            response = session.send(request, timeout=self._timeout, **settings)
        except requests.ConnectionError as e:
            if not any(isinstance(cause, _StaleError) for cause in _causes(e)):
                raise
            stop.check()
            response = session.send(request, timeout=self._timeout, **settings)  # RFC 9112 §9.3.1, once
        raw: HTTPResponse = response.raw
        return raw

    def _environment(self, session: Session, url: str) -> tuple[dict[str, Any], Any]:
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

    def _session(self) -> Session:
        session: Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = Session()
            self._threads.environments = {}
        return session


@contextmanager
def _http_errors(url: str, stop: Stop, timeout: tuple[float, float]) -> Iterator[None]:
    """requests' and urllib3's errors as ours, without the secrets that a URL may carry."""
    try:
        yield
    except (requests.RequestException, HTTPError, http.client.HTTPException) as e:
        stop.check()
        reason = _reason(e, timeout)
        message = f"{shown(url)}: {reason}"
        if isinstance(e, _OF_THE_FILE):
            raise TransferError(message, transient=False) from e
        raise HostError(message, what=reason, transient=not isinstance(e, requests.exceptions.SSLError)) from e


def _reason(error: Exception, timeout: tuple[float, float]) -> str:
    match error:
        case requests.exceptions.ConnectTimeout():
            return f"no connection within {timeout[0]:g} s"
        case requests.exceptions.ReadTimeout() | ReadTimeoutError():
            return f"not a byte for {timeout[1]:g} s"
        case requests.exceptions.TooManyRedirects():
            return "too many redirects"
    said = [cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror]
    return said[-1] if said else f"the connection broke ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what requests and urllib3 have wrapped in it, the innermost last."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        nested = getattr(seen, "reason", None) or next((a for a in seen.args if isinstance(a, BaseException)), None)
        seen = nested if isinstance(nested, BaseException) else seen.__cause__ or seen.__context__


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
