"""The environment's word on the way to a server, as requests finds it: proxy, CA bundle and netrc.

Where it says nothing, requests is not loaded to find that out: 12 MB, and a third of the start.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

import certifi

BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
NETRC_FILES: Final = ("~/.netrc", "~/_netrc")


class Said(NamedTuple):
    """`proxy` is "" for none; `ca` a file or directory; `auth` a name and a password."""

    proxy: str
    ca: str
    auth: tuple[str, str] | None


def said_of(url: str, proxy: str | None = None) -> Said:
    """Return what the environment says of a URL; a `proxy` that somebody else has named is kept ("": none)."""
    if not _is_anything_said():
        return Said(proxy or "", certifi.where(), None)
    import requests
    from requests.utils import get_netrc_auth, select_proxy

    found = requests.Session().merge_environment_settings(url, {}, None, None, None)
    if proxy is None:
        proxy = select_proxy(url, found["proxies"])
    return Said(proxy or "", certifi.where() if found["verify"] is True else str(found["verify"]), get_netrc_auth(url))


def _is_anything_said() -> bool:
    return (
        any(name.lower().endswith("_proxy") for name in os.environ)
        or any(os.environ.get(name) for name in BUNDLES)
        or "NETRC" in os.environ
        or any(os.path.exists(os.path.expanduser(path)) for path in NETRC_FILES)
    )
