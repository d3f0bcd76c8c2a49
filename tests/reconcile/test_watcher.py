"""Watching: the kernel's events notify an id, or None for everything; and nothing breaks without them."""

import errno
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from fsdm.model.layout import Layout, Place
from fsdm.reconcile import watcher as watch_module
from fsdm.reconcile.watcher import BURST_EVENTS, REST_S, Inotify, Watcher
from fsdm.store.refs import Refs
from tests.support import PATIENCE_S, eventually, process, python
from tests.support.chunks import TAKE_REF, an_id, put_chunk

WATCHES = 1 + len(watch_module.WATCHED)  # the root as well


class Notified:
    """The notifications, in order."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.notify = self._queue.put

    def until(self, what: str | None) -> list[str | None]:
        """Wait for this one; return those before it."""
        before = []
        while (next_one := self._queue.get(timeout=PATIENCE_S)) != what:
            before.append(next_one)
        return before

    def must_tell(self, what: str | None) -> None:
        """Fail where this one does not come."""
        try:
            self.until(what)
        except queue.Empty:
            pytest.fail(f"{what} was not notified")


@pytest.fixture
def notified() -> Notified:
    return Notified()


@pytest.fixture
def watch(layout: Layout, notified: Notified) -> Iterator[Watcher]:
    watch = Watcher(layout, notified.notify)
    watch.start()
    yield watch
    watch.stop()


def touch(directory: str, name: str) -> str:
    with open(f"{directory}/{name}", "a"):
        pass
    return name


def mute(layout: Layout, notified: Notified) -> list[str | None]:
    """What was notified by now: all that notified before a new marker does, which by a rename notified just once."""
    chunk_id = touch(layout.trash, an_id())
    os.rename(f"{layout.trash}/{chunk_id}", f"{layout.want}/{chunk_id}")
    return notified.until(chunk_id)


def test_each_change_of_a_marker_notifies_its_id(layout: Layout, notified: Notified, watch: Watcher) -> None:
    for directory in (layout.want, layout.delete):
        chunk_id, name = an_id(), f"{directory}/.new"
        notified.must_tell(touch(directory, chunk_id))
        mute(layout, notified)
        os.utime(f"{directory}/{chunk_id}")
        notified.must_tell(chunk_id)
        mute(layout, notified)
        os.unlink(f"{directory}/{chunk_id}")
        notified.must_tell(chunk_id)
        mute(layout, notified)
        touch(directory, ".new")
        os.rename(name, f"{directory}/{chunk_id}")
        notified.must_tell(chunk_id)


def test_a_marker_written_in_place_notifies_when_closed(layout: Layout, notified: Notified, watch: Watcher) -> None:
    chunk_id = an_id()
    with open(f"{layout.want}/{chunk_id}", "w") as file:
        notified.must_tell(chunk_id)
        mute(layout, notified)
        file.write("{")
    notified.must_tell(chunk_id)


def test_what_is_no_id_does_not_notify(layout: Layout, notified: Notified, watch: Watcher) -> None:
    mute(layout, notified)
    for name in (".hidden", "README", "x~", "\udcff"):
        touch(layout.want, name)
        touch(layout.delete, name)
    touch(layout.root, "notes")
    touch(layout.failed, an_id())
    assert mute(layout, notified) == []


def test_a_pause_and_a_release_notify_everything_at_once(layout: Layout, notified: Notified, watch: Watcher) -> None:
    mute(layout, notified)
    touch(layout.root, "PAUSE")
    notified.until(None)
    os.unlink(layout.pause)
    notified.until(None)
    mute(layout, notified)
    touch(layout.delete, ".release")
    notified.until(None)
    mute(layout, notified)
    os.utime(layout.release)
    notified.until(None)


@pytest.mark.parametrize("name", ["want", "delete"])
def test_a_directory_made_again_is_watched_again(layout: Layout, notified: Notified, watch: Watcher, name: str) -> None:
    directory = f"{layout.root}/{name}"
    shutil.rmtree(directory)
    notified.until(None)
    eventually(lambda: directory not in watch._armed, "it is known to be gone")
    watch.arm()
    os.mkdir(directory)
    notified.until(None)
    watch.arm()
    notified.until(touch(directory, an_id()))


def test_a_directory_in_the_place_of_another_is_watched(layout: Layout, notified: Notified, watch: Watcher) -> None:
    os.rename(layout.want, f"{layout.root}/want.old")
    notified.until(None)
    os.mkdir(layout.want)
    watch.arm()
    notified.until(touch(layout.want, an_id()))


def test_a_directory_replaced_unnoticed_is_watched_by_arm(layout: Layout, notified: Notified, watch: Watcher) -> None:
    before = watch._armed[layout.want]
    os.rename(layout.want, f"{layout.root}/want.old")
    os.mkdir(layout.want)
    eventually(lambda: layout.want not in watch._armed, "the event has come")
    watch._armed[layout.want] = before  # as if it had not
    watch.arm()
    notified.until(touch(layout.want, an_id()))


def test_arming_twice_does_not_notify_twice(layout: Layout, notified: Notified, watch: Watcher) -> None:
    watch.arm()
    inotify = watch._inotify
    assert inotify is not None
    assert sorted(len(each.callbacks) for each in inotify._watch_for_wd.values()) == [1] * WATCHES


def test_a_directory_that_cannot_be_watched_is_told_and_the_others_are_watched(
    layout: Layout, notified: Notified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add = watch_module.Inotify.add_callback

    def refuse_delete(self: object, path: bytes, *rest: object) -> object:
        if path.endswith(b"/delete"):
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return add(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(watch_module.Inotify, "add_callback", refuse_delete)
    watch = Watcher(layout, notified.notify)
    watch.start()
    assert "watch limit reached" in caplog.text
    assert layout.delete in caplog.text
    notified.until(touch(layout.want, an_id()))
    watch.stop()


def test_a_kernel_queue_overflow_notifies_everything(layout: Layout, notified: Notified, watch: Watcher) -> None:
    mute(layout, notified)
    inotify = watch._inotify
    assert inotify is not None
    inotify.handle_event(InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b""))  # type: ignore[arg-type]
    notified.until(None)


def test_an_overflow_on_a_held_one_notifies_everything(layout: Layout, notified: Notified, watch: Watcher) -> None:
    place = put_chunk(layout)
    watch.hold(place)
    mute(layout, notified)
    watch._held[place][1].on_queue_overflow()
    assert notified.until(None) == []


def test_without_inotify_it_says_so_once_and_does_nothing_from_then_on(
    layout: Layout, notified: Notified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> object:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(watch_module, "Inotify", refuse)
    watch, place = Watcher(layout, notified.notify), put_chunk(layout)
    watch.start()
    watch.arm()
    assert not watch.hold(place)
    watch.release(place)
    watch.stop()
    assert len(caplog.records) == 1
    assert "instance limit reached" in caplog.text


def test_a_watch_can_be_stopped_twice_and_without_a_start(layout: Layout, notified: Notified, watch: Watcher) -> None:
    watch.stop()
    watch.stop()
    unstarted, before = Watcher(layout, notified.notify), descriptors()
    unstarted.stop()
    assert descriptors() <= before
    assert not unstarted.hold(put_chunk(layout))


def test_the_close_of_a_held_directory_notifies_its_id(layout: Layout, notified: Notified, watch: Watcher) -> None:
    place = put_chunk(layout)
    ref = Refs(layout).take(place)
    assert ref is not None
    assert watch.hold(place)
    assert place.chunk_id not in mute(layout, notified)
    ref.close()
    notified.until(place.chunk_id)


def test_the_death_of_a_holding_process_notifies_too(layout: Layout, notified: Notified, watch: Watcher) -> None:
    place = put_chunk(layout)
    with process(*python(TAKE_REF, layout.root, *place)) as holder:
        assert watch.hold(place)
        assert place.chunk_id not in mute(layout, notified)
        holder.kill()
        notified.until(place.chunk_id)


def test_holding_twice_watches_once(layout: Layout, watch: Watcher) -> None:
    place = put_chunk(layout)
    assert watch.hold(place)
    assert not watch.hold(place)


def test_what_was_released_is_mute_and_can_be_held_again(layout: Layout, notified: Notified, watch: Watcher) -> None:
    place = put_chunk(layout)
    watch.hold(place)
    watch.release(place)
    watch.release(place)
    mute(layout, notified)
    Refs(layout).take(place).close()  # type: ignore[union-attr]
    assert place.chunk_id not in mute(layout, notified)
    assert watch.hold(place)
    Refs(layout).take(place).close()  # type: ignore[union-attr]
    notified.until(place.chunk_id)


def test_a_directory_that_has_just_gone_cannot_be_held(layout: Layout, watch: Watcher) -> None:
    assert not watch.hold(Place.of("d" * 64, range(10), an_id()))


def test_an_erased_held_directory_notifies_and_is_released(layout: Layout, notified: Notified, watch: Watcher) -> None:
    place = put_chunk(layout)
    watch.hold(place)
    mute(layout, notified)
    shutil.rmtree(layout.path(place))
    notified.must_tell(place.chunk_id)
    watch.release(place)
    assert not watch.hold(place), "there is nothing to hold any more"


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_what_was_not_to_be_had_is_told_once_and_asked_for_again(
    layout: Layout, notified: Notified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fsdm.reconcile.watcher")

    def refuse() -> object:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    watch, place = Watcher(layout, notified.notify), put_chunk(layout)
    with monkeypatch.context() as put:
        put.setattr(watch_module, "Inotify", refuse)
        watch.start()
        watch.arm()
        watch.arm()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    watch.arm()
    watch.arm()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "there is inotify again" in caplog.text
    notified.until(touch(layout.want, an_id()))
    assert watch.hold(place)
    watch.stop()
    watch.arm()
    assert watch._inotify is None, "what was stopped does not begin again"


def test_a_directory_that_cannot_be_watched_is_told_once_and_watched_when_it_can_be(
    layout: Layout, notified: Notified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fsdm.reconcile.watcher")
    watch = Watcher(layout, notified.notify)
    with monkeypatch.context() as put:
        put.setattr("watchdog.observers.inotify_c.inotify_add_watch", lambda *_: -1)
        put.setattr("watchdog.observers.inotify_c.ctypes.get_errno", lambda: errno.ENOSPC)
        watch.start()
        watch.arm()
        assert sorted(record.levelname for record in caplog.records) == ["WARNING"] * WATCHES
        assert not watch.hold(put_chunk(layout))
    watch.arm()
    assert sum("is watched again" in record.getMessage() for record in caplog.records) == WATCHES
    notified.until(touch(layout.delete, an_id()))
    watch.stop()


def test_a_directory_that_may_not_be_read_is_none_that_is_watched(
    layout: Layout, notified: Notified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watcher(layout, notified.notify)
    with monkeypatch.context() as put:  # watchdog passes over this one
        put.setattr("watchdog.observers.inotify_c.inotify_add_watch", lambda *_: -1)
        put.setattr("watchdog.observers.inotify_c.ctypes.get_errno", lambda: errno.EACCES)
        watch.start()
        watch.arm()
        assert watch._inotify is not None
        assert watch._inotify._watch_for_wd == {}
    assert caplog.text.count("Permission denied") == WATCHES
    watch.arm()
    notified.until(touch(layout.want, an_id()))
    watch.stop()


@pytest.mark.parametrize("what", ["os.pipe", "threading.Thread.start"])
def test_asking_in_vain_leaves_no_descriptor_open(
    layout: Layout, notified: Notified, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_: object) -> object:
        raise RuntimeError("can't start new thread") if "Thread" in what else OSError(errno.EMFILE, "too many")

    watch, before = Watcher(layout, notified.notify), descriptors()
    with monkeypatch.context() as put:
        put.setattr(what, refuse)
        watch.start()
        for _ in range(3):
            watch.arm()
    assert descriptors() <= before  # another thread may have closed one
    watch.arm()
    notified.until(touch(layout.want, an_id()))
    watch.stop()
    assert descriptors() <= before  # another thread may have closed one


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_watchdogs_thread_has_died_there_is_another(layout: Layout, notified: Notified, watch: Watcher) -> None:
    inotify, place = watch._inotify, put_chunk(layout)
    assert inotify is not None
    assert watch.hold(place)
    inotify.handle_event = lambda _event: 1 / 0  # type: ignore[method-assign, assignment]
    touch(layout.want, an_id())
    inotify.join(PATIENCE_S)
    watch.arm()
    assert watch._inotify is not inotify
    notified.until(touch(layout.want, an_id()))
    assert watch.hold(place), "it is to be held anew"


def test_a_real_overflow_of_the_kernels_queue_notifies_everything(layout: Layout) -> None:
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    if most > 100_000:
        pytest.skip("the kernel's queue is too long here")
    begun, gate, everything = threading.Event(), threading.Event(), threading.Event()

    def notify(chunk_id: str | None) -> None:
        begun.set()
        gate.wait(PATIENCE_S)
        if chunk_id is None:
            everything.set()

    watch = Watcher(layout, notify)
    watch.start()
    try:
        touch(layout.want, an_id(0))
        assert begun.wait(PATIENCE_S)
        for number in range(most):
            touch(layout.want, an_id(number % 2))  # each makes two events that differ from the last
        gate.set()
        assert everything.wait(PATIENCE_S)
    finally:
        gate.set()
        watch.stop()


def test_a_mount_over_a_marker_is_watched(layout: Layout, notified: Notified, watch: Watcher, tmp_path: Path) -> None:
    def callbacks() -> list[int]:
        assert watch._inotify is not None
        return [len(each.callbacks) for each in watch._inotify._watch_for_wd.values()]

    other = tmp_path / "other"
    other.mkdir()
    for _ in range(2):
        if subprocess.run(["mount", "--bind", other, layout.want], capture_output=True, check=False).returncode:
            pytest.skip("only root may mount")
        try:
            watch.arm()
            notified.until(touch(layout.want, an_id()))
            assert callbacks() == [1] * WATCHES
        finally:
            subprocess.run(["umount", layout.want], check=True)
        watch.arm()
        notified.until(touch(layout.want, an_id()))
        assert callbacks() == [1] * WATCHES


def test_rest_follows_a_burst_and_not_a_single_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    inotify = Inotify()
    monkeypatch.setattr(watch_module.time, "sleep", rests.append)
    monkeypatch.setattr(InotifyFD, "handle_event", lambda *_: None)
    monkeypatch.setattr(InotifyFD, "read_events", lambda *_: [])
    for events, expected in ((BURST_EVENTS - 1, []), (1, []), (BURST_EVENTS, [REST_S]), (0, [REST_S])):
        for _ in range(events):
            inotify.handle_event(None)  # type: ignore[arg-type]  # it is only counted
        assert inotify.read_events() == []
        assert rests == expected
    monkeypatch.undo()
    inotify.start()
    inotify.stop()
    inotify.join()
