"""The policy of sources: schemes, hosts, addresses and directories that files may come from. Pure.

Each URL, and each redirect, is checked before it is requested; an address where the connection is made: so DNS
rebinding, and hosts in decimal or octal, win nothing. Invariants: an address that is not known to be public is private;
a URL of any scheme but http and https is asked for only where it is allowed, for the owner's credentials go with it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from fsdm.model.errors import InvalidInputError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMES: Final = ("http", "https")
PORTS: Final = {"http": 80, "https": 443}

_SOURCE: Final = re.compile(r"([a-z][a-z0-9+.-]*)://((?:[^*\x00-\x1f\x7f]*/)?)(?:\*|([^*\x00-\x1f\x7f/]*))\Z")
_PATTERN: Final = re.compile(r"(\*\.)?([0-9a-z_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?\Z")
_GLOBAL_UNICAST: Final = ip_network("2000::/3")  # all that is assigned of IPv6 (RFC 4291 §2.4)
_NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052 §2.1
_NOT_PUBLIC: Final = (ip_network("192.0.0.0/24"), ip_network("3fff::/20"))  # not all versions of ipaddress know these


@dataclass(frozen=True, slots=True)
class Policy:
    """The hosts that may be asked (none: any), whether only public addresses may, and what else may be asked for.

    A pattern of `hosts` is a host, or `*.` and a domain, which any host below it matches; a port may follow, else any
    port does. One of `sources` is the beginning of URLs of another scheme, up to the end of a segment, and perhaps `*`
    (`s3://lake/public/*`). The files below each of `directories` may be asked for as `file://` and their path.

    Raises:
        InvalidInputError: a pattern is malformed, or a directory is not named in full.
    """

    hosts: tuple[str, ...] = ()
    deny_private: bool = False
    sources: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.hosts:
            check_pattern(pattern)
        for pattern in self.sources:
            check_source(pattern)
        for directory in self.directories:
            check_directory(directory)

    def check_url(self, url: str) -> None:
        """Raise PolicyError unless a URL may be requested, by its scheme, host and port."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise _refused(f"its scheme is {parts.scheme!r:.80}, which is neither http nor https")
        host = _host(parts.hostname or "")
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        if self.hosts and not any(_matches(pattern.lower(), host, port) for pattern in self.hosts):
            raise _refused(f"{host}:{port} is no host that is allowed (--allow-host)")

    def check_other(self, url: str) -> None:
        """Raise PolicyError unless a URL of another scheme than http, https and file may be asked for."""
        scheme, _, rest = url.partition("://")
        if climbs(rest):
            raise _refused("its path has . or .. in it, and may lead anywhere", "--allow-source")
        asked = f"{scheme.lower()}://{rest}"
        if not any(_begins(pattern, asked) for pattern in self.sources):
            raise _refused("it is below no source that is allowed (--allow-source)", "--allow-source")

    def find_directory(self, path: str) -> tuple[str, list[str]]:
        """Return the allowed directory that a path is below, the longest, and the names that lead from it to the file.

        Raises:
            PolicyError: there is none, or the path has `.`, `..` or an empty name in it.
        """
        names = path.split("/")[1:]
        for directory in sorted(map(posixpath.normpath, self.directories), key=len, reverse=True):
            above = directory.split("/")[1:]
            if names[: len(above)] == above and len(names) > len(above):
                below = names[len(above) :]
                if not {"", ".", ".."}.isdisjoint(below) or "\x00" in path:
                    break
                return directory, below
        raise _refused("it is not below a directory that is allowed (--allow-dir)", "--allow-dir")

    def addresses(self, host: str, found: Sequence[str]) -> Sequence[str]:
        """Return the addresses that may be connected to; raise PolicyError where none may.

        Addresses are texts, as getaddrinfo(3) writes them.
        """
        public = list(filter(is_public, found)) if self.deny_private else found
        if found and not public:
            raise _refused(f"{host} is at {found[0]}, which is not a public address (--deny-private)")
        return public

    def check_proxy(self, proxy: str) -> None:
        """Raise PolicyError where a proxy may not be used: it hides the addresses that it uses."""
        if self.deny_private:
            raise _refused(f"the proxy {proxy} hides whether an address is public (--deny-private)")

    def check_unseen_source(self) -> None:
        """Raise PolicyError where addresses matter, for a source that does not show them."""
        if self.deny_private:
            raise _refused("its source hides whether an address is public (--deny-private)", "--deny-private")

    def check_unseen(self) -> None:
        """Raise InvalidInputError where addresses matter, for a transport that does not show them."""
        if self.deny_private:
            raise InvalidInputError(
                "cannot be kept to by requests, which does not tell the address that it connects to",
                field="deny_private",
                hint='leave out --deny-private, or the session and transport = "requests"',
            )


