"""Markers: how they are placed, read and renewed."""

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fsdm.model.documents import DataChunk
from fsdm.model.errors import DataDirectoryError, InvalidInputError, NoDataDirectoryError, StaleMarkerError
from fsdm.model.layout import WANT_MAX_BYTES, Layout
from fsdm.model.state import Marker
from fsdm.store import markers as intents
from fsdm.store.filesystem import FileSystem
from fsdm.store.flock import Claim
from fsdm.store.marker_removal import remove_marker
from fsdm.store.markers import look_at, place_delete, place_known, place_want, read_want, retry, touch
from tests.support.chunks import KINDS_OF_NO_FILE, a_want, an_id, judged, markers, put
from tests.support.filesystems import Recorder
from tests.support.locks import can_lock, in_a_fork
from tests.support.waiting import eventually


def test_each_intent_withdraws_the_opposite_one(layout: Layout) -> None:
    chunk = a_want()
    place_want(layout, chunk)
    place_delete(layout, chunk.id)
    assert markers(layout) == ([], [chunk.id])
    place_want(layout, chunk)
    assert markers(layout) == ([chunk.id], [])


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (("known", "want"), ["known", "want"]),
        (("delete", "want"), ["want"]),
        (("want", "delete"), ["delete"]),
        (("known", "delete"), ["delete"]),
        (("want", "known"), ["known"]),
        (("delete", "known"), ["known"]),
    ],
    ids=" then ".join,
)
def test_each_intent_withdraws_those_that_it_overrules(layout: Layout, asked: tuple[str, str], left: list[str]) -> None:
    chunk = a_want()
    place = {
        "want": lambda: place_want(layout, chunk),
        "known": lambda: place_known(layout, chunk, exclusive=False),
        "delete": lambda: place_delete(layout, chunk.id),
    }
    for kind in asked:
        place[kind]()
    assert sorted(kind for kind in place if chunk.id in os.listdir(f"{layout.root}/{kind}")) == left


@pytest.mark.parametrize("asks", [place_want, lambda layout, chunk: place_delete(layout, chunk.id)])
def test_new_intent_is_there_before_the_opposite_goes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, asks: Callable[[Layout, DataChunk], None]
) -> None:
    chunk, seen = a_want(), []
    paths = {layout.want_marker(chunk.id), layout.delete_marker(chunk.id)}
    (place_delete(layout, chunk.id) if asks is place_want else place_want(layout, chunk))

    unlink = os.unlink

    def look_then_unlink(path: str) -> None:
        if path in paths:
            seen.append(all(os.path.exists(path) for path in paths))
        unlink(path)

    monkeypatch.setattr(os, "unlink", look_then_unlink)
    asks(layout, chunk)
    assert seen == [True]


def test_a_repeated_delete_becomes_the_later_intent(layout: Layout) -> None:
    chunk_id = an_id()
    place_delete(layout, chunk_id)
    os.utime(layout.delete_marker(chunk_id), (1, 1))
    place_delete(layout, chunk_id)
    assert judged(layout.delete_marker(chunk_id)).mtime_ns > 10**18


def test_a_client_goes_on_where_somebody_sits_on_the_lock_of_intents(layout: Layout) -> None:
    chunk, sitting = a_want(), Claim(layout.want)
    assert sitting.take()
    place_want(layout, chunk)
    assert markers(layout) == ([chunk.id], [])
    place_delete(layout, chunk.id)
    assert markers(layout) == ([], [chunk.id])
    marker = layout.delete_marker(chunk.id)
    assert remove_marker(layout, FileSystem(), marker, judged(marker), None)
    sitting.close()
    assert 0 < intents.CLIENT_WAIT_S < 0.1


def test_intents_are_changed_under_the_lock_of_intents(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, locked = a_want(), []

    def step(path: str) -> None:
        locked.append(not can_lock(layout.want))

    rename, utime = os.rename, os.utime
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda old, new: (step(old), rename(old, new)))
        place_want(layout, chunk)
        patch.setattr(os, "utime", lambda fd: (step(""), utime(fd)))
        place_delete(layout, chunk.id)
        place_known(layout, chunk, exclusive=False)
        place_delete(layout, chunk.id)
    marker = layout.delete_marker(chunk.id)
    remove_marker(layout, Recorder(rename=step, unlink=step), marker, judged(marker), None)
    assert locked == [True] * 6


