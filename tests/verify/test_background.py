"""The inspector: it reads for itself, answers once for each request, notes what is right, and is in nobody's way."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from fsdm.concurrency.rate_limit import Rate
from fsdm.model.layout import READY, VERIFIED
from fsdm.model.state import Found
from fsdm.store import flock as locks
from fsdm.store.filesystem import FileSystem
from fsdm.store.markers import look_at
from fsdm.store.refs import Refs
from fsdm.verify import background as module
from fsdm.verify.background import Answer, Inspector, checked_at, verified_at
from tests.support.chunks import flip, put_chunk, touch_delete
from tests.support.locks import can_lock
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import Marker


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = set(locks._descriptors)
    yield
    assert locks._descriptors == before


@pytest.fixture
def place(layout: Layout) -> Place:
    return put_chunk(layout)


@pytest.fixture
def verify(layout: Layout, place: Place) -> Marker:
    with open(layout.verify_marker(place.chunk_id), "w"):
        pass
    marker = look_at(layout.verify_marker(place.chunk_id))
    assert marker is not None
    return marker


class Inspected:
    """An inspector, and what it answers."""

    def __init__(self, layout: Layout) -> None:
        self.answers: list[Answer] = []
        self.inspector = Inspector(layout, fs=FileSystem(), answer=self.answers.append)


def test_what_is_right_is_noted_with_the_time(layout: Layout, place: Place, verify: Marker) -> None:
    inspected = Inspected(layout)
    assert verified_at(layout, place) is None
    inspected.inspector.inspect(place, verify=verify)
    assert inspected.answers == [Answer(place, verify, read=True)]
    assert os.path.getsize(f"{layout.path(place)}/{VERIFIED}") == 0
    os.utime(f"{layout.path(place)}/{VERIFIED}", (10, 10))
    inspected.inspector.inspect(place)
    assert inspected.answers[1] == Answer(place, None, read=True)
    assert verified_at(layout, place) == pytest.approx(os.stat(layout.path(place)).st_ctime, abs=60)


def test_what_is_wrong_is_answered_with_the_ready_that_it_was_compared_with(layout: Layout, place: Place) -> None:
    flip(f"{layout.path(place)}/data/blocks.parquet")
    inspected, ready = Inspected(layout), look_at(f"{layout.path(place)}/{READY}")
    inspected.inspector.inspect(place)
    (answer,) = inspected.answers
    assert isinstance(answer.found, Found)
    assert answer.read
    assert answer.found.why.startswith("data/blocks.parquet has the blake3 ")
    assert answer.found.ready == ready
    assert not os.path.exists(f"{layout.path(place)}/{VERIFIED}")


def test_of_very_many_wrong_files_a_few_are_named(layout: Layout) -> None:
    place = put_chunk(layout, start=20, end=30, files={f"file{n}": b"x" for n in range(9)})
    for n in range(9):
        flip(f"{layout.path(place)}/data/file{n}")
    inspected = Inspected(layout)
    inspected.inspector.inspect(place)
    found = inspected.answers[0].found
    assert found is not None
    assert found.why.count("data/file") == module.TOLD
    assert found.why.endswith("; and 6 more")


def test_the_chunk_is_held_meanwhile_and_not_after_the_answer(
    layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []
    rehash = module.rehash
    monkeypatch.setattr(module, "rehash", lambda *rest: (free.append(can_lock(layout.path(place))), rehash(*rest))[1])
    inspector = Inspector(layout, fs=FileSystem(), answer=lambda _: free.append(can_lock(layout.path(place))))
    inspector.inspect(place)
    assert free == [False, True]


@pytest.mark.parametrize("how", ["deleted", "taken out of service", "gone"])
def test_what_is_not_available_is_not_read(layout: Layout, data_dir: Path, place: Place, how: str) -> None:
    match how:
        case "deleted":
            touch_delete(data_dir, place.chunk_id)
        case "taken out of service":
            os.unlink(f"{layout.path(place)}/{READY}")
        case _:
            os.rename(layout.path(place), f"{layout.trash}/x")
    inspected = Inspected(layout)
    inspected.inspector.inspect(place)
    assert inspected.answers == [Answer(place, None)]


def test_a_delete_that_comes_while_it_reads_has_it_let_go_at_once(layout: Layout, data_dir: Path, place: Place) -> None:
    inspected = Inspected(layout)
    slow, waiting = Rate(1.0), threading.Event()
    inspected.inspector._stop.wait = lambda _seconds=None: (waiting.set(), False)[1]  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=inspected.inspector.inspect, args=(place, slow))
    thread.start()
    assert waiting.wait(PATIENCE_S)
    touch_delete(data_dir, place.chunk_id)
    thread.join(PATIENCE_S)
    assert inspected.answers == [Answer(place, None)]
    assert can_lock(layout.path(place))


def test_a_stop_ends_it_at_once(layout: Layout, place: Place) -> None:
    inspected = Inspected(layout)
    thread = threading.Thread(target=inspected.inspector.inspect, args=(place, Rate(1.0)))
    thread.start()
    inspected.inspector.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert inspected.answers == [Answer(place, None)]


def test_who_reads_it_is_not_disturbed(layout: Layout, place: Place) -> None:
    refs = Refs(layout)
    with refs.take(place) as ref:  # type: ignore[union-attr]
        inspected = Inspected(layout)
        inspected.inspector.inspect(place)
        assert inspected.answers[0].read
        assert not ref.closed
        assert not can_lock(layout.path(place))


def test_what_cannot_be_read_by_this_process_is_no_damage_and_answered_as_not_read(
    layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "rehash", refuse)
    inspected = Inspected(layout)
    inspected.inspector.inspect(place)
    assert inspected.answers == [Answer(place, None)]
    assert "Too many open files" in caplog.text


def test_where_it_cannot_be_noted_the_bytes_are_right_all_the_same(
    layout: Layout, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(f"{layout.path(place)}/{VERIFIED}")
    inspected = Inspected(layout)
    inspected.inspector.inspect(place)
    assert inspected.answers == [Answer(place, None, read=True)]
    assert VERIFIED in caplog.text


def test_bytes_are_known_to_be_right_since_they_came_or_were_read(layout: Layout, place: Place) -> None:
    path = layout.path(place)
    os.utime(f"{path}/{READY}", (100, 100))
    assert checked_at(layout, place) == 100
    FileSystem().touch(f"{path}/{VERIFIED}")
    os.utime(f"{path}/{VERIFIED}", (200, 200))
    assert checked_at(layout, place) == 200
    os.utime(f"{path}/{READY}", (300, 300))
    assert checked_at(layout, place) == 300
    os.unlink(f"{path}/{READY}")
    assert checked_at(layout, place) is None