ANY: Final = Policy()


def check_pattern(pattern: str) -> str:
    """Return a pattern of hosts (see `Policy`); raise InvalidInputError where it is malformed."""
    found = _PATTERN.match(pattern.lower())
    if found is None or (found[1] and found[2].startswith("[")) or int(found[3] or 1) not in range(1, 1 << 16):
        raise InvalidInputError(
            f"{pattern!r:.80} is no pattern of hosts",
            hint="a host, or *. and a domain, in ASCII, and perhaps a port: files.example.org, *.example.org:8080",
        )
    return pattern


def check_source(pattern: str) -> str:
    """Return a pattern of sources (see `Policy`); raise InvalidInputError where it is malformed."""
    found = _SOURCE.match(pattern)
    wrong, hint = "", "the beginning of URLs, and perhaps *: s3://lake, s3://lake/public/*"
    if found is None or climbs(pattern):
        wrong = "is no pattern of sources"
    elif found[1] in SCHEMES:
        wrong, hint = "needs no leave, unless --allow-host is given", "--allow-host bounds http and https"
    elif found[1] == "file":
        wrong, hint = "is a file of this machine", "allow its directory: --allow-dir /srv/in"
    if wrong:
        raise InvalidInputError(f"{pattern!r:.80} {wrong}", hint=hint)
    return pattern


def check_directory(path: str) -> str:
    """Return a directory whose files may be asked for; raise InvalidInputError where it is not named in full."""
    names = path.split("/")
    if not path.startswith("/") or not {".", ".."}.isdisjoint(names) or "\x00" in path or not path.strip("/"):
        hint = "the whole path of a directory, other than /: /srv/in"
        raise InvalidInputError(f"{path!r:.80} is no directory that can be allowed", hint=hint)
    return path


def _begins(pattern: str, url: str) -> bool:
    """Tell whether a URL is what a pattern says, or below it."""
    whole = pattern.removesuffix("*")
    return url.startswith(whole if whole.endswith("/") else f"{whole}/") or url == whole


def climbs(path: str) -> bool:
    """Tell whether a path has . or .. in it, also quoted: it may lead anywhere."""
    for _ in range(3):  # some servers unquote what a proxy before them has unquoted
        path = unquote(path)
    return any(part.partition(";")[0].strip() in {".", ".."} for part in re.split(r"[/\\]", path))


def _matches(pattern: str, host: str, port: int) -> bool:
    found = _PATTERN.match(pattern)
    if found is None or int(found[3] or port) != port:
        return False
    name = _host(found[2].strip("[]"))
    return host.endswith(f".{name}") if found[1] else host == name


def _host(host: str) -> str:
    """Return a host in its one written form: no dot at the end."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def is_public(address: str) -> bool:
    """Return whether an address is public, also for an IPv4 address inside an IPv6 one."""
    try:
        ip = _unwrapped(ip_address(address))
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and (ip.scope_id is not None or ip not in _GLOBAL_UNICAST):
        return False
    special = ip.is_multicast or ip.is_reserved or not ip.is_global
    return not special and not any(ip in network for network in _NOT_PUBLIC if network.version == ip.version)


def _unwrapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address in an IPv6 one: mapped (RFC 4291 §2.5.5.2), NAT64, 6to4."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _refused(why: str, option: str = "--allow-host") -> PolicyError:
    return PolicyError(
        f"refused by the policy: {why}",
        hint=f"allow the source where the reconciler is started: see {option} in fsdm run --help",
    )
