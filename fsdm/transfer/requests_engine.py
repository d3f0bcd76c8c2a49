"""Ask for URLs by a `requests.Session`: for sources that need their own (Kerberos, OAuth, signatures, an adapter).

It does what `http.engine` does, on what is public of requests and urllib3. A stop returns at once, but a request that
has no answer yet is left to a thread, which ends by the timeouts, or with its server. Fields of a head behind a line
that is none are not seen: http.client does not read on.

Invariants: what a session adds (headers, auth, parameters, a client certificate) does not go with a redirect to another
server. A body comes by the framing that its head says, or not at all.
"""

from __future__ import annotations

import http.client
import math
import re
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import requests
from requests import Session
from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth, select_proxy

from fsdm.concurrency.detached import call_detached
from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import HostError, StoppedError
from fsdm.transfer.http import exchange
from fsdm.transfer.http.engine import about, follow, read
from fsdm.transfer.http.head import Head
from fsdm.transfer.http.target import shown
from fsdm.transfer.requests_errors import causes, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from urllib3 import BaseHTTPResponse

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.source_policy import Policy
    from fsdm.transfer.host_health import Hosts
    from fsdm.transfer.http.exchange import Begin
    from fsdm.transfer.http.route import Settings
    from fsdm.transfer.http.source_settings import Sources
    from fsdm.transfer.http.target import Target

    Fields = Mapping[str, str]
    Sessions = Session | Callable[[], Session]

_CHUNK: Final = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;[^\r\n]*)?\r\n")
_ENDED: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


def plain_session() -> Session:
    """Make the session of `transport = "requests"`: with no more than the environment has for it."""
    session = Session()
    session.headers["User-Agent"] = "fsdm"
    return session


class RequestsEngine:
    """Asks for URLs by a session that all threads share, or by those of a factory, each for one thread at a time."""

    def __init__(
        self, hosts: Hosts, timeouts_s: tuple[float, float], policy: Policy, sources: Sources, session: Sessions | None
    ) -> None:
        policy.check_unseen()
        self._hosts = hosts
        self._timeouts_s = timeouts_s  # for a connection, and of silence
        self._policy = policy
        self._sources = sources
        self._session = session
        self._idle: list[Session] = []

    def get(self, url: str, headers: Fields, stop: Cancellation, begin: Begin) -> None:
        """See `Engine.get`."""
        with about(url), self._leased() as session:
            target = read(url)
            ask = partial(self._ask, session, headers, stop)
            follow(target, target.credentials or "", ask, begin, self._sources, self._hosts, stop)

    @contextmanager
    def _leased(self) -> Iterator[Session]:
        if isinstance(self._session, Session):
            yield self._session
            return
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._make()
        if self._session is None:
            session.cookies.clear()  # none outlives a file
        try:
            yield session
        except (HostError, StoppedError):
            raise  # a thread may still wait for an answer: no other request has this session
        except BaseException:
            self._idle.append(session)
            raise
        self._idle.append(session)

    def _make(self) -> Session:
        try:
            return (self._session or plain_session)()  # type: ignore[operator]
        except Exception as e:
            what = f"no session could be made: {type(e).__name__}"
            raise HostError(what, what=what) from None

    def _ask(
        self, session: Session, headers: Fields, stop: Cancellation, target: Target, own: str | None, begin: Begin
    ) -> str | None:
        """Ask one server; the Location where it redirects. `own` is "" for the session's credentials, None for none."""
        stop.check()
        self._policy.check_url(target.url)
        settings = self._sources.of(target)
        way = way_of(target, settings)
        host = self._hosts.get(target.origin)
        way["timeout"] = tuple(map(host.within, self._timeouts_s))
        head_s = way["timeout"][0] + host.within(exchange.HEAD_S)
        request = partial(self._request, session, target.url, headers, settings.headers, way, own)
        wait = partial(call_detached, request, stop, head_s, "fsdm-request", requests.Response.close)
        may_be_kept = host.good_at > -math.inf
        told = partial(self._told, session, target.url, way, head_s, stop)
        with told():
            try:
                response = wait()
            except requests.ConnectionError as e:
                if not may_be_kept or not any(isinstance(one, _ENDED) for one in causes(e)):
                    raise
                response = wait()  # urllib3 does not see a kept connection's end that comes as late as the request
        cut = partial(_cut, response.raw)
        stop.guard(cut)
        try:
            return _take(response.raw, begin, stop, told)
        finally:
            stop.release(cut)
            response.close()

    def _request(
        self, session: Session, url: str, headers: Fields, of_source: Fields, way: dict[str, Any], own: str | None
    ) -> requests.Response:
        how: dict[str, Any] = {"allow_redirects": False, "stream": True, **way}
        fields = {"Accept-Encoding": "identity", **of_source, **headers}
        on_top = {**of_source, "Authorization": f"Basic {own}"} if own else of_source
        auth: Any = (own is not None and session.auth) or (session.trust_env and get_netrc_auth(url)) or None
        auth = partial(_authorize, auth, on_top) if on_top else auth
        if own is not None:
            hooks = session.hooks.get("response") or []
            hooks = {"response": [*([hooks] if callable(hooks) else hooks), _hide_redirect]}
            return session.request("GET", url, headers=fields, auth=auth, hooks=hooks, **how)
        shared = {"User-Agent": session.headers.get("User-Agent"), "Accept": "*/*", **fields}
        bare = requests.Request("GET", url, shared, auth=auth, hooks={"response": _hide_redirect}).prepare()
        how |= session.merge_environment_settings(url, way["proxies"], True, way["verify"], None)
        return session.send(bare, **how | {"cert": way["cert"]})

    @contextmanager
    def _told(
        self, session: Session, url: str, way: dict[str, Any], head_s: float, stop: Cancellation
    ) -> Iterator[None]:
        """Raise the errors of requests as ours."""
        try:
            yield
        except Exception as e:
            stop.check()
            what, cause = in_words(e, *way["timeout"])
            if isinstance(e, TimeoutError):  # of `call_detached`
                what = f"the head of the answer does not end, or did not come within {head_s:g} s"
            found = session.merge_environment_settings(url, way["proxies"], None, None, None)
            if proxy := select_proxy(url, found["proxies"]):
                what += f" (by way of the proxy {shown(proxy if '://' in proxy else f'http://{proxy}')})"
            raise HostError(what, what=what, transient=cause != "tls", cause=cause) from None


