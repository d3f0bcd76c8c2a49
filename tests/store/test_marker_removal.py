"""Removal of markers: only the judged one goes, and none is lost, wherever a crash is."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import clock_gettime_ns
from unittest.mock import Mock

import pytest

from fsdm.model.layout import Layout
from fsdm.model.state import COARSE_NS
from fsdm.store.filesystem import FileSystem
from fsdm.store.flock import intents_lock
from fsdm.store.marker_removal import (
    ASIDE,
    CLOCK_REALTIME_COARSE,
    NEVER_NS,
    TEMPORARY_MAX_AGE_S,
    clear_temporaries,
    finish_removals,
    remove_marker,
    remove_request,
    restore_marker,
    restore_want,
    withdraw_restored_want,
)
from fsdm.store.markers import place_delete, place_evict, place_known, place_want
from tests.support.chunks import KINDS_OF_NO_FILE, a_want, an_id, judged, markers, put
from tests.support.filesystems import CrashBefore, CrashError, Recorder, crash_at_each_step
from tests.support.locks import can_lock


def test_a_marker_that_was_judged_is_renamed_aside_and_removed(layout: Layout) -> None:
    chunk_id = an_id()
    place_delete(layout, chunk_id)
    path, fs = layout.delete_marker(chunk_id), Recorder()
    assert remove_marker(layout, fs, path, judged(path), None)
    assert fs.names == ["rename", "unlink"]
    assert markers(layout) == ([], [])


def test_a_request_that_was_answered_goes_while_the_lock_of_the_markers_is_held(layout: Layout) -> None:
    chunk_id = an_id()
    place_evict(layout, chunk_id)
    path, fs = layout.evict_marker(chunk_id), Recorder()
    before = judged(path)
    place_evict(layout, chunk_id)
    assert not remove_request(layout, fs, path, before), "touched again: a new request"
    with intents_lock(layout, 0.0) as is_held:
        assert is_held
        assert remove_request(layout, fs, path, judged(path))
    assert (fs.names, os.listdir(layout.evict)) == (["rename", "unlink"], [])


def test_a_marker_that_is_not_the_one_judged_stays(layout: Layout) -> None:
    path, fs = layout.delete_marker(an_id()), Recorder()
    put(path)
    before = judged(path)
    put(path)
    assert not remove_marker(layout, fs, path, before, None)
    before = judged(path)
    os.utime(path, (1, 1))
    assert not remove_marker(layout, fs, path, before, None), "touched again: a new request"
    assert os.path.exists(path)
    before = judged(path)
    os.unlink(path)
    assert not remove_marker(layout, fs, path, before, None)
    assert fs.steps == [], "nothing was moved: a rename would make it look younger than it is"


@pytest.mark.parametrize("ends", ["at once", "after a crash"])
@pytest.mark.parametrize(("stands", "goes"), [("read", True), ("text", False)])
def test_want_goes_only_with_the_text_that_was_read(layout: Layout, ends: str, stands: str, goes: bool) -> None:
    """Inodes are given away again, and times may be coarse: rewritten in place, with its old mtime, it is that case."""
    path = layout.want_marker(an_id())
    put(path, stands)
    fs = FileSystem() if ends == "at once" else CrashBefore(1)
    with suppress(CrashError):
        assert remove_marker(layout, fs, path, judged(path).read_as(b"read"), None) is goes
    finish_removals(layout, FileSystem())
    assert os.listdir(layout.want) == ([] if goes else [os.path.basename(path)])


def test_marker_with_another_ctime_than_the_judged_one_stays(layout: Layout) -> None:
    path = layout.delete_marker(an_id())
    put(path)
    before = replace(judged(path), ctime_ns=1)
    assert judged(path).same_as(before)
    assert not remove_marker(layout, FileSystem(), path, before, None)


def test_a_marker_that_goes_just_before_it_is_removed_is_no_error(layout: Layout) -> None:
    path = layout.delete_marker(an_id())
    put(path)
    assert not remove_marker(layout, Recorder(rename=lambda _: os.unlink(path)), path, judged(path), None)


def test_a_loser_stays_where_its_winner_has_changed_or_gone(layout: Layout) -> None:
    chunk = a_want()
    want, delete = layout.want_marker(chunk.id), layout.delete_marker(chunk.id)
    put(want, "{}")
    put(delete)
    winner = judged(delete)
    put(delete)
    assert not remove_marker(layout, FileSystem(), want, judged(want), (delete, winner))
    os.unlink(delete)
    assert not remove_marker(layout, FileSystem(), want, judged(want), (delete, winner))
    put(delete)
    assert remove_marker(layout, FileSystem(), want, judged(want), (delete, judged(delete)))
    assert (os.path.exists(want), os.path.exists(delete)) == (False, True)


@pytest.mark.parametrize(
    ("comes", "removed", "left"),
    [
        ({"rename": "newer"}, False, "newer"),  # between the judgement and the rename aside
        ({"unlink": "newer"}, True, "newer"),  # while the judged one is aside
        ({"rename": "newer", "link": "newest"}, False, "newest"),
    ],
)
def test_marker_that_comes_during_a_removal_is_not_lost(
    layout: Layout, comes: dict[str, str], removed: bool, left: str
) -> None:
    path = layout.want_marker(an_id())
    put(path, "old")
    fs = Recorder(**{step: lambda _, text=text: put(path, text) for step, text in comes.items()})
    assert remove_marker(layout, fs, path, judged(path), None) is removed
    assert Path(path).read_text() == left
    assert len(os.listdir(layout.want)) == 1


@pytest.mark.parametrize(("make", "what"), KINDS_OF_NO_FILE)
def test_what_is_no_file_and_takes_a_markers_place_is_restored(
    layout: Layout, make: Callable[[str], None], what: str
) -> None:
    path = layout.delete_marker(an_id())
    put(path)

    def replace(source: str) -> None:
        if source == path:
            os.unlink(path)
            make(path)

    assert not remove_marker(layout, Recorder(rename=replace), path, judged(path), None)
    assert what in str(judged(path).fault)
    assert os.listdir(layout.delete) == [os.path.basename(path)]


def test_crash_at_any_step_of_a_removal_leaves_nothing_aside(layout: Layout) -> None:
    path, left = layout.delete_marker(an_id()), []

    def work(fs: FileSystem) -> None:
        put(path, "judged")
        try:
            remove_marker(layout, fs, path, judged(path), None)
        finally:
            finish_removals(layout, FileSystem())
            left.append(os.listdir(layout.delete))

    assert crash_at_each_step(work) == 2
    there = [os.path.basename(path)]
    assert left[0] == there
    assert left[-1] == []
    assert all(names in ([], there) for names in left)


def test_after_a_crash_a_newer_marker_is_not_overwritten_by_the_one_that_was_aside(layout: Layout) -> None:
    path = layout.want_marker(an_id())
    put(path, "judged")
    with pytest.raises(CrashError):
        remove_marker(layout, CrashBefore(1), path, judged(path), None)
    put(path, "newer")
    finish_removals(layout, FileSystem())
    assert Path(path).read_text() == "newer"
    assert os.listdir(layout.want) == [os.path.basename(path)]


def test_a_crash_while_a_replaced_marker_is_put_back_does_not_lose_it(layout: Layout) -> None:
    path, left = layout.want_marker(an_id()), []

    def work(fs: FileSystem) -> None:
        class Blind(FileSystem):
            """Replaces the marker just before the rename, and crashes as `fs` does."""

            def step(self, name: str, step_path: str) -> None:
                if name == "rename" and step_path == path:
                    put(path, "newer")
                fs.step(name, step_path)

        put(path, "old")
        before = judged(path)
        try:
            remove_marker(layout, Blind(), path, before, None)
        finally:
            finish_removals(layout, FileSystem())
            left.append(Path(path).read_text())
            assert os.listdir(layout.want) == [os.path.basename(path)]

    assert crash_at_each_step(work) == 3
    assert left == ["newer"] * 4


def test_the_name_of_a_marker_on_its_way_out_is_a_dotfile() -> None:
    assert ASIDE.startswith(".")


def test_delete_over_one_that_is_being_removed_is_not_lost(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = a_want()
    want, delete = layout.want_marker(chunk.id), layout.delete_marker(chunk.id)
    Path(delete).touch()
    Path(want).write_bytes(chunk.to_json())
    old, winner, utime = judged(delete), judged(want), os.utime

    def late(fd: int) -> None:
        remove_marker(layout, FileSystem(), delete, old, (want, winner))  # it goes on without the lock, after 50 ms
        utime(fd)

    monkeypatch.setattr("fsdm.store.markers.os.utime", late)
    place_delete(layout, chunk.id)
    assert os.path.exists(delete)


def _cut_off_after_a_newer_one_came(layout: Layout, path: str, text: str) -> None:
    """Replace the judged marker just before it is renamed aside; then the reconciler dies."""
    put(path, text)
    fs = Recorder(rename=lambda _: put(path, f"{text} "), link=Mock(side_effect=CrashError))
    with pytest.raises(CrashError):
        remove_marker(layout, fs, path, judged(path), None)


@pytest.mark.parametrize("aside", ["want", "delete"])
def test_marker_aside_does_not_overrule_the_opposite_that_came_since(layout: Layout, aside: str) -> None:
    chunk = a_want()
    text = chunk.to_json().decode() if aside == "want" else ""
    _cut_off_after_a_newer_one_came(layout, f"{layout.root}/{aside}/{chunk.id}", text)
    (place_delete(layout, chunk.id) if aside == "want" else place_want(layout, chunk))
    finish_removals(layout, FileSystem())
    assert markers(layout) == (([], [chunk.id]) if aside == "want" else ([chunk.id], []))


def test_a_want_that_cannot_be_read_overrules_nothing_that_was_aside(layout: Layout) -> None:
    chunk_id = an_id()
    _cut_off_after_a_newer_one_came(layout, layout.delete_marker(chunk_id), "")
    put(layout.want_marker(chunk_id), "{")
    finish_removals(layout, FileSystem())
    assert markers(layout) == ([chunk_id], [chunk_id])


def test_what_was_aside_is_put_back_over_no_careful_call(layout: Layout) -> None:
    chunk = a_want()
    _cut_off_after_a_newer_one_came(layout, layout.want_marker(chunk.id), chunk.to_json().decode())
    free = []

    def look(_: str) -> None:
        free.append(can_lock(layout.want))

    finish_removals(layout, Recorder(link=look, unlink=look))
    assert free == [False, False]


def test_a_delete_is_not_forgotten_beside_a_want(layout: Layout) -> None:
    chunk = a_want()
    delete, want = layout.delete_marker(chunk.id), layout.want_marker(chunk.id)
    put(want, chunk.to_json().decode())
    put(delete)
    assert not remove_marker(layout, FileSystem(), delete, judged(delete), None)
    assert markers(layout) == ([chunk.id], [chunk.id])
    put(want, "{")
    assert remove_marker(layout, FileSystem(), delete, judged(delete), None), "an unreadable one overrules nothing"


def test_only_temporaries_older_than_an_hour_are_cleared(layout: Layout) -> None:
    left = [f"{where}/.{an_id(1)}.0123abcd" for where in (layout.want, layout.delete, layout.failed)]
    others = [f"{layout.want}/.{an_id(1)}", f"{layout.delete}/.swp", f"{layout.delete}/{an_id(1)}"]
    for path in [*left, *others]:
        os.close(os.open(path, os.O_CREAT))
    for number, make in enumerate((os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path))):
        others.append(f"{layout.want}/.{an_id(1)}.0123abc{number}")
        make(others[-1])
    clear_temporaries(layout, FileSystem(), time.time() + TEMPORARY_MAX_AGE_S - 60)
    assert all(map(os.path.exists, left))
    clear_temporaries(layout, FileSystem(), time.time() + TEMPORARY_MAX_AGE_S + 60)
    assert not any(map(os.path.exists, left))
    assert all(map(os.path.lexists, others))


def test_symlink_aside_is_put_back_as_a_symlink(layout: Layout, tmp_path: Path) -> None:
    path, aside = layout.delete_marker(an_id()), f"{layout.delete}/{ASIDE}x"
    (tmp_path / "elsewhere").touch()
    os.symlink(tmp_path / "elsewhere", aside)
    restore_marker(layout, FileSystem(), aside, path)
    assert (os.readlink(path), os.path.lexists(aside)) == (str(tmp_path / "elsewhere"), False)


@pytest.mark.parametrize(("changed", "stays"), [("nothing", False), ("mtime", True), ("size", True)])
def test_restored_want_is_withdrawn_unless_it_is_another_by_now(layout: Layout, changed: str, stays: bool) -> None:
    chunk_id = an_id()
    stored = f"{layout.root}/stored"
    put(stored, "its want")
    restore_want(layout, FileSystem(), stored, chunk_id)
    want = layout.want_marker(chunk_id)
    if changed == "size":
        mtime_ns = os.stat(want).st_mtime_ns
        Path(want).write_text("another")
        os.utime(want, ns=(mtime_ns, mtime_ns))
    elif changed == "mtime":
        os.utime(want, (1, 1))
    put(layout.delete_marker(chunk_id))
    withdraw_restored_want(layout, FileSystem(), stored, chunk_id)
    assert os.path.exists(want) is stays
    assert os.path.exists(layout.delete_marker(chunk_id))


@pytest.mark.parametrize("why", ["", "it was never wanted", "it was registered since", "a delete stands", "no file"])
def test_want_is_restored_where_nothing_says_otherwise(layout: Layout, why: str) -> None:
    chunk, stored = a_want(), f"{layout.root}/stored"
    Path(stored).write_bytes(chunk.to_json())
    if why == "it was never wanted":
        os.utime(stored, ns=(NEVER_NS, NEVER_NS))
    elif why == "it was registered since":
        os.utime(stored, (1, 1))
        place_known(layout, chunk, exclusive=False)
    elif why == "a delete stands":
        place_delete(layout, chunk.id)
    elif why:
        os.unlink(stored)
    restore_want(layout, FileSystem(), stored, chunk.id)
    assert os.listdir(layout.want) == ([] if why else [chunk.id])
    if not why:
        assert Path(layout.want_marker(chunk.id)).read_bytes() == chunk.to_json()
        assert os.stat(layout.want_marker(chunk.id)).st_mtime_ns == os.stat(stored).st_mtime_ns


def test_restored_want_stays_beside_a_delete_that_is_no_file(layout: Layout) -> None:
    chunk, stored = a_want(), f"{layout.root}/stored"
    Path(stored).write_bytes(chunk.to_json())
    restore_want(layout, FileSystem(), stored, chunk.id)
    os.mkdir(layout.delete_marker(chunk.id))
    withdraw_restored_want(layout, FileSystem(), stored, chunk.id)
    assert os.listdir(layout.want) == [chunk.id]


def test_coarse_clock_is_the_one_that_ctimes_come_from(tmp_path: Path) -> None:
    before_ns = clock_gettime_ns(CLOCK_REALTIME_COARSE)
    (tmp_path / "new").touch()
    assert before_ns <= os.stat(tmp_path / "new").st_ctime_ns <= clock_gettime_ns(CLOCK_REALTIME_COARSE) + COARSE_NS


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_what_is_no_file_and_was_left_aside_is_put_back(layout: Layout, kind: str) -> None:
    chunk_id = an_id()
    aside = f"{layout.delete}/{ASIDE}1_2_3_{chunk_id}"
    if kind == "directory":
        os.mkdir(aside)
    else:
        os.symlink("nowhere", aside)
    finish_removals(layout, FileSystem())
    assert os.listdir(layout.delete) == [chunk_id]
