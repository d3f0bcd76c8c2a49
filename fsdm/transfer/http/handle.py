"""A libcurl handle: its connections, kept for the next request, and one request at a time.

libcurl lets go of the GIL while it works, and takes it for each callback: so with a small answer it works in a turn,
and what is given up is the wait alone. A large answer comes out of turn. A stop wakes the wait.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Final

import pycurl

from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import HostError
from fsdm.transfer.http.exchange import Blocks, Exchange
from fsdm.transfer.http.sockets import Sockets
from fsdm.transfer.http.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.errors import Cause
    from fsdm.model.limits import HttpVersion
    from fsdm.transfer.host_health import Host
    from fsdm.transfer.http.exchange import Begin
    from fsdm.transfer.http.route import Route
    from fsdm.transfer.http.target import Signature, Target

_ALWAYS: Final[Mapping[int, object]] = {
    pycurl.NOSIGNAL: 1,
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.HTTP09_ALLOWED: 0,
    pycurl.HTTP_CONTENT_DECODING: 0,
    pycurl.FOLLOWLOCATION: 0,
    pycurl.PATH_AS_IS: 1,
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.NOPROXY: "",  # the environment is read by `route`
    pycurl.COOKIEFILE: "",  # they are kept within a chain of redirects, see `forget_cookies`
    pycurl.SSL_VERIFYPEER: 1,
    pycurl.SSL_VERIFYHOST: 2,
    pycurl.TCP_KEEPALIVE: 1,
    pycurl.BUFFERSIZE: 256 << 10,  # 64 kB cost a tenth more CPU seconds a GB with eight transfers
    pycurl.USERAGENT: "fsdm",
}


_VERSIONS: Final[Mapping[HttpVersion, int]] = {
    "1.1": pycurl.CURL_HTTP_VERSION_1_1,
    "2": pycurl.CURL_HTTP_VERSION_2TLS,
}


class Handle:
    """An easy handle; used by one thread at a time."""

    def __init__(self, connect_timeout_s: float, idle_timeout_s: float, http_version: HttpVersion) -> None:
        self.sockets = Sockets()
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._http_version = _VERSIONS[http_version]
        self._blocks = Blocks()
        self._curl = pycurl.Curl()
        self._waits = Waits()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, 2)  # its server's, and that of a redirect
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._waits.watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._waits.set_timer)
        self._client = ("", "")  # its certificate and key
        self._signs = self._uploads = False
        self._set_up()

    def _set_up(self) -> None:
        self._set(_ALWAYS)
        self._set(
            {
                pycurl.HTTP_VERSION: self._http_version,
                pycurl.OPENSOCKETFUNCTION: self.sockets.opens,
                pycurl.SOCKOPTFUNCTION: self.sockets.is_made,
            }
        )

    def _set(self, options: Mapping[int, object]) -> None:
        for option, value in options.items():
            self._curl.setopt(option, value)

    def close(self) -> None:
        """End its connections now: in a cycle of references, it and its descriptors would wait for the collector."""
        self._multi.close()
        self._curl.close()
        self._waits.close()

    def forget_cookies(self) -> None:
        """Let no cookie go from one file's requests to another's."""
        self._curl.setopt(pycurl.COOKIELIST, "ALL")

    def get(
        self,
        target: Target,
        route: Route,
        headers: Sequence[bytes],
        begin: Begin,
        check_address: Callable[[str], None],
        stop: Cancellation,
        host: Host,
    ) -> str | None:
        """Ask once; the Location where the answer redirects, else None: then all of it came.

        Raises:
            HostError: no answer came, or not to its end.
            StoppedError: `stop` was set.
            Or what `begin`, its body or `check_address` raised.
        """
        is_bare = target.scheme == "http" and not route.proxy
        exchange = Exchange(
            begin,
            stop,
            host.within,
            self._idle_timeout_s,
            self._blocks,
            self.sockets if is_bare else None,
            self._waits.woken_fd,
            follows=target.is_plain,
        )
        connect_timeout_s = host.within(self._connect_timeout_s)
        self._set_request(target, route, headers, exchange)
        self._curl.setopt(pycurl.CONNECTTIMEOUT_MS, round(connect_timeout_s * 1000))
        self.sockets.guard(check_address)
        failure = None
        stop.guard(self._waits.wake)
        try:
            self._perform(exchange)
        except pycurl.error as e:
            failure = e
        finally:
            stop.release(self._waits.wake)
            self.sockets.release()
            is_over = exchange.end(self._curl.getinfo(pycurl.SIZE_DOWNLOAD_T))
        stop.check()  # a connection that was cut may look like the end of a body without a length
        if exchange.error is not None:
            raise exchange.error
        if failure is not None and not is_over and not exchange.is_bypassed:
            connecting_s = connect_timeout_s if exchange.asked_at is None else None
            raise self.sockets.refused or self._as_ours(failure, route, connecting_s)
        if exchange.head is None:  # libcurl passes a head that is cut off
            what = "nothing came but the beginning of a head"
            raise HostError(what, what=what)
        return exchange.location

    def _perform(self, exchange: Exchange) -> None:
        """Have libcurl do the request, to its end or as long as its answer is wanted; raises pycurl.error."""
        self._multi.add_handle(self._curl)
        try:
            _, running = self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            if running and self._goes_on(exchange, while_small=True):
                with out_of_turn():
                    self._goes_on(exchange, while_small=False)
            _, _, failed = self._multi.info_read()
            if failed:
                raise pycurl.error(*failed[0][1:])
        finally:
            self._multi.remove_handle(self._curl)

    def _goes_on(self, exchange: Exchange, *, while_small: bool) -> bool:
        """Do what there is to do until the request ends; True where the answer is large, and ends the small ones."""
        received = partial(self._curl.getinfo, pycurl.SIZE_DOWNLOAD_T)
        running, has_come = 1, True
        while running and exchange.goes_on(received, has_come=has_come):
            if while_small and exchange.is_large:
                return True
            ready = self._waits.wait(exchange.look_at)
            has_come = bool(ready)
            for fd, events in ready:
                _, running = self._multi.socket_action(fd, events)
        return False

    def _set_request(self, target: Target, route: Route, headers: Sequence[bytes], exchange: Exchange) -> None:
        is_directory = os.path.isdir(route.ca)
        ca_file, ca_path = (None, route.ca) if is_directory else (route.ca, None)
        client, signature = (route.client_cert, route.client_key), target.signature
        if client != self._client or (self._signs and signature is None) or self._uploads:
            self._become(client)
        if signature is not None:
            self._sign(signature)
        if (upload := target.upload) is not None:
            self._uploads = True
            self._set({pycurl.CUSTOMREQUEST: upload.method, pycurl.POSTFIELDS: upload.data})
        self._set(
            {
                pycurl.URL: target.url,
                pycurl.HTTPHEADER: headers,
                pycurl.PROXY: route.proxy.encode(),  # "" is none, whatever the environment says
                pycurl.RESOLVE: route.resolve,
                pycurl.CAINFO: ca_file,
                pycurl.CAPATH: ca_path,
                pycurl.PROXY_CAINFO: ca_file,
                pycurl.PROXY_CAPATH: ca_path,
                pycurl.PREREQFUNCTION: exchange.asks,
                pycurl.HEADERFUNCTION: exchange.lines.append,
                pycurl.WRITEFUNCTION: self._blocks.write,
            }
        )

    def _sign(self, signature: Signature) -> None:
        """Sign the next request, which has neither . nor .. in its path: libcurl would not sign these as they are."""
        self._signs = True
        self._set(
            {
                pycurl.PATH_AS_IS: 0,
                pycurl.AWS_SIGV4: signature.kind,
                pycurl.USERNAME: signature.user,
                pycurl.PASSWORD: signature.secret,
            }
        )

    def _become(self, client: tuple[str, str]) -> None:
        """Show another certificate: libcurl keeps the connections that were made with the last one to that one."""
        self._signs = self._uploads = False
        self._curl.reset()  # pycurl cannot unset one by itself; connections and cookies stay
        self._set_up()
        cert, key = self._client = client
        if cert:
            self._set({pycurl.SSLCERT: cert, pycurl.SSLKEY: key or cert, pycurl.KEYPASSWD: ""})  # "": or it would ask

    def _as_ours(self, error: pycurl.error, route: Route, connecting_s: float | None) -> HostError:
        """libcurl's error: what the system said, or its own sentence, without what cannot be shown.

        `connecting_s` is the bound on the time for the connection, where there was none yet.
        """
        code, said = int(error.args[0]), str(error.args[-1])
        cause = _cause(code, said)
        number = int(self._curl.getinfo(pycurl.OS_ERRNO))
        if cause == "timeout" and connecting_s is not None:
            what = f"no connection within {connecting_s:g} s"
        elif cause == "connection" and number not in {0, errno.EINPROGRESS}:
            what = os.strerror(number)
        else:
            what = "".join(character for character in said if character.isascii() and character.isprintable())[:200]
        what = (what or f"libcurl's error {code}") + route.through
        if connecting_s is None and (code in _ANSWER or (code == pycurl.E_RECV_ERROR and said.startswith("chunk"))):
            cause = "answer"
        return HostError(what, what=what, transient=cause != "tls", cause=cause)


_TLS: Final = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_BAD_FUNCTION_ARGUMENT,  # the key of a client that cannot be read
    }
)
_TOO_LARGE: Final = 100  # CURLE_TOO_LARGE
_ANSWER: Final = frozenset({pycurl.E_FTP_WEIRD_SERVER_REPLY, pycurl.E_BAD_CONTENT_ENCODING, _TOO_LARGE})
_BROKE: Final = ("SYSCALL", "reset", "unexpected eof")  # OpenSSL's words for a connection that ends in a handshake


def _cause(code: int, said: str) -> Cause:
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return "timeout"
    return "tls" if code in _TLS and not any(word in said for word in _BROKE) else "connection"
