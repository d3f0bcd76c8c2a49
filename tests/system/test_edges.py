"""Edges, across the rooms: what a second pair of eyes found, each once a defect."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fsdm.client import Client
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk, FileSource
from fsdm.model.errors import DataDirectoryError, FsdmError, StoppedError, TransferError
from fsdm.model.layout import Place
from fsdm.reconcile.actions import Overrule, Retire
from fsdm.reconcile.outcome import Stale
from fsdm.reconcile.plan import NO_MEMO, decide
from fsdm.status.chunk_status import read_status
from fsdm.store import refs as refs_module
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem, exists
from fsdm.store.json_files import read_manifest
from fsdm.store.marker_removal import finish_removals, remove_marker
from fsdm.store.markers import place_want
from fsdm.store.refs import Refs
from fsdm.store.scan import look
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http.session import shown
from fsdm.transfer.resume_record import Part
from fsdm.verify.manifest_check import damage
from tests.support.applying import Bench
from tests.support.chunks import a_want, an_id, judged, put, put_chunk, put_want, touch_delete
from tests.support.filesystems import CrashBefore, CrashError
from tests.support.locks import can_lock, in_a_fork
from tests.support.servers import InThread, fetch, full_server
from tests.support.source import Source


@pytest.mark.parametrize("loser", ["want", "delete"])
def test_a_crash_while_a_marker_is_overruled_does_not_turn_the_outcome(layout, loser):
    chunk = a_want()
    want, delete = layout.want_marker(chunk.id), layout.delete_marker(chunk.id)

    def w():
        with open(want, "wb") as f:
            f.write(chunk.to_json())

    def d():
        open(delete, "w").close()

    import time

    first, second = (w, d) if loser == "want" else (d, w)
    first()
    time.sleep(0.02)
    second()
    state = look(layout, Catalog(layout), chunk.id)
    action = decide(state, NO_MEMO, 0.0)
    assert isinstance(action, Overrule)
    assert action.loser == loser
    time.sleep(0.02)
    lost, win = (want, delete) if loser == "want" else (delete, want)
    with pytest.raises(CrashError):
        remove_marker(layout, CrashBefore(1), lost, judged(lost), (win, judged(win)))
    finish_removals(layout, FileSystem())  # the next start
    state = look(layout, Catalog(layout), chunk.id)
    action = decide(state, NO_MEMO, 0.0)
    assert not isinstance(action, Overrule) or action.loser == loser


def test_a_want_placed_after_a_crash_in_forget_is_not_overruled_by_the_restored_delete(layout):
    import time

    chunk = a_want()
    delete = layout.delete_marker(chunk.id)
    put(delete)
    with pytest.raises(CrashError):
        remove_marker(layout, CrashBefore(1), delete, judged(delete), None)
    place_want(layout, chunk)  # a careful client, while no reconciler runs
    time.sleep(0.02)
    finish_removals(layout, FileSystem())
    action = decide(look(layout, Catalog(layout), chunk.id), NO_MEMO, 0.0)
    assert not isinstance(action, Overrule) or action.loser == "delete", action


def test_a_ref_that_is_abandoned_inside_take_is_let_go(layout, monkeypatch):
    place, other = put_chunk(layout), put_chunk(layout, start=50, end=60)
    held = Refs(layout)
    _kept = held.take(other)
    bag = [held.take(place)]

    def gc_runs_here(path, fd=None):
        bag.clear()  # the collector runs inside the mutex
        return exists(path, fd)

    with monkeypatch.context() as m:
        # only inside the mutex
        m.setattr(
            refs_module,
            "exists",
            lambda path, fd=None: gc_runs_here(path, fd) if held._mutex.locked() else exists(path, fd),
        )
        held.take(other)
    assert can_lock(layout.path(place))


def test_a_finalizer_that_closes_a_ref_inside_take_does_not_hang(layout, monkeypatch):
    place, other = put_chunk(layout), put_chunk(layout, start=50, end=60)
    held = Refs(layout)
    _kept = held.take(other)
    ref = held.take(place)

    def fin(path, fd=None):
        if held._mutex.locked():
            ref.close()  # as a generator's `with ref:` does, when collected
        return exists(path, fd)

    monkeypatch.setattr(refs_module, "exists", fin)
    t = threading.Thread(target=lambda: held.take(other), daemon=True)
    t.start()
    t.join(2)
    assert not t.is_alive()


def test_a_want_on_a_full_disk_is_refused_and_not_cut(layout):
    script = """
