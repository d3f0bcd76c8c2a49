"""The target of a request: a URL, read once, and sent as it was read.

libcurl is given what is made here, without user and password: so there is one reader of a URL, not two that may differ
(a backslash in the authority is another host for one than for the other).
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from fsdm.model.errors import PolicyError, TransferError
from fsdm.model.source_policy import PORTS

if TYPE_CHECKING:
    from collections.abc import Mapping

_AUTHORITY: Final = re.compile(  # RFC 3986 §3.2, and hosts of any letters
    r"(?:([^\x00-\x20\x7f\\]*)@)?"
    r"(\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?\]|[^\x00-\x20\x7f\\:\[\]<>^`{|}%\"@]+)"
    r"(?::([0-9]{0,5}))?"
)
_SENT: Final = "!#$%&'()*+,/:;=?@[]~"  # and what need not be quoted (RFC 3986 §2)


def shown(url: str) -> str:
    """Show a URL without user, password, query and fragment; nothing of an unreadable one."""
    try:
        parts = urlsplit(url)
        _, host, port = authority(parts.netloc) if parts.netloc or parts.scheme in PORTS else ("", "", None)
    except ValueError:
        return "(no URL)"
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path}" if parts.scheme else "(no URL)"


def origin_of(url: str) -> str:
    """scheme://host:port of a URL, lower case, without the default port; of another scheme, what stands for a host.

    It is "" for no URL.
    """
    scheme, colon, rest = url.partition("://")
    return _origin(scheme.lower(), re.split(r"[/?#]", rest, maxsplit=1)[0]) if colon else ""


@lru_cache(1024)  # most files come from few hosts
def _origin(scheme: str, netloc: str) -> str:
    if scheme not in PORTS:
        return f"{scheme}://{netloc.rpartition('@')[2]}"
    try:
        return Target.of(f"{scheme}://{netloc}").origin
    except ValueError:
        return ""


def authority(netloc: str) -> tuple[str, str, int | None]:
    """Split userinfo, host and port; raise ValueError where two readers might differ.

    The message shows nothing of it.
    """
    found = _AUTHORITY.fullmatch(netloc)
    port = None if found is None else int(found[3]) if found[3] else None
    if found is None or (port or 0) >= 1 << 16:
        raise ValueError("its host and port cannot be read")
    return found[1] or "", found[2].lower(), port


class Located(Protocol):
    """The place of a URL, by which its settings are found: the origin, and the path from its slash on, if any."""

    @property
    def origin(self) -> str: ...

    @property
    def path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a URL of another scheme than http and https."""

    origin: str
    path: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Take a URL as it is: nothing is unquoted, and all behind the host is its path."""
        origin, rest = origin_of(url), url.partition("://")[2]
        start = re.search(r"[/?#]|\Z", rest)
        return cls(origin, rest[start.start() :] if start else "")


def locate(url: str) -> Located:
    """Return the place of a URL; raises ValueError where it is none."""
    return Target.of(url) if url.partition(":")[0].lower() in PORTS else Place.of(url)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that libcurl is to make: of what kind (`provider1:provider2:region:service`), and by which key.

    `headers` go with it, and are under it.
    """

    kind: str
    user: str
    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """The method of a request that is no GET, and its body."""

    method: Literal["PUT", "DELETE"]
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One request's URL as it is sent, its place, and its credentials.

    `credentials` are what the URL itself carried, base64 of UTF-8 (RFC 7617), or None. Where a URL of another scheme is
    asked for by this one, `origin` and `path` are that one's; `server` is the origin of `url`.
    """

    url: str = field(repr=False)
    origin: str
    scheme: str
    host: str
    port: int
    credentials: str | None = field(repr=False)
    server: str
    path: str
    signature: Signature | None = None
    upload: Upload | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether it stands for no URL but its own."""
        return self.origin == self.server

    @classmethod
    def of(cls, url: str) -> Self:
        """Read an http(s) URL; raises ValueError where it is none."""
        parts = urlsplit(url)
        if parts.scheme not in PORTS:
            raise ValueError(f"its scheme is {parts.scheme!r:.80}")
        userinfo, host, port = authority(parts.netloc)
        if not host.isascii():
            host = host.encode("idna").decode()
        own = f":{port}" if port not in {None, PORTS[parts.scheme]} else ""
        origin = f"{parts.scheme}://{host}{own}"
        path = quote(parts.path, _SENT) or "/"
        query = f"?{quote(parts.query, _SENT)}" if parts.query else ""
        user, _, password = userinfo.partition(":")
        secret = b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode() if userinfo else None
        port = port or PORTS[parts.scheme]
        return cls(origin + path + query, origin, parts.scheme, host, port, secret, server=origin, path=path)

    def redirected(self, location: str) -> Target:
        """Return the target that a Location leads to (§10.2.2), without the user that it may name.

        Raises:
            PolicyError: its scheme is neither http nor https.
            TransferError: it is no URL, or leads from https to http.
        """
        try:
            url = urljoin(self.url, location.encode("latin-1").decode())
            if (scheme := urlsplit(url).scheme) not in PORTS:
                raise PolicyError(f"redirected to a URL of {scheme!r:.80}; only http and https are followed")
            to = Target.of(url)
        except ValueError as e:
            raise TransferError("redirected to what is no URL of http or https", cause="redirect") from e
        if self.scheme == "https" and to.scheme == "http":
            what = f"redirected from https to {shown(to.url)}, which is refused"
            raise TransferError(what, cause="redirect")
        return to

    def keeps_credentials(self, to: Target) -> bool:
        """Tell whether a redirect leads to the same server, or from its http to its https."""
        upgraded = (self.scheme, self.port, to.scheme, to.port) == ("http", 80, "https", 443)
        return self.origin == to.origin or (upgraded and self.host == to.host)
