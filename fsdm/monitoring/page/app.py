"""The page as a WSGI application: one HTML file, events, and answers about maps, chunks and searches.

It can change nothing. It answers only to a Host that is an address, localhost, this machine's name, or the name that it
was told to listen at: so a page of another site, whose name was made to lead here (DNS rebinding), reads nothing; and
no answer may be read by a page of another origin. The HTML has one style and one script, whose digests its policy
names: nothing else is run or loaded, and no text becomes markup (Trusted Types).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import socket
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from fsdm.model.errors import FsdmError, InvalidInputError, NotAvailableError
from fsdm.model.layout import U64_MAX, as_id
from fsdm.monitoring.http_endpoint import DEADLINE_S
from fsdm.monitoring.page.observer import BusyError, Observer
from fsdm.status.map import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from fsdm.monitoring.http_endpoint import Connection

BEAT_S: Final = 5.0  # without anything new, after which a comment shows whether the browser is still there
DEAF_BEATS: Final = 3  # so many in a row that nothing was acknowledged
FIELDS_MAX: Final = 8
HEADERS: Final = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
MISDIRECTED: Final = (
    "the page is not served under that name: use its address, localhost, or the name that it listens at"
)
STARTING: Final = "starting: the data directory is being opened"


class PageApp:
    """Answers for one observer, once there is one. `names` are further hosts that it is served under."""

    def __init__(self, *names: str) -> None:
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names if name)}
        self.observer: Observer | None = None
        self._answers: dict[str, Callable[[Observer, _Fields], dict[str, Any]]] = {
            "/map": lambda observer, asked: observer.map_of(
                as_id(asked.get("dataset"), "dataset"), asked.block("from"), asked.block("to")
            ),
            "/chunk": lambda observer, asked: observer.explain(as_id(asked.get("id"), "id")),
            "/find": lambda observer, asked: observer.find(asked.get("q")),
        }

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path, is_head = environ["PATH_INFO"], environ["REQUEST_METHOD"] == "HEAD"
        if not self._is_served_as(environ.get("HTTP_HOST", "")):
            return _text(start, 421, MISDIRECTED)
        if path == "/":
            html, policy = page()
            kind = ("Content-Type", "text/html; charset=utf-8")
            start("200 OK", [*HEADERS, kind, ("Content-Security-Policy", policy)])
            return [] if is_head else [html]
        if path not in self._answers and path != "/events":
            return _text(start, 404, "not found")
        if self.observer is None:
            return _text(start, 503, STARTING)
        if path == "/events":
            return _events(environ, start, self.observer)
        return self._answer(path, environ, start, self.observer)

    def _is_served_as(self, host: str) -> bool:
        """Tell whether a Host header (RFC 9110, 7.2) has a name of ours; of the port nothing is asked."""
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names or name.endswith(".localhost")
        return True

    def _answer(self, path: str, environ: WSGIEnvironment, start: StartResponse, observer: Observer) -> Iterable[bytes]:
        try:
            document, status = self._answers[path](observer, _Fields(environ["QUERY_STRING"])), 200
        except FsdmError as e:
            codes: dict[type[FsdmError], int] = {InvalidInputError: 400, NotAvailableError: 404, BusyError: 503}
            status = next((code for kind, code in codes.items() if isinstance(e, kind)), 500)
            document = {"error": str(e), "hint": e.hint}
        except OSError as e:
            status, document = 500, {"error": f"the disk refuses: {e.strerror}", "hint": ""}
        start(_line(status), [*HEADERS, ("Content-Type", "application/json")])
        return [json.dumps(document, separators=(",", ":")).encode()]


class _Fields:
    """The fields of a query, each given once or not at all."""

    def __init__(self, query: str) -> None:
        try:
            self._fields = parse_qs(query, max_num_fields=FIELDS_MAX, errors="strict")
        except ValueError as e:
            raise InvalidInputError(f"the query cannot be read: {e}") from None

    def get(self, name: str) -> str:
        return self._fields.get(name, [""])[0]

    def block(self, name: str) -> int | None:
        text = self.get(name)
        if not text:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= U64_MAX):
            raise InvalidInputError("must be a block", field=name)
        return int(text)


def _text(start: StartResponse, status: int, text: str) -> list[bytes]:
    start(_line(status), [*HEADERS, ("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


def _line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def _events(environ: WSGIEnvironment, start: StartResponse, observer: Observer) -> Iterable[bytes]:
    """Begin a stream of events, if not too many last already."""
    connection: Connection = environ["fsdm.connection"]
    if environ["REQUEST_METHOD"] == "HEAD" or not connection.keep(DEADLINE_S):
        return _text(start, 503, "as many browsers look as are served at once")
    start("200 OK", [*HEADERS, ("Content-Type", "text/event-stream")])
    return _stream(connection, observer)


def _stream(connection: Connection, observer: Observer) -> Iterator[bytes]:
    """Yield what is new as events, or a comment where nothing is; end where nobody takes it.

    A write has DEADLINE_S; while nothing is written, there is none.
    """
    seen = deaf = 0
    with observer.watching():
        while not observer.board.is_closed:
            connection.keep()
            seen, parts = observer.board.wait(seen, BEAT_S)
            deaf = deaf + 1 if connection.unread_bytes() else 0
            if deaf >= DEAF_BEATS and not parts:
                return
            connection.keep(DEADLINE_S)
            events = [b"event: %b\ndata: %b\n\n" % (name.encode(), text) for name, text in parts.items()]
            yield b"".join(events) or b":\n\n"


@cache
def page() -> tuple[bytes, str]:
    """Read the HTML file, with its style and script within, and the policy that names their digests."""
    style, script = (words.resource(*theirs) + _read(ours) for theirs, ours in _PARTS)
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; style-src {_digest(style)}; script-src "
        f"{_digest(script)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    legend = [
        f'<li><b class="swatch {kind}"></b>{kind} <span>{meaning}</span></li>'
        for kind, meaning in words.MEANINGS.items()
    ]
    html = Template(_read("page.html")).substitute(style=style, script=script, legend="\n".join(legend))
    return html.encode(), policy


_PARTS: Final = ((("palette.css", "page.css"), "page.css"), (("page.js",), "page.js"))  # of the map, and of our own


def _read(name: str) -> str:
    return files("fsdm.monitoring.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
