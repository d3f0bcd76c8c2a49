"""The page over HTTP: to whom it answers, what its headers forbid, and that no one keeps it from others."""

import base64
import hashlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataManager
from fsdm.model.layout import U64_MAX, Layout
from fsdm.monitoring.http_endpoint import LASTING
from fsdm.monitoring.page import app as module
from fsdm.monitoring.page.app import PageApp, page
from fsdm.monitoring.page.observer import Observer
from fsdm.monitoring.service import Service
from tests.support import PATIENCE_S, eventually
from tests.support.chunks import a_want, an_id, put_chunk, put_failure, put_want

D = "d" * 64


class Served:
    """The page of a data directory, asked by hand."""

    def __init__(self, service: Service, layout: Layout) -> None:
        assert service.url is not None
        self.service, self.layout, self.url = service, layout, service.url
        self.port = int(self.url.rpartition(":")[2])

    @property
    def observer(self) -> Observer:
        assert self.service._page is not None
        assert self.service._page.observer is not None
        return self.service._page.observer

    def ask(
        self, path: str, method: str = "GET", host: str | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request(method, path, headers={} if host is None else {"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def document(self, path: str) -> tuple[int, Any]:
        status, _, body = self.ask(path)
        return status, json.loads(body)

    @contextmanager
    def events(self) -> Iterator[Iterator[tuple[str, Any]]]:
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)) as connection:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with connection.makefile("rb") as file:
                head = b"".join(iter(file.readline, b"\r\n"))
                assert b" 200 " in head, head
                assert b"text/event-stream" in head
                yield _events(file)


def _events(file: Any) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in file:
        if line.startswith(b"event: "):
            name = line[7:].decode().strip()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


@pytest.fixture
def served(layout: Layout) -> Iterator[Served]:
    with (
        DataManager(layout.root, reconcile=False) as dm,
        Service(address="127.0.0.1:0", page=True, environment={}) as service,
        service.attend(dm),
    ):
        yield Served(service, layout)


def until(events: Iterator[tuple[str, Any]], name: str, check: Any) -> Any:
    """The document of the first event of this name that is as it should be."""
    return next(document for kind, document in events if kind == name and check(document))


def test_a_change_comes_as_an_event(served: Served) -> None:
    with served.events() as events:
        until(events, "head", lambda head: head["says"].startswith("All that is wanted is here"))
        put_chunk(served.layout)
        until(events, "datasets", lambda found: [one["id"] for one in found["datasets"]] == [D])
        want = put_want(Path(served.layout.root), a_want())
        until(events, "lists", lambda lists: lists["coming"]["queued"] == 1)
        put_failure(Path(served.layout.root), want.id, kind="transfer", error="HTTP 404", attempts=1)
        lists = until(events, "lists", lambda lists: lists["failing"]["count"] == 1)
        assert lists["failing"]["rows"][0]["says"] == "HTTP 404"


def test_map_chunk_and_search_answer(served: Served) -> None:
    place = put_chunk(served.layout)

    def is_here() -> bool:  # and not half put there
        status, found = served.document(f"/map?dataset={D}")
        return status == 200 and [mark["kind"] for mark in found["marks"]] == ["here"]

    eventually(is_here)
    status, found = served.document(f"/map?dataset={D}")
    assert (status, found["start"], found["end"], found["from"], found["to"]) == (200, "0", "10", "0", "10")
    assert [(mark["kind"], mark["ids"]) for mark in found["marks"]] == [("here", [place.chunk_id])]
    status, found = served.document(f"/map?dataset={D}&from=4&to=6")
    assert (status, found["from"], found["to"], found["window"]) == (200, "4", "6", [0.4, 0.2])
    status, found = served.document(f"/chunk?id={place.chunk_id}")
    assert (status, found["state"], found["where"]) == (200, "available", "[0, 10) of dddddddddddd…")
    assert [part["title"] for part in found["said"]] == ["asked", "here", "why", "to do"]
    assert served.document(f"/chunk?id={an_id()}")[1]["state"] == "unknown"
    for query in ("7", place.chunk_id[:6], "dddd+7"):
        assert [hit["id"] for hit in served.document(f"/find?q={query}")[1]["hits"]] == [place.chunk_id]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/map", 400),
        ("/map?dataset=..%2F..%2Fetc", 400),
        (f"/map?dataset={'e' * 64}", 404),
        (f"/map?dataset={D}&from=-1", 400),
        (f"/map?dataset={D}&to={U64_MAX + 1}", 400),
        (f"/map?dataset={D}&to=9%E2%81%B9", 400),
        ("/chunk?id=../../x", 400),
        ("/chunk?id=%FF", 400),
        ("/find?" + "&".join(f"a{n}=1" for n in range(100)), 400),
    ],
)
def test_what_cannot_be_answered_says_why(served: Served, path: str, status: int) -> None:
    found, document = served.document(path)
    assert (found, bool(document["error"])) == (status, True)


