"""Ask for URLs by libcurl, hop by hop, over connections that are kept.

TLS is verified; proxies, netrc and CA bundles are as requests finds them, where the owner has not said otherwise (see
`source_settings`). Redirects are followed here, so that each hop is under the policy and the settings of its own URL:
one from https to http is refused, and credentials do not go on to another server. Nothing is
retried here but what met a kept connection that its server had ended (libcurl does); no encoding is asked for, and no
cookie outlives a file. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import HostError, PolicyError, TransferError
from fsdm.model.limits import CONNECTIONS
from fsdm.model.source_policy import ANY, Policy
from fsdm.transfer.http.handle import Handle
from fsdm.transfer.http.route import find_route
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import Target, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.host_health import Hosts
    from fsdm.transfer.http.exchange import Begin, Body
    from fsdm.transfer.http.head import Head
    from fsdm.transfer.http.route import Route, Settings

REDIRECTS_MAX: Final = 30  # as requests has it


class Engine:
    """Asks for URLs; up to `kept` handles wait for the next request; used by all threads."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
        policy: Policy = ANY,
        sources: Sources | None = None,
        kept: int = CONNECTIONS,
    ) -> None:
        self._hosts = hosts
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._policy = policy
        self._sources = sources or Sources()
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
        with _about(url):
            target = _read(url)
            handle = self._lease(target.origin)
            try:
                handle.forget_cookies()
                self._follow(target, partial(self._ask, handle, headers, begin, stop), stop)
            finally:
                self._give_back(target.origin, handle)

    def _follow(self, target: Target, ask: Callable[[Target, str | None], str | None], stop: Cancellation) -> None:
        credentials = target.credentials
        for _ in range(REDIRECTS_MAX + 1):
            with self._sources.bounds(target).request(stop):
                location = ask(target, credentials)
            if location is None:
                return
            to = target.redirected(location)
            credentials = credentials if target.keeps_credentials(to) else None
            target = to
        raise TransferError("too many redirects", cause="redirect")

    def _ask(
        self,
        handle: Handle,
        headers: Mapping[str, str],
        begin: Begin,
        stop: Cancellation,
        target: Target,
        credentials: str | None,
    ) -> str | None:
        """Ask one server; the Location where it redirects."""
        stop.check()
        settings = self._sources.of(target)
        route = self._route(target, settings, stop)
        fields = {"Accept-Encoding": "identity", **settings.headers, **headers}
        if credentials:
            fields["Authorization"] = f"Basic {credentials}"
        elif route.credentials:
            fields.setdefault("Authorization", f"Basic {route.credentials}")
        lines = [f"{name}: {value}".encode("latin-1") for name, value in fields.items()]

        def check_address(address: str) -> None:
            if not route.proxy:
                self._policy.addresses(target.host, [address])

        try:
            return handle.get(target.url, route, lines, partial(_begin, begin, target.url), check_address, stop)
        except (HostError, PolicyError):
            self._hosts.get(target.origin).routes = {}  # what was found may hold no longer
            raise

    def _route(self, target: Target, settings: Settings, stop: Cancellation) -> Route:
        host, now = self._hosts.get(target.origin), time.monotonic()
        route = host.routes.get(settings)
        if route is None or route.until < now:
            route = find_route(target, settings, self._policy, now, stop, self._connect_timeout_s)
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
        return Handle(self._connect_timeout_s, self._idle_timeout_s)

    def _give_back(self, origin: str, handle: Handle) -> None:
        with self._mutex:
            self._idle.append((origin, handle))
            unused = self._idle.pop(0) if len(self._idle) > self._kept else None
        if unused is not None:  # outside of the mutex: its connections end
            unused[1].close()


def _read(url: str) -> Target:
    try:
        return Target.of(url)
    except ValueError as e:
        raise TransferError("no URL of http or https whose host and port can be read") from e


def _begin(begin: Begin, url: str, head: Head) -> Body | None:
    """Tell which URL has answered."""
    return begin(replace(head, url=url))


@contextmanager
def _about(url: str) -> Iterator[None]:
    """Say in each error of which URL it is, without the secrets that it may carry."""
    try:
        yield
    except TransferError as e:
        e.args = (f"{shown(url)}: {e}",)
        raise
