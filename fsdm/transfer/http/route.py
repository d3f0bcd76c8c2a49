"""The route to a server: proxy, CA bundle and netrc of its source or as requests finds them, and addresses."""

from __future__ import annotations

import socket
from base64 import b64encode
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.detached import call_detached
from fsdm.model.errors import HostError
from fsdm.transfer.http.environment import said_of
from fsdm.transfer.http.target import authority, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.source_policy import Policy
    from fsdm.transfer.http.target import Target

BELIEVED_S: Final = 10.0
_PROXY_PORTS: Final = {"http": 80, "https": 443} | dict.fromkeys(("socks4", "socks4a", "socks5", "socks5h"), 1080)


@dataclass(frozen=True, slots=True)
class Access:
    """The way into an object store: where it is, and as whom. What is "" or None, the source does not say."""

    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    is_unsigned: bool = False
    key_id: str = ""
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    sas: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a source for a request: its headers, and the way to it, by which they are compared.

    `proxy` is "" for none; None, and a `ca` of "", for what the environment says.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    proxy: str | None = field(default=None, repr=False)
    ca: str = ""
    client_cert: str = ""
    client_key: str = ""
    access: Access = field(default=Access(), compare=False)


NONE: Final = Settings()


@dataclass(frozen=True, slots=True)
class Route:
    """The route to one origin, believed `until` (monotonic).

    `proxy` is "" for none; `ca` a file or directory; `credentials` those of netrc, in base64; `resolve` is for libcurl.
    """

    until: float
    proxy: str = field(repr=False)
    ca: str
    client_cert: str
    client_key: str
    credentials: str | None = field(repr=False)
    resolve: tuple[str, ...]

    @property
    def through(self) -> str:
        """Name the proxy in a message, if there is one."""
        return f" (by way of the proxy {shown(self.proxy)})" if self.proxy else ""


def find_route(
    target: Target, settings: Settings, policy: Policy, now: float, stop: Cancellation, timeout_s: float
) -> Route:
    """Find the route to a target in the way of its source, in the environment, in netrc and in the DNS.

    Raises:
        HostError: a name has no address, or did not get one in time.
        PolicyError: the host, the proxy, or all addresses are refused.
        StoppedError: `stop` was set.
    """
    policy.check_url(target.url)
    proxy, ca, auth = said_of(target.url, settings.proxy)
    addresses: list[str] = []
    if proxy:
        proxy, host, port = read_proxy(proxy)
        policy.check_proxy(shown(proxy))
        addresses += _addresses(host, port, "the proxy ", policy, stop, timeout_s)
    if not proxy or proxy.startswith(("socks4:", "socks5:")):  # the others look up the target themselves
        addresses += _addresses(target.host.strip("[]"), target.port, "", policy, stop, timeout_s)
    credentials = None if auth is None else b64encode(":".join(auth).encode()).decode()
    cert, key, until = settings.client_cert, settings.client_key, now + BELIEVED_S
    return Route(until, proxy, settings.ca or ca, cert, key, credentials, tuple(addresses))


def read_proxy(proxy: str) -> tuple[str, str, int]:
    """Return a proxy's URL with its port, its host and port; raises HostError for what is none."""
    scheme, _, rest = (proxy if "://" in proxy else f"http://{proxy}").partition("://")
    try:
        default = _PROXY_PORTS[scheme.lower()]
        userinfo, host, port = authority(rest.partition("/")[0])
    except (ValueError, KeyError) as e:
        what = f"the proxy that is named cannot be used: {shown(proxy)}"
        raise HostError(what, what=what) from e
    return f"{scheme}://{userinfo}{'@' * bool(userinfo)}{host}:{port or default}", host.strip("[]"), port or default


def _addresses(host: str, port: int, whose: str, policy: Policy, stop: Cancellation, timeout_s: float) -> Iterator[str]:
    """The look-up that libcurl would do otherwise, and could not be stopped in, as it takes one."""
    try:
        found = policy.addresses(host, look_up(host, port, stop, timeout_s))
    except (OSError, UnicodeError) as e:
        what = f"no address of {whose}{host}: {getattr(e, 'strerror', None) or e}"
        raise HostError(what, what=what, cause="timeout" if isinstance(e, TimeoutError) else "connection") from e
    usable = [address for address in found if "%" not in address]
    if usable and not _is_address(host):
        yield f"+{host}:{port}:{','.join(usable)}"


def look_up(host: str, port: int, stop: Cancellation, timeout_s: float) -> list[str]:
    """The addresses of a host, for TCP, the preferred first.

    getaddrinfo(3) cannot be cut, and may take half a minute (libcurl waits for its own when a handle is closed): so a
    thread asks that may be left alone until the resolver's own timeouts.

    Raises:
        StoppedError: `stop` was set meanwhile.
        TimeoutError: there was no answer in time.
        OSError, UnicodeError: there is none; the name is no name.
    """
    if _is_address(host):
        return _ask(host, port)
    return call_detached(partial(_ask, host, port), stop, timeout_s, "fsdm-lookup")


def _ask(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
