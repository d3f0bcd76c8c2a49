"""The thread that looks: how often, for whom, and what a disk that fails or hangs does to it."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataManager, Limits
from fsdm.model.errors import NotAvailableError
from fsdm.model.layout import Layout
from fsdm.monitoring.page import observer as module
from fsdm.monitoring.page.observer import BusyError, Observer, rest_s
from fsdm.status.survey import Surveyor
from tests.support import PATIENCE_S, Source, eventually
from tests.support.chunks import an_id, bring, put_chunk

D = "d" * 64


@pytest.fixture
def client(layout: Layout) -> Iterator[DataManager]:
    with DataManager(layout.root, reconcile=False, limits=Limits(max_bytes=10**9)) as dm:
        yield dm


def part(observer: Observer, name: str) -> Any:
    return json.loads(observer.board.wait(0, 0)[1].get(name, b"null"))


def test_rest_keeps_to_a_hundredth_while_nothing_changes_and_shows_a_change_within_a_second() -> None:
    for cost_s in (0.0001, 0.001, 0.005, 0.009):
        quiet = rest_s(cost_s, is_complete=True, changed=False)
        assert quiet <= 1
        assert cost_s / (cost_s + quiet) <= 0.011
    for cost_s in (0.0001, 0.01, 0.05, 0.1, 3.0):
        for changed in (True, False):
            assert cost_s / (cost_s + rest_s(cost_s, is_complete=True, changed=changed)) <= 0.1
    assert rest_s(0.02, is_complete=True, changed=False) < 1
    assert rest_s(0.01, is_complete=False, changed=True) < 0.1


def test_nobody_looks_nothing_is_looked_at_where_the_reconciler_counts(
    dm: DataManager, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = Surveyor.look
    monkeypatch.setattr(Surveyor, "look", lambda self: (looks.append(1), look(self))[1])
    monkeypatch.setattr(module, "EACH_S", 0.01)
    observer = Observer(dm)
    with observer.observing():
        bring(dm, source.chunk())
        eventually(lambda: len(observer._history.samples) > 3)
        assert looks == []
        eventually(lambda: sum(one.bytes_per_s or 0 for one in observer._history.samples) > 0, "what came is counted")
        with observer.watching():
            eventually(lambda: len(looks) > 1)
            assert part(observer, "head")["tiles"][0]["number"] == "1"


def test_look_is_taken_as_soon_as_somebody_watches(dm: DataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EACH_S", 10_000.0)
    observer = Observer(dm)
    with observer.observing():
        eventually(lambda: observer._wakeup._waiters, "the thread rests until the next reading")  # type: ignore[attr-defined]
        with observer.watching():
            eventually(lambda: part(observer, "head"))


def test_map_is_drawn_once_for_all_who_ask_until_something_changes(client: DataManager, layout: Layout) -> None:
    put_chunk(layout)
    observer = Observer(client)
    with observer.observing(), observer.watching():
        eventually(lambda: part(observer, "datasets"))
        eventually(lambda: observer._sight is not None and observer._sight.table.is_complete)
        drawn = observer.map_of(D, None, None)
        assert observer.map_of(D, None, None) is drawn
        assert observer.map_of(D, 3, 5)["from"] == "3"
        assert observer.map_of(D, None, None) == drawn
        put_chunk(layout, start=10, end=20)
        eventually(lambda: observer.map_of(D, None, None)["end"] == "20")


def test_what_nobody_has_looked_at_for_long_is_forgotten(dm: DataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EACH_S", 0.01)
    monkeypatch.setattr(module, "FORGET_S", 0.05)
    observer = Observer(dm)
    with observer.observing():
        with observer.watching():
            eventually(lambda: observer._sight is not None)
        eventually(lambda: observer._sight is None)
        assert observer.find("1234")["hits"] == []  # it looks again for whoever asks


def test_without_a_reconciler_the_plots_come_from_the_files(
    client: DataManager, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EACH_S", 0.01)
    put_chunk(layout)
    observer = Observer(client)
    with observer.observing():
        eventually(lambda: any(one.here_bytes == 100 for one in observer._history.samples))
        assert all(one.free_bytes for one in observer._history.samples)
    assert part(observer, "history")["plots"][1]["name"] == "on disk"


def test_budget_pause_and_brake_are_told(client: DataManager, layout: Layout) -> None:
    client.pause("a <b>reason</b>")
    Path(layout.brake).write_text('{"held_back": 7, "of": 9}')
    observer = Observer(client)
    with observer.observing(), observer.watching():
        head = eventually(lambda: part(observer, "head"))
        assert "of the budget of 1000.0 MB taken" in head["facts"][0]
        assert any("paused" in line and "a <b>reason</b>" in line for line in head["alerts"])
        assert (
            "Deletes are held back, 7 of 9 chunks. `fsdm release` releases them, if they are meant." in head["alerts"]
        )
        assert any(line.startswith("No process reconciles") for line in head["alerts"])
        client.resume()
        eventually(lambda: not any("paused" in line for line in part(observer, "head")["alerts"]))


def test_names_of_datasets_are_shown_and_searched_for_and_a_file_that_cannot_be_taken_is_told(
    client: DataManager, layout: Layout
) -> None:
    place, names = put_chunk(layout), Path(layout.dataset_names)
    observer = Observer(client)
    with observer.observing(), observer.watching():
        eventually(lambda: part(observer, "datasets"))
        names.write_text(f'ethereum = "{D}"')
        eventually(lambda: [one["name"] for one in part(observer, "datasets")["datasets"]] == ["ethereum"])
        assert [hit["where"] for hit in observer.find("ethereum 7")["hits"]] == ["[0, 10) of ethereum"]
        explained = observer.explain(place.chunk_id)
        assert explained["where"] == "[0, 10) of ethereum"
        assert any(f"dataset ethereum ({D})" in line for part in explained["said"] for line in part["sentences"])
        names.write_text("nonsense")
        eventually(lambda: any("is no TOML" in line for line in part(observer, "head")["alerts"]))
        assert part(observer, "datasets")["datasets"][0]["name"] == ""
        names.unlink()
        eventually(lambda: not any("is no TOML" in line for line in part(observer, "head")["alerts"]))


def test_no_name_is_read_where_they_are_off(client: DataManager, layout: Layout) -> None:
    put_chunk(layout)
    Path(layout.dataset_names).write_text(f'ethereum = "{D}"')
    observer = Observer(client, names=False)
    with observer.observing(), observer.watching():
        eventually(lambda: part(observer, "datasets"))
        assert part(observer, "datasets")["datasets"][0]["name"] == ""
        assert observer.find("ethereum 7")["hits"] == []


def test_directory_that_goes_is_told_and_looked_for_until_it_is_back(client: DataManager, layout: Layout) -> None:
    put_chunk(layout)
    observer, away = Observer(client), f"{layout.root}.away"
    with observer.observing(), observer.watching():
        eventually(lambda: part(observer, "head"))
        shutil.move(layout.root, away)
        eventually(lambda: "is not a data directory" in (part(observer, "trouble") or ""))
        with pytest.raises(BusyError, match="cannot be looked at"):
            observer.map_of(D, None, None)
        shutil.move(away, layout.root)
        eventually(lambda: part(observer, "trouble") == "")
        assert observer.map_of(D, None, None)["id"] == D


def test_disk_that_hangs_keeps_no_request_and_not_the_end(client: DataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, hung = threading.Event(), threading.Event()

    def look(self: Surveyor) -> Any:
        hung.set()
        assert gate.wait(PATIENCE_S)
        raise OSError("the disk is gone")

    monkeypatch.setattr(Surveyor, "look", look)
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "END_S", 0.05)
    monkeypatch.setattr(module, "ASKED_MAX", 3)
    observer = Observer(client)
    try:
        with observer.observing():
            assert hung.wait(PATIENCE_S)
            for _ in range(3):
                with pytest.raises(BusyError, match="the disk does not answer"):
                    observer.explain(an_id())
            with pytest.raises(BusyError, match="too much is asked at once"):
                observer.explain(an_id())
        assert observer.board.is_closed
    finally:
        gate.set()


def test_defect_in_a_question_or_a_look_is_logged_and_the_thread_goes_on(
    client: DataManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    observer = Observer(client)
    with observer.observing():
        with monkeypatch.context() as patched:
            patched.setattr(module, "explain_chunks", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                observer.explain(an_id())
        assert observer.explain(an_id())["state"] == "unknown"
        with monkeypatch.context() as patched, observer.watching():
            patched.setattr(module.documents, "head", lambda *_: 1 / 0)
            eventually(lambda: "the page could not be made" in caplog.text)
        with observer.watching():
            eventually(lambda: part(observer, "head"))
    assert "a question of the page failed" in caplog.text


def test_errors_of_a_question_are_those_of_its_answer(client: DataManager) -> None:
    observer = Observer(client)
    with observer.observing():
        with pytest.raises(NotAvailableError):
            observer.map_of(D, None, None)
        assert observer.find("?")["hint"].startswith("type a block")
        assert observer.find("1234") == {"hits": [], "more": False, "hint": "nothing is known of that"}
    with pytest.raises(BusyError):
        observer.find("1234")