def test_a_want_replaces_a_symlink_or_a_fifo_and_writes_through_neither(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    for make in (lambda path: os.symlink(outside, path), os.mkfifo):
        chunk = a_want()
        make(layout.want_marker(chunk.id))
        place_want(layout, chunk)
        assert look_at(layout.want_marker(chunk.id), limit=WANT_MAX_BYTES).fault is None  # type: ignore[union-attr]
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize(("make", "what"), KINDS_OF_NO_FILE)
def test_delete_is_not_placed_over_what_is_no_file(layout: Layout, make: Callable[[str], None], what: str) -> None:
    chunk = a_want()
    place_want(layout, chunk)
    marker = layout.delete_marker(chunk.id)
    make(marker)
    with pytest.raises(DataDirectoryError, match="in the way") as caught:
        place_delete(layout, chunk.id)
    assert "rm -ri" in caught.value.hint
    assert what in str(judged(marker).fault)
    assert markers(layout) == ([chunk.id], [chunk.id]), "the want still stands"
    if what == "a symbolic link":
        assert os.stat(marker).st_mtime == 1


def test_want_over_a_directory_is_refused_without_a_temporary(layout: Layout) -> None:
    chunk = a_want()
    os.mkdir(layout.want_marker(chunk.id))
    place_delete(layout, an_id())
    with pytest.raises(DataDirectoryError, match="in the way"):
        place_want(layout, chunk)
    assert os.listdir(layout.want) == [chunk.id]


def test_a_delete_leaves_a_directory_in_the_place_of_a_want_alone(layout: Layout) -> None:
    chunk_id = an_id()
    os.mkdir(layout.want_marker(chunk_id))
    place_delete(layout, chunk_id)
    assert markers(layout) == ([chunk_id], [chunk_id])


def test_where_there_is_no_data_directory_placing_says_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "none")
    for place in (lambda: place_want(layout, a_want()), lambda: place_delete(layout, an_id())):
        with pytest.raises(NoDataDirectoryError, match="does not exist"):
            place()


def test_a_want_that_nobody_would_read_is_refused(layout: Layout) -> None:
    with pytest.raises(InvalidInputError, match="more than"):
        place_want(layout, a_want(note="x" * WANT_MAX_BYTES))
    assert markers(layout) == ([], [])


@pytest.mark.parametrize("most", [None, 50], ids=["at once", "by partial writes"])
def test_want_is_placed_whole_and_can_be_read(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    chunk, write = a_want(), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:most]))
    place_want(layout, chunk)
    assert markers(layout) == ([chunk.id], [])
    assert read_want(layout, chunk.id, judged(layout.want_marker(chunk.id))) == chunk


