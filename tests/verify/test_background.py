"""Background checks: they read for themselves, answer each request once, note what is right, and disturb no ref."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdm.concurrency.rate_limit import Rate
from fsdm.model.layout import READY, VERIFIED, Layout, Place
from fsdm.model.state import Found, Marker
from fsdm.store import flock as locks
from fsdm.store.filesystem import FileSystem
from fsdm.store.markers import look_at
from fsdm.store.refs import Refs
from fsdm.store.verdict import verified_at
from fsdm.verify import background as module
from fsdm.verify.background import BackgroundCheck, Checked
from tests.support.chunks import flip, judged, put_chunk, touch_delete
from tests.support.locks import can_lock
from tests.support.waiting import PATIENCE_S
from tools.support.workers import InlineWorkers


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
    Path(layout.verify_marker(place.chunk_id)).touch()
    return judged(layout.verify_marker(place.chunk_id))


class Bench:
    """Background checks in this thread, and what has come of them."""

    def __init__(self, layout: Layout, wake: Callable[[], None] = lambda: None) -> None:
        self.it = BackgroundCheck(layout, fs=FileSystem(), workers=InlineWorkers(), wake=wake)

    def check(self, place: Place, verify: Marker | None = None) -> Checked:
        self.it.check(place, verify=verify)
        (checked,) = self.it.checked()
        return checked


def test_what_is_right_is_noted_with_the_time(layout: Layout, place: Place, verify: Marker) -> None:
    bench = Bench(layout)
    assert verified_at(layout, place) is None
    assert bench.check(place, verify) == Checked(place, verify, read=True)
    assert os.path.getsize(f"{layout.path(place)}/{VERIFIED}") == 0
    os.utime(f"{layout.path(place)}/{VERIFIED}", (10, 10))
    assert bench.check(place) == Checked(place, None, read=True)
    assert verified_at(layout, place) == pytest.approx(os.stat(layout.path(place)).st_ctime, abs=60)


def test_damage_is_answered_with_the_ready_that_it_was_compared_with(layout: Layout, place: Place) -> None:
    flip(f"{layout.path(place)}/data/blocks.parquet")
    ready, checked = look_at(f"{layout.path(place)}/{READY}"), Bench(layout).check(place)
    assert isinstance(checked.found, Found)
    assert checked.read
    assert checked.found.why.startswith("data/blocks.parquet has the blake3 ")
    assert checked.found.ready == ready
    assert not os.path.exists(f"{layout.path(place)}/{VERIFIED}")


def test_a_few_of_many_wrong_files_are_named(layout: Layout) -> None:
    place = put_chunk(layout, start=20, end=30, files={f"file{n}": b"x" for n in range(9)})
    for n in range(9):
        flip(f"{layout.path(place)}/data/file{n}")
    found = Bench(layout).check(place).found
    assert found is not None
    assert found.why.count("data/file") == module.TOLD
    assert found.why.endswith("; and 6 more")


def test_a_chunk_is_held_while_it_is_read(layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[bool] = []
    rehash = module.rehash
    monkeypatch.setattr(module, "rehash", lambda *rest: (free.append(can_lock(layout.path(place))), rehash(*rest))[1])
    Bench(layout, wake=lambda: free.append(can_lock(layout.path(place)))).check(place)
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
    assert Bench(layout).check(place) == Checked(place, None)


def test_a_delete_while_it_reads_ends_it_at_once(layout: Layout, data_dir: Path, place: Place) -> None:
    bench, slow, waiting = Bench(layout), Rate(1.0), threading.Event()
    bench.it._stop.wait = lambda _seconds=None: (waiting.set(), False)[1]  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=bench.it.check, args=(place, slow))
    thread.start()
    assert waiting.wait(PATIENCE_S)
    touch_delete(data_dir, place.chunk_id)
    thread.join(PATIENCE_S)
    assert list(bench.it.checked()) == [Checked(place, None)]
    assert can_lock(layout.path(place))


def test_a_stop_ends_it_at_once(layout: Layout, place: Place) -> None:
    bench = Bench(layout)
    thread = threading.Thread(target=bench.it.check, args=(place, Rate(1.0)))
    thread.start()
    bench.it.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert list(bench.it.checked()) == [Checked(place, None)]


def test_a_reader_is_not_disturbed(layout: Layout, place: Place) -> None:
    refs = Refs(layout)
    with refs.take(place) as ref:  # type: ignore[union-attr]
        assert Bench(layout).check(place).read
        assert not ref.closed
        assert not can_lock(layout.path(place))


def test_a_chunk_that_this_process_cannot_read_is_no_damage(
    layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "rehash", refuse)
    assert Bench(layout).check(place) == Checked(place, None)
    assert "Too many open files" in caplog.text


def test_a_check_that_cannot_be_noted_counts(layout: Layout, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    os.mkdir(f"{layout.path(place)}/{VERIFIED}")
    assert Bench(layout).check(place) == Checked(place, None, read=True)
    assert VERIFIED in caplog.text


def test_each_request_is_answered_once_and_wakes(layout: Layout, place: Place, verify: Marker) -> None:
    there: list[Checked] = []
    bench = Bench(layout, wake=lambda: there.extend(bench.it.checked()))
    for _ in range(2):
        bench.it.ask(place, verify)
    answer = (place, verify, True)
    assert [(one.place, one.verify, one.read) for one in there] == [answer] * 2, "it is there when it wakes"
    assert list(bench.it.checked()) == []
