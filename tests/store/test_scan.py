"""The scan: disk → ChunkState and Snapshot; one bad entry spoils no scan."""

import errno
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm.model.layout import WANT_MAX_BYTES, Layout, Place
from fsdm.model.state import ChunkState, Partial
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import ASIDE, finish_removals
from fsdm.store.scan import look, scan
from tests.support.chunks import an_id, put_chunk


@pytest.fixture
def catalog(layout: Layout) -> Catalog:
    return Catalog(layout)


def touch(*path: str) -> None:
    with open(os.path.join(*path), "a"):
        pass


def test_an_id_that_nothing_speaks_of_is_at_rest(layout: Layout, catalog: Catalog) -> None:
    chunk_id = an_id()
    state = look(layout, catalog, chunk_id)
    assert state == ChunkState(chunk_id)
    assert state.at_rest


def test_a_look_finds_all_that_the_disk_says_about_an_id(layout: Layout, catalog: Catalog) -> None:
    place = put_chunk(layout)
    unready = put_chunk(layout, chunk_id=place.chunk_id, dataset="e" * 64)
    os.unlink(f"{layout.path(unready)}/READY")
    put_chunk(layout)
    for directory in (layout.want, layout.delete, layout.failed):
        touch(directory, place.chunk_id)
    catalog.refresh()
    state = look(layout, catalog, place.chunk_id)
    assert state.want is not None
    assert state.delete is not None
    assert state.failed
    assert (state.ready, state.unready) == ((place,), (unready,))
    assert state.want.size == 0
    assert state.want.ino == os.stat(layout.want_marker(place.chunk_id)).st_ino


def test_a_partial_has_begun_until_its_manifest_is_there(layout: Layout, catalog: Catalog) -> None:
    chunk_id = an_id()
    assert look(layout, catalog, chunk_id).partial is Partial.NONE
    os.mkdir(layout.partial_of(chunk_id))
    assert look(layout, catalog, chunk_id).partial is Partial.BEGUN
    touch(layout.partial_of(chunk_id), "READY")
    assert look(layout, catalog, chunk_id).partial is Partial.READY
    file = an_id()
    touch(layout.partial_of(file))
    assert look(layout, catalog, file).partial is Partial.BEGUN, "also of what is no directory"


def test_a_chunk_that_left_after_the_catalogs_refresh_is_unready(layout: Layout, catalog: Catalog) -> None:
    place = put_chunk(layout)
    catalog.refresh()
    shutil.rmtree(layout.path(place))
    assert look(layout, catalog, place.chunk_id).unready == (place,)


def test_want_is_looked_at_before_delete(layout: Layout, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk_id, looked, lstat = an_id(), [], os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: (looked.append(path), lstat(path))[1])
    look(layout, catalog, chunk_id)
    assert looked[:2] == [layout.want_marker(chunk_id), layout.delete_marker(chunk_id)]


def test_a_want_over_the_limit_has_a_fault_and_a_delete_of_that_size_has_none(layout: Layout, catalog: Catalog) -> None:
    chunk_id = an_id()
    for directory in (layout.want, layout.delete):
        touch(directory, chunk_id)
        os.truncate(f"{directory}/{chunk_id}", WANT_MAX_BYTES + 1)
    state = look(layout, catalog, chunk_id)
    assert state.want is not None
    assert state.want.fault is not None
    assert state.delete is not None
    assert state.delete.fault is None


def test_scan_finds_ids_of_markers_partials_and_failures_alone(layout: Layout, catalog: Catalog) -> None:
    put_chunk(layout)
    catalog.refresh()
    ids = [an_id() for _ in range(4)]
    for chunk_id, directory in zip(ids, (layout.want, layout.delete, layout.partial, layout.failed), strict=True):
        touch(directory, chunk_id)
    snapshot = scan(layout, catalog)
    assert snapshot.ids == set(ids)
    assert snapshot.oddities == ()


def test_names_that_are_no_ids_are_odd_unless_hidden(layout: Layout, catalog: Catalog, data_dir: Path) -> None:
    good = an_id()
    touch(layout.want, good)
    odd = {"README", good[:-1], good.upper().replace("0", "A"), f"{good}.json"}
    for name in [*odd, f".{good}", f"{good}~", ".hidden"]:
        touch(layout.want, name)
    touch(os.fsencode(layout.delete).decode(), "\udcff")  # not UTF-8
    os.mkdir(f"{layout.chunks}/lost+found")
    strange = Place(put_chunk(layout).dataset_id, "notes.txt")
    touch(layout.path(strange))
    catalog.refresh()
    snapshot = scan(layout, catalog)
    assert snapshot.ids == {good}
    assert {os.path.relpath(oddity.path, data_dir) for oddity in snapshot.oddities} == {
        *(f"want/{name}" for name in odd),
        "delete/\udcff",
        "chunks/lost+found",
        f"chunks/{strange.dataset_id}/notes.txt",
    }


def test_a_directory_that_is_gone_is_told_and_the_others_are_still_scanned(layout: Layout, catalog: Catalog) -> None:
    chunk_id = an_id()
    touch(layout.delete, chunk_id)
    shutil.rmtree(layout.want)
    snapshot = scan(layout, catalog)
    assert snapshot.ids == {chunk_id}
    assert [(oddity.path, oddity.why) for oddity in snapshot.oddities] == [
        (layout.want, "it cannot be listed: No such file or directory")
    ]


def test_a_scan_opens_no_file(layout: Layout, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put_chunk(layout)
    touch(layout.want, place.chunk_id)
    catalog.refresh()

    refuse = Mock(side_effect=AssertionError("opened"))
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert scan(layout, catalog).ids == {place.chunk_id}
    assert look(layout, catalog, place.chunk_id).want is not None
    refuse.assert_not_called()


def test_what_a_crash_left_aside_is_put_back_in_both_directories(layout: Layout) -> None:
    wanted, deleted = an_id(), an_id()
    touch(layout.want, f"{ASIDE}{wanted}")
    touch(layout.delete, f"{ASIDE}{deleted}")
    touch(layout.want, ".somebody-elses")
    finish_removals(layout, FileSystem())
    assert sorted(os.listdir(layout.want)) == sorted([".somebody-elses", wanted])
    assert os.listdir(layout.delete) == [deleted]


def test_unreadable_marker_has_a_fault_and_holds_up_no_other(
    layout: Layout, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, lstat = an_id(), an_id(), os.lstat
    for chunk_id in (bad, good):
        touch(layout.delete, chunk_id)

    def refuse(path: str) -> os.stat_result:
        if path == layout.delete_marker(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refuse)
    told, found = look(layout, catalog, bad).delete, look(layout, catalog, good).delete
    assert told is not None
    assert told.fault == "cannot be looked at: Input/output error"
    assert found is not None
    assert found.fault is None


@pytest.mark.parametrize("kinds", [(), ("want",), ("delete",), ("want", "delete")])
def test_known_marker_is_looked_at_where_an_intent_stands(
    layout: Layout, catalog: Catalog, kinds: tuple[str, ...]
) -> None:
    chunk_id = an_id()
    touch(layout.known, chunk_id)
    for kind in kinds:
        touch(f"{layout.root}/{kind}", chunk_id)
    state = look(layout, catalog, chunk_id)
    assert (state.known is not None) is bool(kinds)
    assert (state.want is not None, state.delete is not None) == ("want" in kinds, "delete" in kinds)
