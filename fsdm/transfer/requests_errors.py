"""The errors of requests and urllib3, in words that can be shown.

Invariant: none of their own messages is shown, but those on a missing CA bundle: they may have the secrets of a URL.
"""

from __future__ import annotations

import http.client
import re
import ssl
from typing import TYPE_CHECKING, Any, Final

import requests
from urllib3 import exceptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.errors import Cause

_TUNNEL: Final = re.compile(r"Tunnel connection failed: [0-9]+")
_SAID: Final[tuple[tuple[Any, str, Cause], ...]] = (
    (exceptions.ConnectTimeoutError, "no connection within {connect_s:g} s", "timeout"),
    ((exceptions.ReadTimeoutError, TimeoutError), "not a byte for {idle_s:g} s", "timeout"),
    (ssl.SSLCertVerificationError, "the certificate does not hold: {error.verify_message}", "tls"),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), "the connection ended amid TLS", "connection"),
    (ssl.SSLError, "TLS failed: {error.reason}", "tls"),
    (http.client.RemoteDisconnected, "the connection ended without an answer", "connection"),
    (http.client.BadStatusLine, "what answers does not speak HTTP", "connection"),
    (exceptions.InvalidChunkLength, "the chunks of the answer cannot be read", "answer"),
    (http.client.IncompleteRead, "the body ended too early", "connection"),
    (http.client.HTTPException, "the head of the answer cannot be read", "answer"),
    (exceptions.InvalidHeader, "the Content-Length of the answer contradicts itself", "answer"),
    (requests.exceptions.InvalidSchema, "requests has no adapter for this scheme, or no PySocks", "connection"),
)


def causes(error: object) -> Iterator[BaseException]:
    """Give an error, and those that it comes of."""
    if isinstance(error, BaseException):
        yield error
        for one in (*error.args, getattr(error, "reason", None), error.__cause__):
            yield from causes(one)


def in_words(told: Exception, connect_s: float, idle_s: float) -> tuple[str, Cause]:
    """Say what it was in the end, and its cause."""
    for error in causes(told):
        if isinstance(error, exceptions.NewConnectionError):
            continue  # its cause tells; to urllib3, it is a timeout
        if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
            return error.strerror, "connection"
        for kind, words, cause in _SAID:
            if isinstance(error, kind):
                return words.format(error=error, connect_s=connect_s, idle_s=idle_s), cause
        if isinstance(error, OSError) and (tunnel := _TUNNEL.match(str(error))):
            return tunnel[0], "connection"
        if type(error) is OSError:  # requests misses a bundle or certificate
            return str(error), "tls"
    is_tls = isinstance(told, requests.exceptions.SSLError)  # as of a key under a passphrase
    return f"requests failed: {type(error).__name__}", "tls" if is_tls else "connection"
