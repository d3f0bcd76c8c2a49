"""Parts of a data directory that cannot be renamed: on other mounts, and in an overlay's lower layer."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm.model.documents import DataChunk, FileSource
from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import Layout, Place
from fsdm.model.state import ChunkState, Partial
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Done, Failed
from fsdm.store.data_dir import open_data_dir
from fsdm.store.filesystem import can_rename
from tests.support.applying import Bench, a_chunk
from tests.support.chunks import entries, of_place, put_chunk, put_want, touch_delete
from tests.support.filesystems import Recorder

Mount = Callable[..., None]


def _overlay(mount: Mount, tmp_path: Path) -> Layout:
    """Mount a data directory of which all that there is by now cannot be renamed."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work,redirect_dir=off"
    mount("-t", "overlay", "overlay", "-o", layers, tmp_path / "merged")
    return open_data_dir(tmp_path / "merged")


def _of_other_files(place: Place) -> DataChunk:
    return of_place(place).model_copy(update={"files": {"other.parquet": FileSource(url="http://example.org/other")}})


@pytest.fixture
def lower(tmp_path: Path) -> Layout:
    return open_data_dir(tmp_path / "lower")


@pytest.fixture
def moved(layout: Layout, mount: Mount) -> Place:
    """A chunk of a dataset that is a mount of its own."""
    place = put_chunk(layout)
    mount("--bind", layout.dataset(place.dataset_id), layout.dataset(place.dataset_id))
    return place


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return open_data_dir(tmp_path / "data")


@pytest.mark.parametrize("name", ["chunks", "partial", "trash"])
def test_directory_on_another_mount_is_refused_at_the_start(layout: Layout, mount: Mount, name: str) -> None:
    mount("--bind", f"{layout.root}/{name}", f"{layout.root}/{name}")
    with pytest.raises(DataDirectoryError, match="are on different mounts") as refused:
        open_data_dir(layout.root)
    assert name in str(refused.value)
    assert "as a whole" in refused.value.hint


def test_directories_of_markers_may_be_other_mounts(layout: Layout, mount: Mount) -> None:
    for name in ("want", "delete", "verify", "failed"):
        mount("--bind", f"{layout.root}/{name}", f"{layout.root}/{name}")
    assert open_data_dir(layout.root).root == layout.root


def test_trial_of_a_rename_changes_nothing(layout: Layout) -> None:
    before = [os.stat(path).st_mtime_ns for path in (layout.partial, layout.chunks)]
    assert can_rename(layout.partial, layout.chunks)
    assert [os.stat(path).st_mtime_ns for path in (layout.partial, layout.chunks)] == before
    assert can_rename(layout.partial, f"{layout.root}/missing"), "that is another error"


def test_chunk_in_a_lower_layer_is_deleted(lower: Layout, mount: Mount, tmp_path: Path) -> None:
    place = put_chunk(lower)
    layout = _overlay(mount, tmp_path)
    touch_delete(Path(layout.root), place.chunk_id)
    bench = Bench(layout)
    assert bench.converge(place.chunk_id) == ChunkState(place.chunk_id)
    assert entries(Path(layout.dataset(place.dataset_id))) == []
    assert bench.told() == ["deleted"]


def test_chunk_in_a_lower_layer_is_replaced(lower: Layout, mount: Mount, tmp_path: Path) -> None:
    place = put_chunk(lower)
    layout = _overlay(mount, tmp_path)
    put_want(Path(layout.root), _of_other_files(place))
    state = Bench(layout).converge(place.chunk_id)
    assert (state.want, state.ready) == (None, (place,))
    assert entries(Path(layout.path(place), "data")) == ["other.parquet"]


def test_partial_in_a_lower_layer_is_fetched_anew(lower: Layout, mount: Mount, tmp_path: Path) -> None:
    chunk = a_chunk()
    put_want(Path(lower.root), chunk)
    bench = Bench(lower)
    assert bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id))) == Done()
    bench = Bench(_overlay(mount, tmp_path))
    state = bench.converge(chunk.id)
    assert (state.want, state.ready, state.partial) == (None, (chunk.place,), Partial.NONE)
    assert bench.fetcher.count == len(chunk.files)


def test_chunk_on_another_mount_is_erased_in_place_once_ready_is_durably_gone(layout: Layout, moved: Place) -> None:
    touch_delete(Path(layout.root), moved.chunk_id)
    bench = Bench(layout, fs=Recorder())
    assert bench.converge(moved.chunk_id) == ChunkState(moved.chunk_id)
    path = layout.path(moved)
    steps = [step for step in bench.fs.steps if step[1].startswith(path)]
    erased = steps.index(("erase", path))
    assert ("unlink", f"{path}/READY") in steps[:erased]
    assert steps[erased - 1] == ("fsync_dir", path)


def test_chunk_that_could_not_be_replaced_stays_in_service(layout: Layout, moved: Place) -> None:
    put_want(Path(layout.root), _of_other_files(moved))
    bench = Bench(layout)
    outcome = bench.apply(actions.Confirm(moved.chunk_id, bench.want(moved.chunk_id), moved))
    assert isinstance(outcome, Failed)
    assert "another mount" in str(outcome.error)
    assert "as a whole" in outcome.error.hint
    assert os.path.exists(f"{layout.path(moved)}/READY")


def test_want_that_is_there_already_is_confirmed_on_another_mount(layout: Layout, moved: Place) -> None:
    put_want(Path(layout.root), of_place(moved))
    state = Bench(layout).converge(moved.chunk_id)
    assert (state.want, state.ready) == (None, (moved,))
