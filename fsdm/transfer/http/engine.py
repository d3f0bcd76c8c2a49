"""Ask for URLs by libcurl, hop by hop, over connections that are kept.

TLS is verified; proxies, netrc and CA bundles are as requests finds them, where the owner has not said otherwise (see
`source_settings`). Redirects are followed here, so that each hop is under the policy and the settings of its own URL:
one from https to http is refused, and credentials do not go on to another server. A signed request follows none, for
what it leads to would be another request. Nothing is
retried here but what met a kept connection that its server had ended (libcurl does); no encoding is asked for, and no
cookie outlives a file. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from fsdm.model.errors import HostError, PolicyError, TransferError
from fsdm.transfer.http.handle import Handle
from fsdm.transfer.http.route import find_route
from fsdm.transfer.http.target import Target, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.limits import HttpVersion
    from fsdm.model.source_policy import Policy
    from fsdm.transfer.host_health import Hosts, Request
    from fsdm.transfer.http.exchange import Begin, Body
    from fsdm.transfer.http.head import Head
    from fsdm.transfer.http.route import Route, Settings
    from fsdm.transfer.http.source_settings import Sources

T = TypeVar("T")

REDIRECTS_MAX: Final = 30  # as requests has it


class Engine:
    """Asks for URLs; up to `kept` handles wait for the next request; used by all threads."""

    def __init__(
        self,
        hosts: Hosts,
        timeouts_s: tuple[float, float],
        policy: Policy,
        sources: Sources,
        http_version: HttpVersion,
        *,
        kept: int,
    ) -> None:
        self._hosts = hosts
        self._timeouts_s = timeouts_s  # for a connection, and of silence
        self._policy = policy
        self._sources = sources
        self._http_version = http_version
        self._kept = kept
        self._mutex = threading.Lock()
        self._idle: list[tuple[str, Handle]] = []  # by the origin that was asked, the longest unused first

    def get(self, url: str, headers: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """Ask for a URL, and give the answer to `begin`, which says where its body goes.

        Raises:
            TransferError: no answer came, or not to its end, or it redirects to where it may not.
            PolicyError: the policy refuses the URL, what it redirects to, or the address.
            StoppedError: `stop` was set.
            What `begin` and its body raise.
        """
        with about(url):
            self.get_target(read(url), headers, stop, begin)

    def get_target(self, target: Target, headers: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """Ask for a target, as `get` does for a URL; errors do not say of which one they are."""
        handle = self._lease(target.origin)
        try:
            handle.forget_cookies()
            ask = partial(self._ask, handle, headers, stop)
            follow(target, target.credentials, ask, begin, self._sources, self._hosts, stop)
        finally:
            self._give_back(target.origin, handle)

    def _ask(
        self,
        handle: Handle,
        headers: Mapping[str, str],
        stop: Cancellation,
        target: Target,
        credentials: str | None,
        begin: Begin,
    ) -> str | None:
        """Ask one server; the Location where it redirects."""
        stop.check()
        settings = self._sources.of(target)
        route = self._route(target, settings, stop)
        fields = {"Accept-Encoding": "identity", **settings.headers, **headers}
        if credentials:
            fields["Authorization"] = f"Basic {credentials}"
        elif route.credentials and target.is_plain:  # an object store's are its source's
            fields.setdefault("Authorization", f"Basic {route.credentials}")
        if target.signature is not None:
            fields |= target.signature.headers
        lines = [f"{name}: {value}".encode("latin-1") for name, value in fields.items()]

        def check_address(address: str) -> None:
            if not route.proxy:
                self._policy.addresses(target.host, [address])

        try:
            return handle.get(target, route, lines, begin, check_address, stop, self._hosts.get(target.origin))
        except (HostError, PolicyError):
            self._hosts.get(target.server).routes = {}  # what was found may hold no longer
            raise

    def _route(self, target: Target, settings: Settings, stop: Cancellation) -> Route:
        host, now = self._hosts.get(target.server), time.monotonic()
        route = host.routes.get(settings)
        if route is None or route.until < now:
            route = find_route(target, settings, self._policy, now, stop, self._timeouts_s[0])
            host.routes = {settings: route} | {
                other: known for other, known in host.routes.items() if known.until > now
            }
        return route

    # ------------------------------------------------------------------------------------------------ kept connections

    def _lease(self, origin: str) -> Handle:
        with self._mutex:
            for at in range(len(self._idle) - 1, -1, -1):
                if self._idle[at][0] == origin:
                    return self._idle.pop(at)[1]
        return Handle(*self._timeouts_s, self._http_version)

    def _give_back(self, origin: str, handle: Handle) -> None:
        with self._mutex:
            self._idle.append((origin, handle))
            unused = self._idle.pop(0) if len(self._idle) > self._kept else None
        if unused is not None:  # outside of the mutex: its connections end
            unused[1].close()


def read(url: str) -> Target:
    """Read a URL; raise TransferError where it is none of http or https."""
    try:
        return Target.of(url)
    except ValueError as e:
        raise TransferError("no URL of http or https whose host and port can be read") from e


def follow(
    target: Target,
    own: T | None,
    ask: Callable[[Target, T | None, Begin], str | None],
    begin: Begin,
    sources: Sources,
    hosts: Hosts,
    stop: Cancellation,
) -> None:
    """Ask for a target, and for what each answer redirects to, each under the bounds of its source.

    `ask` returns a Location, or None at the end. It is given `own`, which is for the first server alone, and None from
    where a redirect leads to another one; and a `begin` that tells which URL has answered, and the request to another
    server than the first.

    Raises:
        TransferError: there are too many redirects, or one leads to where it may not, or to a server that is down.
        StoppedError: `stop` was set.
        What `ask` raises.
    """
    first = target.origin
    for _ in range(REDIRECTS_MAX + 1):
        is_other = target.origin != first
        with (
            hosts.enter(target.url, stop.wait) if is_other else nullcontext() as request,
            sources.bounds(target).request(stop),
        ):
            try:
                location = ask(target, own, partial(_begin, begin, target.url, request))
            except HostError as e:
                if request is not None and e.is_charged:
                    request.failed(e.what)
                    e.is_charged = False
                raise
        if location is None:
            return
        to = target.redirected(location)
        own = own if target.keeps_credentials(to) else None
        target = to
    raise TransferError("too many redirects", cause="redirect")


def _begin(begin: Begin, url: str, request: Request | None, head: Head) -> Body | None:
    return begin(replace(head, url=url, request=request))


@contextmanager
def about(url: str) -> Iterator[None]:
    """Say in each error of which URL it is, without the secrets that it may carry."""
    try:
        yield
    except TransferError as e:
        e.args = (f"{shown(url)}: {e}",)
        raise
