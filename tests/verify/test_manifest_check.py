"""The manifest check: every kind of damage is found, by names and sizes; a delete is none."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdm.model.layout import Layout, Place
from fsdm.store import flock as locks
from fsdm.store.catalog import Catalog
from fsdm.store.json_files import read_manifest
from fsdm.store.refs import Refs
from fsdm.verify import manifest_check as module
from fsdm.verify.manifest_check import ManifestCheck, damage
from tests.support import PATIENCE_S, can_lock
from tests.support.chunks import an_id, put_chunk, touch_delete


class Bench:
    """A manifest check, and what it tells."""

    def __init__(self, layout: Layout) -> None:
        self.woken: list[str] = []
        self.catalog = Catalog(layout, own=True)
        self.catalog.refresh()
        self.it = ManifestCheck(layout, self.catalog, wake=lambda: None, notify=self.woken.append)

    @property
    def suspects(self) -> list[Place]:
        return list(self.it._suspects)


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before, fds = set(locks._descriptors), len(os.listdir("/proc/self/fd"))
    yield
    assert locks._descriptors <= before
    assert len(os.listdir("/proc/self/fd")) <= fds  # the collector may close one of an earlier test


def _link_elsewhere(path: str) -> None:
    os.rename(f"{path}/data/blocks.parquet", f"{path}/elsewhere")
    os.symlink("../elsewhere", f"{path}/data/blocks.parquet")


def _write_ready(text: str) -> Callable[[str], None]:
    def write(path: str) -> None:
        with open(f"{path}/READY", "w") as file:
            file.write(text)

    return write


def _link_ready(path: str) -> None:
    os.rename(f"{path}/READY", f"{path}/elsewhere")
    os.symlink("elsewhere", f"{path}/READY")


def _instead(name: str, make: Callable[[str], object]) -> Callable[[str], None]:
    """Something else stands where this was."""

    def harm(path: str) -> None:
        there = f"{path}/{name}"
        shutil.rmtree(there) if os.path.isdir(there) else os.unlink(there)
        make(there)

    return harm


FILE = "data/blocks.parquet"
DAMAGE = [
    pytest.param(lambda path: os.truncate(f"{path}/{FILE}", 99), "has 99 bytes, READY says 100", id="truncated"),
    pytest.param(lambda path: os.truncate(f"{path}/{FILE}", 101), "has 101 bytes, READY says 100", id="grown"),
    pytest.param(lambda path: os.unlink(f"{path}/{FILE}"), f"{FILE} is missing", id="file missing"),
    pytest.param(lambda path: shutil.rmtree(f"{path}/data"), "is missing", id="data missing"),
    pytest.param(_link_elsewhere, FILE, id="file is a symlink"),
    pytest.param(_write_ready(""), "not a manifest", id="READY empty"),
    pytest.param(_write_ready("{}"), "not a manifest", id="READY says nothing"),
    pytest.param(_write_ready("\0" * 4096), "not a manifest", id="READY of zeros"),
    pytest.param(_link_ready, "not a manifest", id="READY a symlink"),
    pytest.param(_instead("READY", os.mkfifo), "not a manifest", id="READY a FIFO"),
    pytest.param(_instead("READY", os.mkdir), "not a manifest", id="READY a directory"),
    pytest.param(_instead("data", os.mknod), "data", id="data a file"),
    pytest.param(
        _instead(FILE, lambda there: os.symlink("y" * 100, there)),
        FILE,
        id="symlink of the same size",
    ),
]


def test_a_chunk_that_agrees_with_its_manifest_is_not_damaged(layout: Layout) -> None:
    place = put_chunk(layout, files={"a": b"", "b": b"1" * 5000})
    assert damage(layout, place) is None


@pytest.mark.parametrize(("harm", "why"), DAMAGE)
def test_damage_is_found_and_told(layout: Layout, harm: Callable[[str], None], why: str) -> None:
    place, sound = put_chunk(layout), put_chunk(layout, start=50, end=60)
    harm(layout.path(place))
    assert why in str(damage(layout, place))
    bench = Bench(layout)
    for each in (place, sound):
        bench.it.check(each)
    assert (list(bench.it.suspects()), bench.suspects) == ([place], [])
    assert bench.woken == []


@pytest.mark.parametrize("changes", [{"chunk_id": "e" * 64}, {"dataset": "e" * 64}, {"start": 1}, {"end": 11}])
def test_a_manifest_that_speaks_of_another_chunk_is_damage(layout: Layout, changes: dict[str, object]) -> None:
    chunk_id = an_id()
    other = put_chunk(layout, **{"chunk_id": chunk_id, **changes})  # type: ignore[arg-type]
    place = Place.of("d" * 64, range(10), chunk_id)
    os.makedirs(layout.dataset(place.dataset_id), exist_ok=True)
    os.rename(layout.path(other), layout.path(place))
    assert "READY speaks of" in str(damage(layout, place))
    assert other.name in str(damage(layout, place))


def test_a_manifest_may_say_more_than_this_version_knows(layout: Layout) -> None:
    place = put_chunk(layout)
    path = f"{layout.path(place)}/READY"
    with open(path) as file:
        text = file.read()
    _write_ready(text.replace("{", '{"later": [1], ', 1))(layout.path(place))
    assert damage(layout, place) is None


def test_there_is_no_manifest_where_there_is_no_directory(layout: Layout) -> None:
    place = put_chunk(layout)
    assert read_manifest(layout.path(place)) is not None
    assert read_manifest(f"{layout.path(place)}/data") is None
    assert read_manifest(layout.format_file) is None
    assert read_manifest(f"{layout.root}/none") is None


def test_a_directory_without_ready_is_notified_and_no_suspect(layout: Layout) -> None:
    place = put_chunk(layout)
    bench = Bench(layout)
    os.unlink(f"{layout.path(place)}/READY")
    bench.it.check(place)
    assert (bench.suspects, bench.woken) == ([], [place.chunk_id])


def test_a_chunk_that_is_being_deleted_is_not_taken_for_damaged(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    bench = Bench(layout)
    os.truncate(f"{layout.path(place)}/data/blocks.parquet", 99)
    touch_delete(data_dir, place.chunk_id)
    bench.it.check(place)
    assert (bench.suspects, bench.woken) == ([], [])


def test_a_chunk_cannot_leave_while_it_is_looked_at(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    place, could_leave = put_chunk(layout), []

    def look(layout: Layout, place: Place) -> None:
        could_leave.append(can_lock(layout.path(place)))

    monkeypatch.setattr(module, "damage", look)
    Bench(layout).it.check(place)
    assert could_leave == [False]
    assert can_lock(layout.path(place))


def test_the_walk_over_all_chunks_outlasts_an_error_and_stops(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = [put_chunk(layout, start=start, end=start + 10) for start in (0, 10, 20)]
    os.truncate(f"{layout.path(places[2])}/data/blocks.parquet", 99)
    bench, found = Bench(layout), threading.Event()
    bench.it._wake = found.set

    def look(layout: Layout, place: Place) -> str | None:
        if place == places[0]:
            raise OSError(5, "Input/output error")
        return damage(layout, place)

    monkeypatch.setattr(module, "damage", look)
    bench.it.start()
    assert found.wait(PATIENCE_S)
    bench.it.stop()
    assert bench.suspects == [places[2]]
    assert layout.path(places[0]) in caplog.text, "one that cannot be read holds up no other"


def test_a_check_that_was_never_started_can_be_stopped(layout: Layout) -> None:
    bench = Bench(layout)
    bench.it.stop()
    assert bench.suspects == []


def test_a_check_does_not_disturb_a_ref(layout: Layout) -> None:
    place = put_chunk(layout)
    with Refs(layout).take(place) as ref:  # type: ignore[union-attr]
        Bench(layout).it.check(place)
        assert not ref.closed
        assert not can_lock(layout.path(place))


def test_directory_of_the_right_size_in_the_place_of_a_file_is_damage(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    place = put_chunk(layout, files={"a": b"x" * (tmp_path / "directory").stat().st_size})
    path = f"{layout.path(place)}/data/a"
    os.unlink(path)
    os.mkdir(path)
    assert damage(layout, place) is not None
