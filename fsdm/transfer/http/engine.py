"""Files over HTTP(S) by libcurl: whom a request goes to, hop by hop, and what its failures are called.

TLS is verified; proxies, netrc and CA bundles are as requests finds them. Redirects are followed here, so that each hop
is under the policy: one from https to http is refused, and credentials do not go on to another server. Nothing is
retried here but what met a kept connection that its server had ended (libcurl does); no encoding is asked for, and no
cookie outlives a file. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pycurl

from fsdm.model.errors import HostError, TransferError
from fsdm.model.limits import CONNECTIONS
from fsdm.model.source_policy import ANY, Policy
from fsdm.transfer.http.handle import Handle
from fsdm.transfer.http.target import Target, shown
from fsdm.transfer.http.way import find_way

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.errors import Cause
    from fsdm.transfer.host_health import Hosts
    from fsdm.transfer.http.handle import Begin
    from fsdm.transfer.http.way import Way

REDIRECTS_MAX: Final = 30  # as requests has it
_TLS: Final = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
    }
)
_BROKE: Final = ("SYSCALL", "reset", "unexpected eof")  # OpenSSL's words for a connection that ends in a handshake


class Engine:
    """Asks for URLs, over connections of which up to `kept` wait for the next request; used by all threads."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
        policy: Policy = ANY,
        kept: int = 2 * CONNECTIONS,
    ) -> None:
        self._hosts = hosts
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._policy = policy
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
                self._follow(handle, target, headers, stop, begin)
            finally:
                self._give_back(target.origin, handle)

    def _follow(
        self, handle: Handle, target: Target, headers: Mapping[str, str], stop: Cancellation, begin: Begin
    ) -> None:
        handle.forget_cookies()
        credentials = target.credentials
        for _ in range(REDIRECTS_MAX + 1):
            location = self._ask(handle, target, credentials, headers, stop, begin)
            if location is None:
                return
            to = target.redirected(location)
            credentials = credentials if target.keeps_credentials(to) else None
            target = to
        raise TransferError("too many redirects", cause="redirect")

    def _ask(
        self,
        handle: Handle,
        target: Target,
        credentials: str | None,
        headers: Mapping[str, str],
        stop: Cancellation,
        begin: Begin,
    ) -> str | None:
        stop.check()
        self._policy.check_url(target.url)
        way = self._way(target, stop)
        fields = {"Accept-Encoding": "identity", **headers}
        if credentials or way.credentials:
            fields["Authorization"] = f"Basic {credentials or way.credentials}"

        def check_address(address: str) -> None:
            if not way.proxy:
                self._policy.addresses(target.host, [address])

        try:
            lines = [f"{name}: {value}".encode("latin-1") for name, value in fields.items()]
            location = handle.get(target.url, way, lines, begin, check_address, stop)
        except pycurl.error as e:
            stop.check()
            self._hosts.get(target.origin).way = None  # what was found may hold no longer
            raise self._failure(e, handle, way) from e
        stop.check()  # a connection that was cut may look like the end of a body without a length
        return location

    def _way(self, target: Target, stop: Cancellation) -> Way:
        host, now = self._hosts.get(target.origin), time.monotonic()
        way = host.way
        if way is None or way.until < now:
            way = host.way = find_way(target, self._policy, now, stop, self._connect_timeout_s)
        return way

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
        del unused  # its connections are closed outside of the mutex

    # -------------------------------------------------------------------------------------------------------- failures

    def _failure(self, error: pycurl.error, handle: Handle, way: Way) -> HostError:
        """libcurl's error as ours."""
        code, said = int(error.args[0]), str(error.args[-1])
        cause = _cause(code, said)
        if cause == "timeout" and not handle.has_asked:
            what = f"no connection within {self._connect_timeout_s:g} s"
        elif cause == "connection" and handle.errno not in {0, errno.EINPROGRESS}:
            what = os.strerror(handle.errno)
        else:
            what = _printable(said) or f"libcurl's error {code}"
        what += way.through
        return HostError(what, what=what, transient=cause != "tls", cause=cause)


def _cause(code: int, said: str) -> Cause:
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return "timeout"
    broke_in_handshake = code == pycurl.E_SSL_CONNECT_ERROR and any(word in said for word in _BROKE)
    return "tls" if code in _TLS or (code == pycurl.E_SSL_CONNECT_ERROR and not broke_in_handshake) else "connection"


def _printable(said: str) -> str:
    return "".join(character for character in said if character.isascii() and character.isprintable())[:200]


def _read(url: str) -> Target:
    try:
        return Target.of(url)
    except ValueError as e:
        raise TransferError(f"no URL that can be asked: {e}") from e


@contextmanager
def _about(url: str) -> Iterator[None]:
    """Say in each error of which URL it is, without the secrets that it may carry."""
    try:
        yield
    except TransferError as e:
        e.args = (f"{shown(url)}: {e}",)
        raise