def way_of(target: Target, settings: Settings) -> dict[str, Any]:
    """Say in the words of requests by what way a source is asked; what it leaves open is the session's."""
    where = f"{target.scheme}://{target.host.strip('[]')}"  # it wins over what the environment may have
    proxies = {} if settings.proxy is None else {where: settings.proxy}
    cert = (settings.client_cert, settings.client_key or settings.client_cert)  # OpenSSL asks for a passphrase, alone
    return {"proxies": proxies, "verify": settings.ca or None, "cert": cert if settings.client_cert else None}


def _authorize(auth: Any, on_top: Fields, request: requests.PreparedRequest) -> requests.PreparedRequest:
    if auth:
        request = (HTTPBasicAuth(*auth) if isinstance(auth, tuple) else auth)(request)
    request.headers.update(on_top)
    return request


def _hide_redirect(response: requests.Response, **_: object) -> None:
    """Hide it from requests, which would read all of its body; `response.raw` still has its Location."""
    response.headers.pop("Location", None)


def _take(
    raw: BaseHTTPResponse, begin: Begin, stop: Cancellation, told: Callable[[], AbstractContextManager[None]]
) -> str | None:
    """Give head and body to where they belong; the Location of a redirect."""
    head = Head.of(raw.status, raw.headers.items())
    if head.status < 200:  # the answer itself is behind it
        what = f"HTTP {head.status} came first, from where requests does not read on: the transport libcurl does"
        raise HostError(what, what=what, cause="answer")
    location = head.get("location") if head.status in exchange.REDIRECTS else ""
    what = "the body comes with a Transfer-Encoding that requests does not take off"
    if head.status < 300 and head.fields.get("transfer-encoding", "chunked").lower() != "chunked":
        raise HostError(what, what=what, cause="answer")
    body, error = None, None
    try:
        body = None if location else begin(head)
    except Exception as e:
        error = e
    if body is None:
        if head.status >= 300 and head.length is not None and head.length <= exchange.DRAIN_BYTES:
            with suppress(TimeoutError):  # it is taken, so that its connection stays
                call_detached(raw.drain_conn, stop, exchange.DRAIN_S, "fsdm-drain")
        _cut(raw)
        if error is not None:
            raise error
        return location or None
    is_open = head.length is None and not head.is_chunked
    while True:
        # `iter_content` waits until a block is full, and loses it where the connection breaks
        with out_of_turn(), told():
            data = raw.read1(exchange.BLOCK_BYTES, decode_content=False)
        stop.check()  # a connection that was cut looks like the end of a body without a length
        if is_open and _CHUNK.match(data):  # the field was not seen
            raise HostError(what, what=what, cause="answer")
        if is_open and not data:
            what = "nothing came, and no word of how much there is"
            raise HostError(what, what=what)
        if not data:
            return None
        body(memoryview(data))
        is_open = False


def _cut(raw: BaseHTTPResponse) -> None:
    with suppress(OSError, RuntimeError, ValueError):  # it has ended
        raw.shutdown()