def test_other_paths_and_methods_are_refused(served: Served) -> None:
    assert served.ask("/favicon.ico")[0] == served.ask("/../page.js")[0] == 404
    for path in ("/", "/events", "/map"):
        assert served.ask(path, "POST")[0] == 405
    status, _, body = served.ask("/", "HEAD")
    assert (status, body) == (200, b"")
    assert served.ask("/events", "HEAD")[0] == 503


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("127.0.0.1:1234", True),
        ("127.0.0.1", True),
        ("192.0.2.7:8899", True),
        ("[::1]:8899", True),
        ("localhost:8899", True),
        ("LOCALHOST", True),
        ("x.localhost:1", True),
        (f"{socket.gethostname()}:8899", True),
        ("worker7.example.org:8899", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        (f"{socket.gethostname()}.evil.example", False),
        ("evil.example:127.0.0.1", False),
        ("", False),
        ("[::1", True),
        ("[evil.example]", False),
    ],
)
def test_page_answers_only_to_names_that_no_other_site_can_have(host: str, is_served: bool) -> None:
    assert PageApp("Worker7.example.org")._is_served_as(host) is is_served


@pytest.mark.parametrize("path", ["/", "/events", f"/map?dataset={D}", "/find?q=1", "/else"])
def test_request_for_another_host_is_misdirected_and_probes_are_not(served: Served, path: str) -> None:
    status, _, body = served.ask(path, host="evil.example")
    assert (status, b"not served under that name" in body) == (421, True)
    for probe in ("/healthz", "/metrics"):
        assert served.ask(probe, host="pod-7.monitoring.svc")[0] == 200


@pytest.mark.parametrize("path", ["/", f"/map?dataset={D}", "/find?q=1", "/else"])
def test_no_answer_may_be_framed_sniffed_kept_or_read_by_others(served: Served, path: str) -> None:
    _, headers, _ = served.ask(path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert not [name for name in headers if name.lower().startswith("access-control-")]


def test_html_is_one_file_whose_policy_allows_its_own_script_and_style_alone(served: Served) -> None:
    _, headers, body = served.ask("/")
    html, policy = body.decode(), headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert (rules["connect-src"], rules["img-src"]) == ("'self'", "data:")
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.findall(r"""(?:src|href|action)=["'](?!data:)""", html)
    markup = re.sub(r"(?s)<(style|script)>.*?</\1>", "", html)
    assert re.findall(r"\son\w+=|\sstyle=|javascript:", markup) == []


def test_script_places_texts_as_nothing_but_text() -> None:
    html, _ = page()
    [script] = re.findall("<script>(.*?)</script>", html.decode(), re.DOTALL)
    hazards = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|createContextualFragment"
    )
    assert re.findall(hazards, script) == []


def test_before_the_directory_is_open_the_page_is_there_and_says_so(data_dir: Path) -> None:
    with Service(address="127.0.0.1:0", page=True, environment={}) as service:
        served = Served(service, Layout(data_dir))
        assert served.ask("/")[0] == 200
        assert served.ask("/events")[0] == 503
        assert b"starting" in served.ask(f"/map?dataset={D}")[2]


def test_one_browser_too_many_is_refused_and_served_once_another_has_gone(served: Served) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        next(first.enter_context(served.events()))
        for _ in range(LASTING - 1):
            next(stack.enter_context(served.events()))
        assert served.ask("/events")[0] == 503
        assert served.ask("/healthz")[0] == served.ask("/")[0] == 200
        first.close()
        put_chunk(served.layout)  # a write finds that it has gone
        eventually(lambda: len(served.service._endpoint._lasting) < LASTING)
        with served.events() as events:
            assert next(events)


def test_silent_browsers_hold_up_no_other_and_are_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.3)
    with ExitStack() as stack:
        for _ in range(3):
            silent = stack.enter_context(closing(socket.socket()))
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect(("127.0.0.1", served.port))
            silent.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: served.observer._watchers == 3)
        with served.events() as events:
            for number in range(20):
                served.observer.board.put({"trouble": f"{number} " + "x" * (1 << 19)})
                until(events, "trouble", lambda text, number=number: text.startswith(f"{number} "))
            eventually(lambda: served.observer._watchers == 1, "the silent ones have gone")


def test_browser_that_has_vanished_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr("fsdm.monitoring.http_endpoint.Connection.unread_bytes", lambda self: 100)
    with served.events() as events:
        assert next(events)
        for _ in events:  # it ends
            pass
    eventually(lambda: served.observer._watchers == 0)


def test_page_that_is_no_longer_looked_at_is_not_looked_for(served: Served) -> None:
    with served.events() as events:
        next(events)
        assert served.observer._watchers == 1
    put_chunk(served.layout)
    served.observer.board.put({"trouble": "x"})
    served.observer.board.put({"trouble": ""})
    eventually(lambda: served.observer._watchers == 0)
