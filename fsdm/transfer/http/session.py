"""The HTTP layer: requests' sessions, one a thread, whose connections a `Cancellation` can cut at any moment.

requests' whole way to an answer costs more than a small file's bytes. So the first file of an origin goes that way, and
what it has found out (proxies, verification, credentials, the head of the request) serves the others for some seconds:
they ask the connection that was kept, with the same bytes. Any other URL, and any answer that redirects, is requests'.

TLS is verified; proxies, netrc and CA bundles are as requests finds them. Redirects are followed as requests does it:
credentials do not go on to another host. One from https to http is refused. Nothing is retried here but what met a kept
connection that its server had ended; no encoding is asked for, and no cookie is kept: a file does not depend on what
was fetched before it. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import re
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.models import REDIRECT_STATI
from requests.utils import select_proxy
from urllib3.exceptions import HTTPError, ReadTimeoutError

from fsdm.model.errors import HostError, PolicyError, TransferError
from fsdm.model.source_policy import ANY, Policy
from fsdm.transfer.http.connection import Guarded, Pool, StaleError, TlsPool, cut_by, kept_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import HTTPResponse

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.errors import Cause

ENVIRONMENT_S: Final = 10.0
MANY_ORIGINS: Final = 64
_OF_THE_FILE: Final = (
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
DRAIN_BYTES: Final = 64 << 10

# a URL of which requests and urllib3 send the path and the query as they stand: no dot segments, nothing to be quoted,
# and escapes (RFC 3986 §2.1) only of what needs one, in capitals; nothing here backtracks
_ESCAPE: Final = r"%(?:[0189A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[BCDF])"
_CHARS: Final = r"A-Za-z0-9._~!$&'()*+,;=:@\-"
_PLAIN_URL: Final = re.compile(
    rf"https?://[^/?#]++(/(?![/.])(?:[{_CHARS}]++|/(?!\.)|{_ESCAPE})*+(?:\?(?:[{_CHARS}/?]++|{_ESCAPE})++)?+)"
)


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}
        return manager


class Session(requests.Session):
    """requests' session, which refuses what a redirect may not do, and what `policy` refuses."""

    def __init__(self, policy: Policy = ANY) -> None:
        super().__init__()
        self._policy = policy
        self.headers.clear()
        self.headers.update({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "fsdm"})
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """The answer to a request: to the first one, and to each that a redirect leads to."""
        url = request.url or ""
        self._policy.check_url(url)
        proxy = select_proxy(url, kwargs.get("proxies"))
        if proxy:
            self._policy.check_proxy(shown(proxy))
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where an answer redirects to, if it does."""
        try:
            target: str | None = super().get_redirect_target(resp)
            to = urlsplit(target or "")
            _ = to.port
        except ValueError as e:
            resp.close()
            what = f"{shown(resp.url or '')}: redirected to what is no URL"
            raise TransferError(what, transient=False, cause="redirect") from e
        left = resp.raw.length_remaining
        if target and (left is None or left > DRAIN_BYTES):
            resp.raw.close()  # requests would read the body of it to its end, and it may have none
        if target and urlsplit(resp.url or "").scheme == "https" and to.scheme == "http":
            resp.close()
            raise TransferError(
                f"{shown(resp.url or '')}: redirected from https to {shown(target)}, which is refused",
                transient=False,
                cause="redirect",
            )
        return target


class Sessions:
    """A session for each thread, for one is not promised to be thread-safe."""

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float, policy: Policy = ANY) -> None:
        self._timeout = (connect_timeout_s, idle_timeout_s)
        self._policy = policy
        self._threads = threading.local()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], stop: Cancellation) -> Iterator[HTTPResponse]:
        """The answer to a GET, its body unread. Left with a body that was taken whole, the connection is kept.

        Raises:
            TransferError: requests, urllib3 or http.client failed, here or while the body was taken.
            PolicyError: the policy refuses the URL, what it redirects to, or the address.
            StoppedError: `stop` was set.
        """
        with cut_by(stop), kept_to(self._policy), _http_errors(url, stop, self._timeout):
            raw = self._send(url, headers, stop)
            try:
                yield raw
            finally:
                raw.close()
                raw.release_conn()

    def _send(self, url: str, headers: Mapping[str, str], stop: Cancellation) -> HTTPResponse:
        """`Session.get`, but what is alike for all files of one origin is prepared once."""
        session = self._session()
        origin = self._origin(session, url)
        plain = None if headers else _PLAIN_URL.fullmatch(url)
        answer = origin.ask(plain[1], self._timeout[1]) if plain else None
        if answer is not None and answer.status not in REDIRECT_STATI:
            return answer
        request = requests.PreparedRequest()
        request.prepare("GET", url, {**session.headers, **headers}, auth=origin.auth)
        if answer is not None:
            adapter = session.get_adapter(url)
            assert isinstance(adapter, HTTPAdapter)
            first = adapter.build_response(request, answer)
            settings = {"timeout": self._timeout, **origin.settings}
            response = [first, *session.resolve_redirects(first, request, **settings)][-1]
        else:
            response = self._through(session, request, origin, stop)
            if plain and not response.history:
                origin.learn(plain[1], response.raw)
        raw: HTTPResponse = response.raw
        return raw

    def _through(
        self, session: Session, request: requests.PreparedRequest, origin: _Origin, stop: Cancellation
    ) -> requests.Response:
        """By requests; once more where it met a kept connection that its server had ended (RFC 9112 §9.3.1)."""
        try:
            return session.send(request, timeout=self._timeout, **origin.settings)
        except requests.ConnectionError as e:
            if not any(isinstance(cause, StaleError) for cause in _causes(e)):
                raise
        stop.check()
        return session.send(request, timeout=self._timeout, **origin.settings)

    def _origin(self, session: Session, url: str) -> _Origin:
        """What requests finds in the environment and in netrc for a URL's origin; up to ENVIRONMENT_S old."""
        parts = urlsplit(url)
        key, now = (parts.scheme, parts.netloc), time.monotonic()
        known: dict[tuple[str, str], _Origin] = self._threads.origins
        found = known.get(key)
        if found is None or found.until < now:
            if len(known) >= MANY_ORIGINS:
                known.clear()
            settings = dict(session.merge_environment_settings(url, {}, True, None, None))
            found = known[key] = _Origin(now + ENVIRONMENT_S, settings, requests.utils.get_netrc_auth(url))
        return found

    def _session(self) -> Session:
        session: Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = Session(self._policy)
            self._threads.origins = {}
        return session


