"""Reports of a node that follows: of the list that is applied, and sent where they are read."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fsdm import Client
from fsdm.concurrency.cancellation import Cancellation
from fsdm.fleet.report import Report, Reporter
from fsdm.lists.fetching import Fetching
from fsdm.lists.following import Follower
from fsdm.lists.last import FollowLock
from fsdm.lists.reporting import REST_S, Reports
from fsdm.model.errors import StoppedError, TransferError
from fsdm.model.follow import Follow
from fsdm.model.layout import Layout
from fsdm.model.sources import Source as Settings
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.putting import put
from tests.support.chunks import a_want, of_place, put_chunk


class Taker:
    """A server that takes PUT."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        taker = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taker.taken.append((self.path, dict(self.headers.items()), body))
                self.send_response(taker.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)


@pytest.fixture
def taker() -> Iterator[Taker]:
    taker = Taker()
    taker.thread.start()
    yield taker
    taker.server.shutdown()
    taker.server.server_close()


@pytest.fixture
def client(layout: Layout) -> Iterator[Client]:
    with Client(layout.root) as client:
        yield client


def applied(layout: Layout, path: Path) -> Follower:
    """Have a list applied that is in a file."""
    FollowLock(layout).close()
    follower = Follower(layout, Follow(url=str(path)), Fetching(), share=None)
    follower.look()
    assert follower.last.error == ""
    return follower


def reports(client: Client, **follow: Any) -> Reports:
    return Reports(client, Follow(url="x", **follow), "a1", Sources(), Cancellation(), clock=lambda: 7.0)


def test_report_is_kept_and_written_where_it_is_read(client: Client, tmp_path: Path) -> None:
    here, missing = put_chunk(client.layout), a_want()
    (tmp_path / "list").write_bytes(of_place(here).to_json() + missing.to_json())
    sha256 = applied(client.layout, tmp_path / "list").last.sha256
    it = reports(client, report=str(tmp_path), zone="z1", capacity=9)
    it.report(sha256)
    text = (tmp_path / "a1.json").read_bytes()
    found = Report.parse(text)
    assert (found.at, found.applied, found.missing, found.bytes) == (7.0, sha256, (missing.id,), 100)
    assert (found.zone, found.capacity) == ("z1", 9)
    assert Path(client.layout.follow, "REPORT").read_bytes() == text
    it.close()


def test_node_that_has_applied_no_list_says_that_it_is_there(client: Client, tmp_path: Path) -> None:
    os.mkdir(client.layout.follow)
    reports(client, report=str(tmp_path)).report(None)
    assert json.loads((tmp_path / "a1.json").read_bytes())["at"] == 7.0
    assert Report.parse((tmp_path / "a1.json").read_bytes()).applied is None


def test_chunks_are_looked_at_again_only_where_something_has_changed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = put_chunk(client.layout)
    (tmp_path / "list").write_bytes(of_place(here).to_json())
    sha256 = applied(client.layout, tmp_path / "list").last.sha256
    layout, looked, real = client.layout, list[object](), Reporter.report
    monkeypatch.setattr(Reporter, "report", lambda *args: looked.append(args) or real(*args))
    it = reports(client)

    def age(*paths: str) -> None:
        for path in paths or (layout.want, layout.delete, layout.failed, layout.chunks, layout.dataset("d" * 64)):
            os.utime(path, (1.0, 1.0))

    it.report(sha256)
    it.report(sha256)
    assert len(looked) == 2, f"what has changed within {REST_S} s may change again unseen"
    age()
    for _ in range(3):
        it.report(sha256)
    assert len(looked) == 3
    extra = put_chunk(layout, start=20, end=21)
    it.report(sha256)
    assert Report.parse(Path(layout.follow, "REPORT").read_bytes()).extra == (extra.chunk_id,)
    it.close()


def test_report_is_put_with_the_credentials_of_its_source(taker: Taker) -> None:
    sources = Sources([Settings(match=f"{taker.url}/reports", headers={"Authorization": "Bearer hidden"})])
    put(f"{taker.url}/reports/a1.json", b"{}", sources, Cancellation())
    [(path, headers, body)] = taker.taken
    assert (path, body, headers["Content-Type"]) == ("/reports/a1.json", b"{}", "application/json")
    assert headers["Authorization"] == "Bearer hidden"


@pytest.mark.parametrize("status", [302, 403, 501])
def test_report_that_is_not_taken_is_an_error_and_goes_nowhere_else(taker: Taker, status: int) -> None:
    taker.status = status
    with pytest.raises(TransferError, match=f"/x: HTTP {status}"):
        put(f"{taker.url}/x", b"{}", Sources(), Cancellation())
    assert [path for path, _, _ in taker.taken] == ["/x"]


def test_report_that_cannot_be_sent_is_told_once_and_nothing_else_is_harmed(
    client: Client, taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(client.layout.follow)
    taker.status = 500
    for where in (taker.url, client.layout.root + "/none"):
        caplog.clear()
        it = reports(client, report=where)
        for _ in range(2):
            it.report(None)
        assert len(caplog.records) == 1, caplog.text
        assert "no report is sent" in caplog.text
        assert where in caplog.text


def test_report_is_given_up_when_the_process_is_to_end(client: Client, taker: Taker) -> None:
    os.mkdir(client.layout.follow)
    stop = Cancellation()
    it = Reports(client, Follow(url="x", report=taker.url), "a1", Sources(), stop)
    stop.set()
    with pytest.raises(StoppedError):
        it.report(None)