def test_a_want_that_finds_no_room_leaves_everything_as_it_was(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = a_want()
    place_delete(layout, chunk.id)

    monkeypatch.setattr(os, "write", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(DataDirectoryError, match="No space left"):
        place_want(layout, chunk)
    assert markers(layout) == ([], [chunk.id])


@pytest.mark.parametrize(("make", "what"), KINDS_OF_NO_FILE)
def test_what_is_no_file_is_no_intent_and_is_not_read(layout: Layout, make: Callable[[str], None], what: str) -> None:
    chunk_id = an_id()
    path = layout.want_marker(chunk_id)
    make(path)
    marker = judged(path)
    assert marker.fault == f"is {what}, not a file"
    with pytest.raises(StaleMarkerError):
        read_want(layout, chunk_id, marker)


def test_a_want_over_the_limit_is_no_intent_and_one_at_the_limit_is(layout: Layout) -> None:
    path = layout.want_marker(an_id())
    Path(path).write_bytes(bytes(WANT_MAX_BYTES))
    assert look_at(path, limit=WANT_MAX_BYTES).fault is None  # type: ignore[union-attr]
    os.truncate(path, WANT_MAX_BYTES + 1)
    assert f"{WANT_MAX_BYTES + 1} bytes" in look_at(path, limit=WANT_MAX_BYTES).fault  # type: ignore[operator, union-attr]
    assert look_at(path).fault is None, "a delete's content is ignored"  # type: ignore[union-attr]


def test_nothing_is_no_marker(layout: Layout) -> None:
    assert look_at(layout.want_marker(an_id())) is None
    assert look_at(f"{layout.format_file}/{an_id()}") is None


def test_a_want_is_read_only_while_it_is_the_one_that_was_judged(layout: Layout) -> None:
    chunk = a_want()
    path = layout.want_marker(chunk.id)
    place_want(layout, chunk)
    changes = (
        lambda: place_want(layout, chunk),
        lambda: os.unlink(path),
        lambda: os.symlink(layout.format_file, path),
    )
    before = judged(path)
    for change in changes:
        change()
        with pytest.raises(StaleMarkerError):
            read_want(layout, chunk.id, before)


def test_every_beginning_of_a_want_is_refused_as_it_may_be_half_written(layout: Layout) -> None:
    chunk = a_want()
    path = layout.want_marker(chunk.id)
    text = chunk.to_json().strip()
    for size in range(len(text)):
        Path(path).write_bytes(text[:size])
        with pytest.raises(InvalidInputError, match="Invalid JSON"):
            read_want(layout, chunk.id, judged(path))


def test_the_id_in_a_want_may_be_left_out_but_must_agree(layout: Layout) -> None:
    chunk = a_want()
    path = layout.want_marker(chunk.id)
    put(path, chunk.to_json().decode().replace(f'"id":"{chunk.id}",', ""))
    assert read_want(layout, chunk.id, judged(path)) == chunk
    put(path, chunk.to_json().decode().replace(chunk.id, "e" * 64))
    with pytest.raises(InvalidInputError, match=r"^id: "):
        read_want(layout, chunk.id, judged(path))


@pytest.mark.parametrize("which", ["want", "delete"])
def test_a_retry_renews_the_marker_that_stands_and_changes_nothing_of_it(layout: Layout, which: str) -> None:
    chunk = a_want()
    (place_want(layout, chunk) if which == "want" else place_delete(layout, chunk.id))
    path = f"{layout.root}/{which}/{chunk.id}"
    os.utime(path, ns=(1, 1))
    before, text = judged(path), Path(path).read_bytes()
    assert retry(layout, chunk.id)
    after = judged(path)
    assert not after.same_as(before)
    assert (after.ino, after.size, Path(path).read_bytes()) == (before.ino, before.size, text)
    assert sum(map(len, markers(layout))) == 1


def test_a_retry_makes_no_marker(layout: Layout) -> None:
    assert not retry(layout, an_id())
    assert markers(layout) == ([], [])


@pytest.mark.parametrize("order", [("want", "delete"), ("delete", "want")])
def test_a_retry_of_two_markers_leaves_the_later_one_the_later(layout: Layout, order: tuple[str, str]) -> None:
    chunk_id = an_id()
    first, second = (f"{layout.root}/{which}/{chunk_id}" for which in order)
    for path in (first, second):
        put(path, "{}")
    eventually(lambda: renewed(second, first))
    assert retry(layout, chunk_id)
    assert judged(second).ctime_ns > judged(first).ctime_ns


def renewed(path: str, before: str) -> bool:
    """Touch a file until its ctime is later than another's: the kernel's clock ticks."""
    os.utime(path)
    return os.lstat(path).st_ctime_ns > os.lstat(before).st_ctime_ns


def test_retry_of_two_tied_markers_touches_neither(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = a_want()
    put(layout.want_marker(chunk.id), "{}")
    put(layout.delete_marker(chunk.id))
    monkeypatch.setattr(intents, "look_at", lambda path: Marker(1, 1, 1, 1))
    monkeypatch.setattr(intents, "_renew", None)
    assert retry(layout, chunk.id)


def test_a_retry_touches_no_file_beyond_a_symlink_and_waits_for_no_fifo(layout: Layout, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("x")
    os.utime(target, ns=(1, 1))
    link, fifo, directory = an_id(), an_id(), an_id()
    os.symlink(target, layout.want_marker(link))
    os.mkfifo(layout.want_marker(fifo))
    os.mkdir(layout.delete_marker(directory))
    for chunk_id in (link, fifo, directory):
        with pytest.raises(DataDirectoryError, match=f"{chunk_id} is in the way: it is not a file"):
            retry(layout, chunk_id)
    assert target.stat().st_mtime_ns == 1


def test_retry_of_another_users_marker_replaces_it_by_a_copy(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = a_want()
    place_want(layout, chunk)
    before = judged(layout.want_marker(chunk.id))
    opened = os.open

    def refuse(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_WRONLY and not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "refused", path)
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert retry(layout, chunk.id)
    after = judged(layout.want_marker(chunk.id))
    assert after.ino != before.ino
    assert read_want(layout, chunk.id, after) == chunk
    assert markers(layout) == ([chunk.id], [])


def test_want_that_the_disk_takes_only_in_part_is_refused_and_not_placed(layout: Layout) -> None:
    chunk = a_want()

    def place() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        place_want(layout, chunk)

    assert in_a_fork(place) == DataDirectoryError.__name__
    assert markers(layout) == ([], [])


def test_lock_that_the_system_refuses_is_an_error_of_ours(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.store.flock.try_flock", Mock(side_effect=OSError(errno.ENOLCK, "no locks")))
    with pytest.raises(DataDirectoryError):
        place_want(layout, a_want())


def test_touch_gives_another_time_also_within_a_tick(tmp_path: Path) -> None:
    times = set()
    with open(tmp_path / "a", "w") as file:
        for _ in range(200):
            assert touch(file.fileno())
            times.add(os.fstat(file.fileno()).st_mtime_ns)
    assert len(times) == 200


def test_touch_of_anothers_file_says_whether_a_tick_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def utime(fd: int, ns: tuple[int, int] | None = None, real: Any = os.utime) -> None:
        if ns is not None:
            raise PermissionError
        real(fd, ns=(tick, tick))

    monkeypatch.setattr(os, "utime", utime)
    with open(tmp_path / "a", "w") as file:
        tick = os.fstat(file.fileno()).st_mtime_ns
        assert not touch(file.fileno())
        tick += 1
        assert touch(file.fileno())


def test_retry_of_a_registered_chunk_that_has_failed_asks_for_it(layout: Layout) -> None:
    chunk = a_want()
    place_known(layout, chunk, exclusive=False)
    known = layout.known_marker(chunk.id)
    before = os.stat(known)
    assert not retry(layout, chunk.id), "nothing is asked for, and nothing has failed"
    put(layout.failed_of(chunk.id), "{}")
    put(layout.acquire_marker(chunk.id), "held\n")
    assert retry(layout, chunk.id)
    assert Path(layout.acquire_marker(chunk.id)).read_bytes() == b""
    after = os.stat(known)
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert after.st_mtime_ns > before.st_mtime_ns