@dataclass(slots=True)
class _Origin:
    """What a thread knows of one scheme, host, port and userinfo: proxies, verification, credentials.

    Once a file has come from it, also where its connections are kept, and the bytes that one was asked with.
    """

    until: float  # monotonic
    settings: dict[str, Any]
    auth: Any
    pool: weakref.ref[Pool] | None = None  # requests keeps ten of them open, and lets the others go
    rest: bytes = b""  # of a request's head, after the target

    def learn(self, target: str, answer: HTTPResponse) -> None:
        """Take from the first answer how a kept connection is to be asked, unless it is by way of a proxy."""
        conn, pool = answer.connection, answer._pool  # noqa: SLF001
        start = f"GET {target}".encode()
        if isinstance(conn, Guarded) and isinstance(pool, Pool) and conn.asked.startswith(start + b" HTTP/1.1\r\n"):
            self.pool, self.rest = weakref.ref(pool), conn.asked.removeprefix(start)

    def ask(self, target: str, timeout_s: float) -> HTTPResponse | None:
        """The answer over a kept connection, if there is one."""
        pool = None if self.pool is None else self.pool()
        return None if pool is None else pool.ask(target, self.rest, timeout_s)


@contextmanager
def _http_errors(url: str, stop: Cancellation, timeout: tuple[float, float]) -> Iterator[None]:
    """requests' and urllib3's errors as ours, without the secrets that a URL may carry."""
    try:
        yield
    except PolicyError as e:
        raise PolicyError(f"{shown(url)}: {e}", hint=e.hint) from e
    except (requests.RequestException, HTTPError, http.client.HTTPException) as e:
        stop.check()
        reason = _reason(e, timeout)
        message = f"{shown(url)}: {reason}"
        if isinstance(e, _OF_THE_FILE):
            raise TransferError(message, transient=False, cause="redirect") from e
        cause = _cause(e)
        raise HostError(message, what=reason, transient=cause != "tls", cause=cause) from e


def _cause(error: Exception) -> Cause:
    match error:
        case requests.exceptions.SSLError():
            return "tls"
        case requests.exceptions.Timeout() | ReadTimeoutError():
            return "timeout"
    return "connection"


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