import resource, sys
from fsdm.model.layout import Layout
from fsdm.store.markers import place_want
from fsdm.model.errors import FsdmError
from tests.store.test_markers import a_want
c = a_want(id=sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try: place_want(Layout(sys.argv[1]), c)
except FsdmError as e: print("refused", e)
else: print("placed")
"""
    cid = an_id()
    r = subprocess.run([sys.executable, "-c", script, layout.root, cid], capture_output=True, text=True, check=False)
    assert r.stdout.startswith("refused"), (r.stdout, r.stderr, Path(layout.want_marker(cid)).read_bytes())


def test_a_bad_port_is_a_transfer_error(tmp_path):
    for url in ("http://127.0.0.1:99999/x", "http://127.0.0.1:abc/x"):
        try:
            src = FileSource(url=url)
        except ValueError:
            continue
        with pytest.raises(TransferError):
            HttpFetcher().fetch(src, Part(str(tmp_path / "f")), FileSystem(), Cancellation())


def test_an_ipv6_host_keeps_its_brackets():
    assert shown("http://u@[::1]:80/x") == "http://[::1]:80/x"


def test_one_dataset_that_cannot_be_listed_holds_up_no_other(layout):
    place = put_chunk(layout)
    os.symlink("e" * 64, layout.dataset("e" * 64))
    c = Catalog(layout)
    assert c.refresh() == {place.chunk_id}


def test_a_dataset_removed_right_after_an_add_leaves_nothing(layout):
    c = Catalog(layout, own=True)
    place = put_chunk(layout)
    c.add(place)
    shutil.rmtree(layout.dataset(place.dataset_id))
    c.refresh()
    assert c.places(place.chunk_id) == ()


def test_data_that_is_a_file_is_damage(layout):
    place = put_chunk(layout)
    p = layout.path(place)
    shutil.rmtree(p + "/data")
    open(p + "/data", "w").close()
    assert damage(layout, place) is not None


def test_ready_that_is_a_directory_is_no_manifest_and_leaks_nothing(layout):
    place = put_chunk(layout)
    p = layout.path(place)
    os.unlink(p + "/READY")
    os.mkdir(p + "/READY")
    before = len(os.listdir("/proc/self/fd"))
    try:
        m = read_manifest(p)
    except OSError:
        m = "raised"
    assert m is None
    assert len(os.listdir("/proc/self/fd")) <= before  # another thread may have closed one


def test_a_directory_of_the_right_size_in_the_place_of_a_file_is_damage(layout):
    place = put_chunk(layout, files={"a": b"x" * 4096})
    p = layout.path(place)
    os.unlink(p + "/data/a")
    os.mkdir(p + "/data/a")
    if os.lstat(p + "/data/a").st_size != 4096:
        pytest.skip("other fs")
    assert damage(layout, place) is not None


def test_a_symlink_of_the_right_size_is_damage(layout):
    place = put_chunk(layout, files={"a": b"x" * 10})
    p = layout.path(place)
    os.unlink(p + "/data/a")
    os.symlink("y" * 10, p + "/data/a")
    assert damage(layout, place) is not None


def test_status_leaks_no_descriptor_on_a_directory(layout):
    cid = an_id()
    os.mkdir(layout.failed_of(cid))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read_status(layout)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_held_directory_that_was_removed_is_stale(layout):
    place = put_chunk(layout)
    bench = Bench(layout)
    ref = Refs(layout).take(place)
    touch_delete(Path(layout.root), place.chunk_id)
    act = Retire(place.chunk_id, place, bench.delete(place.chunk_id))
    bench.apply(act)
    shutil.rmtree(layout.path(place))
    ref.close()
    assert bench.apply(act) == Stale()


def test_silence_in_the_body_is_told_as_silence(tmp_path):
    with Source() as s:
        url = s.put("/f", b"x" * 1000)
        s.fault("/f", stall_at=10)
        with pytest.raises(TransferError, match="not a byte for"):
            HttpFetcher(idle_timeout_s=0.05).fetch(
                FileSource(url=url), Part(str(tmp_path / "f")), FileSystem(), Cancellation()
            )


def test_a_client_of_a_directory_that_went_says_so_in_our_words(layout):
    c = Client(layout.root)
    shutil.rmtree(layout.root)
    for call in (c.list_chunks, lambda: c.wait_converged(0)):
        with pytest.raises(FsdmError):
            call()


def test_a_want_with_a_key_self_is_a_want():
    c = a_want()
    t = c.to_json().decode().replace("{", '{"self": 1, ', 1)
    DataChunk.parse_want(t.encode(), c.id)


def test_confirm_syncs_the_rename_that_a_crash_cut_off(layout):
    from fsdm.reconcile.actions import Confirm, Fetch, Publish
    from tests.support.applying import a_chunk
    from tests.support.filesystems import Recorder

    chunk = a_chunk()
    put_want(Path(layout.root), chunk)
    b = Bench(layout)
    b.apply(Fetch(chunk.id, b.want(chunk.id)))

    class CrashAtDatasetSync(FileSystem):
        def step(self, name, path):
            if name == "fsync_dir" and path == layout.dataset(chunk.dataset_id):
                raise CrashError

    with pytest.raises(CrashError):
        Bench(layout, fs=CrashAtDatasetSync()).apply(Publish(chunk.id, b.want(chunk.id)))
    rec = Recorder()
    b = Bench(layout, fs=rec)
    b.apply(Confirm(chunk.id, b.want(chunk.id), chunk.place))
    assert ("fsync_dir", layout.dataset(chunk.dataset_id)) in rec.steps


def test_a_lock_exception_is_ours(layout, monkeypatch):
    def refuse(fd, flags):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fsdm.store.flock.try_flock", refuse)
    with pytest.raises(FsdmError):
        place_want(layout, a_want())


def test_a_plain_file_in_the_place_of_a_chunk_keeps_no_want_and_no_delete_from_its_end(layout):
    place = Place.of("d" * 64, range(10), an_id())
    os.makedirs(layout.dataset("d" * 64))
    open(layout.path(place), "w").close()
    touch_delete(Path(layout.root), place.chunk_id)
    b = Bench(layout)
    b.converge(place.chunk_id)
    assert not os.path.lexists(layout.path(place))


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_stop_that_comes_just_before_the_connect_ends_it_too(tmp_path, when):
    class Told(Cancellation):
        def guard(self, sock, **how):
            super().guard(sock, **how)
            self.set()

    stop = Told() if when == "between" else Cancellation()
    if when == "before":
        stop.set()
    with full_server() as port:
        fetcher = HttpFetcher(connect_timeout_s=200)
        thread = InThread(lambda: fetch(f"http://127.0.0.1:{port}/", tmp_path / "f", stop, fetcher=fetcher))
        thread._thread.join(10)
        assert not thread._thread.is_alive()
        assert isinstance(thread.result, StoppedError)


def test_a_reader_who_may_not_look_into_delete_is_refused(layout):
    def as_nobody():
        os.setuid(65534)
        with pytest.raises(DataDirectoryError, match="may not be searched"):
            Client(layout.root)

    if os.geteuid() != 0:
        pytest.skip("another user can be played by root alone")
    os.chmod(layout.delete, 0o700)
    for directory in (Path(layout.root), *Path(layout.root).parents[:-2]):
        directory.chmod(0o755)
    assert in_a_fork(as_nobody)
