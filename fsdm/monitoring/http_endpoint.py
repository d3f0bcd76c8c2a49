"""The HTTP endpoint: /metrics, /healthz, /readyz and a page on one address, in few threads.

A connection gets DEADLINE_S seconds in all, and one more than MANY ends the oldest: so a client that is slow or silent
keeps neither a thread nor a probe. One that lasts (events of the page) gets so much for each write instead, and there
are at most LASTING of these, which take no place from the others. No thread keeps the process from ending, and none
looks up a name. Any client may ask: it can change nothing, and outside the page there is no id, URL, host or path in
an answer.
"""

from __future__ import annotations

import fcntl
import math
import socket
import socketserver
import struct
import termios
import threading
import time
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from fsdm.concurrency.log import Log
from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from fsdm.monitoring.health import Health

logger = Log("fsdm")

MANY: Final = 16
LASTING: Final = 16
DEADLINE_S: Final = 10.0
BACKLOG: Final = 128
INDEX: Final = "/metrics\n/healthz\n/readyz\n"


def parse_address(text: str, option: str = "--metrics-addr") -> tuple[str, int]:
    """Parse HOST:PORT, [IPV6]:PORT, or :PORT for every address; port 0 is any that is free.

    Raises:
        InvalidInputError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdecimal() and int(port) < 65536) or (":" in host and not bracketed):
        hint = "give HOST:PORT, [IPV6]:PORT, or :PORT for every address, as 127.0.0.1:9464"
        raise InvalidInputError(f"{text!r:.100} is no address", field=option, hint=hint)
    return host[1:-1] if bracketed else host, int(port)


class Connection:
    """A connection that a request came by, for an answer that lasts: `environ["fsdm.connection"]`."""

    def __init__(self, endpoint: Endpoint, request: socket.socket) -> None:
        self._endpoint = endpoint
        self._request = request

    def keep(self, seconds: float = math.inf) -> bool:
        """End it only after so many seconds; return False, and change nothing, where too many last."""
        return self._endpoint.keep(self._request, time.monotonic() + seconds)

    def unread_bytes(self) -> int:
        """Tell how much of what was written the other side has not acknowledged: tcp(7), SIOCOUTQ."""
        return int(struct.unpack("i", fcntl.ioctl(self._request, termios.TIOCOUTQ, bytes(4)))[0])


class Endpoint(socketserver.ThreadingMixIn, WSGIServer):
    """Serves health and metrics. Until `metrics` is set, /metrics says that it is starting.

    A `page` answers for the paths that are none of these.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: str,
        *,
        health: Callable[[], Health],
        readiness: Callable[[], Health],
        page: WSGIApplication | None = None,
        option: str = "--metrics-addr",
    ) -> None:
        """Listen; no request is answered before `serving`. `option` is what has given the address.

        Raises:
            InvalidInputError: the address is none, or cannot be had.
        """
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        try:
            self.socket = _listen(*parse_address(address, option))
        except OSError as e:
            hint = "another process may listen there; port 0 takes any that is free"
            raise InvalidInputError(f"{address}: {e.strerror or e}", field=option, hint=hint) from e
        host, self.server_port = self.server_address = self.socket.getsockname()[:2]
        self.server_name = "fsdm"  # not asked of DNS
        self.url = f"http://[{host}]:{self.server_port}" if ":" in host else f"http://{host}:{self.server_port}"
        self.setup_environ()
        self.set_app(self._answer)
        self.metrics: WSGIApplication | None = None
        self._page = page
        self._checks = {"/healthz": health, "/readyz": readiness}
        self._mutex = threading.Lock()
        self._deadlines: dict[Any, float] = {}  # of the connections whose threads run, the oldest first
        self._lasting: dict[Any, float] = {}  # of those that last

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests, until the end of the block."""
        thread = threading.Thread(target=self.serve_forever, name="fsdm-endpoint", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/metrics" and self.metrics is not None:
            return self.metrics(environ, start)
        status, text = (200 if path == "/" else 404), INDEX
        if method not in {"GET", "HEAD"}:
            status, text = 405, "GET or HEAD\n"
        elif self._page is not None and path not in {"/metrics", *self._checks}:
            return self._page(environ, start)
        elif path == "/metrics":
            status, text = 503, "starting\n"
        elif path in self._checks:
            found = self._checks[path]()
            status, text = (200 if found.is_well else 503), f"{found.why}\n"
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
        start(f"{status} {HTTPStatus(status).phrase}", headers)
        return [] if method == "HEAD" else [text.encode()]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._mutex:
            full = len(self._deadlines) >= 2 * MANY  # those that were ended have not all gone yet
            if not full:
                self._deadlines[request] = time.monotonic() + DEADLINE_S
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def keep(self, request: socket.socket, deadline: float) -> bool:
        """Let a connection last until then (monotonic); return False where too many others do."""
        with self._mutex:
            if request not in self._lasting and len(self._lasting) >= LASTING:
                return False
            self._deadlines.pop(request, None)
            self._lasting[request] = deadline
            return True

    def service_actions(self) -> None:
        """End the connections that are overdue, and the oldest of too many."""
        with self._mutex:
            too_many, now = len(self._deadlines) - MANY, time.monotonic()
            overdue = [request for request, deadline in self._lasting.items() if deadline < now]
            for number, (request, deadline) in enumerate(self._deadlines.items()):
                if number < too_many or deadline < now:
                    overdue.append(request)
            for request in overdue:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._mutex:
            super().shutdown_request(request)
            self._deadlines.pop(request, None)
            self._lasting.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the base class's signature
        logger.debug("a connection to the endpoint broke", exc_info=True)


def _listen(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return socket.create_server(found[0][4][:2], family=found[0][0], backlog=BACKLOG)


class _Handler(WSGIRequestHandler):
    server: Endpoint

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "fsdm.connection": Connection(self.server, self.connection)}

    def log_message(self, *_: Any) -> None:
        return
