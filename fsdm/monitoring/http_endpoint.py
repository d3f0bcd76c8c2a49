"""The HTTP endpoint: /metrics, /healthz and /readyz on one address, in few threads.

A connection gets DEADLINE_S seconds in all. There are at most MANY of them: one more ends the oldest. So a client that
only connects, or reads a byte a second, keeps neither a thread nor a probe; one that asks in one go is answered. No
thread here keeps the process from ending, and none looks up a name. Any client that reaches the address may ask: it can
change nothing, and there is no id, URL, host or path in an answer.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from fsdm.monitoring.health import Health

logger = logging.getLogger("fsdm")

MANY: Final = 16
DEADLINE_S: Final = 10.0
BACKLOG: Final = 128
INDEX: Final = "/metrics\n/healthz\n/readyz\n"


def parse_address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT, [IPV6]:PORT, or :PORT for every address; port 0 is any that is free.

    Raises:
        InvalidInputError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdecimal() and int(port) < 65536) or (":" in host and not bracketed):
        hint = "give HOST:PORT, [IPV6]:PORT, or :PORT for every address, as 127.0.0.1:9464"
        raise InvalidInputError(f"{text!r:.100} is no address", field="--metrics-addr", hint=hint)
    return host[1:-1] if bracketed else host, int(port)


class Endpoint:
    """Serves health and metrics. Until `metrics` is set, /metrics says that it is starting."""

    def __init__(self, address: str, *, health: Callable[[], Health], readiness: Callable[[], Health]) -> None:
        """Listen; no request is answered before `serving`.

        Raises:
            InvalidInputError: the address is none, or cannot be had.
        """
        self.metrics: WSGIApplication | None = None
        self._checks = {"/healthz": health, "/readyz": readiness}
        host, port = parse_address(address)
        try:
            self._server = _Server(_listen(host, port), self._answer)
        except OSError as e:
            hint = "another process may listen there; port 0 takes any that is free"
            raise InvalidInputError(f"{address}: {e.strerror or e}", field="--metrics-addr", hint=hint) from e

    @property
    def url(self) -> str:
        """The URL of the address that it listens at."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests, until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="fsdm-endpoint", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/metrics" and self.metrics is not None:
            return self.metrics(environ, start)
        status, text = self._say(path) if method in {"GET", "HEAD"} else (405, "GET or HEAD\n")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
        start(f"{status} {HTTPStatus(status).phrase}", headers)
        return [] if method == "HEAD" else [text.encode()]

    def _say(self, path: str) -> tuple[int, str]:
        if path in self._checks:
            found = self._checks[path]()
            return 200 if found.is_well else 503, f"{found.why}\n"
        if path == "/metrics":
            return 503, "starting\n"
        return 200 if path == "/" else 404, INDEX


def _listen(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return socket.create_server(found[0][4][:2], family=found[0][0], backlog=BACKLOG)


class _Handler(WSGIRequestHandler):
    timeout = DEADLINE_S

    def log_message(self, *_: Any) -> None:
        return


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, app: WSGIApplication) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        self.server_name, self.server_port = "fsdm", self.server_address[1]  # not asked of DNS
        self.setup_environ()
        self.set_app(app)
        self._mutex = threading.Lock()
        self._open: dict[Any, float] = {}  # connections with when they came, the oldest first
        self._threads_count = 0  # those of connections that were ended have not all gone yet

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._mutex:
            full = self._threads_count >= 2 * MANY
            if not full:
                self._threads_count += 1
                self._open[request] = time.monotonic()
                while len(self._open) > MANY:
                    self._end(next(iter(self._open)))
        if full:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # can't start new thread
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def service_actions(self) -> None:
        with self._mutex:
            overdue = time.monotonic() - DEADLINE_S
            for request in [one for one, since in self._open.items() if since < overdue]:
                self._end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the base class's signature
        logger.debug("a connection to the endpoint broke", exc_info=True)

    def _end(self, request: socket.socket) -> None:
        del self._open[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def _forget(self, request: socket.socket) -> None:
        with self._mutex:
            self._open.pop(request, None)
            self._threads_count -= 1
