"""How one chunk stands, how many stand so, and a delete that is refused where somebody holds the chunk."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdm import ChunkInUseError, ChunkRef, Client, DataManager, InvalidInputError, Limits, UnknownChunkError
from fsdm.model.layout import Place
from fsdm.store.flock import EXCLUSIVE, LockDescriptor, open_fd, try_flock
from tests.support import fsdm, fsdm_json
from tests.support.chunks import an_id, bring, chunk_dir, entries, put_chunk
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually, next_tick

HOLDER = """
import sys
from fsdm import Client
with Client(sys.argv[1]) as client, client.find_chunk(sys.argv[2], int(sys.argv[3])) as ref:
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_each_chunk_is_told_and_each_kind_counted(data_dir: Path, source: Source) -> None:
    wanted, cached, known, failing, given_up = (source.chunk(start=n, end=n + 1, files=1) for n in range(5))
    for chunk in (failing, given_up):
        source.fault(f"/{chunk.id}/blocks.parquet", status=404)
    with DataManager(data_dir, limits=Limits(max_attempts=2)) as dm:
        bring(dm, wanted)
        for chunk in (cached, known):
            dm.register(chunk)
        dm.acquire(cached.id, PATIENCE_S).close()
        for chunk in (failing, given_up):
            dm.download_chunk(chunk)
            eventually(lambda one=chunk: dm.info(one.id).attempts == 1)
        dm.recover(given_up.id)
        dm.change(Limits(max_attempts=1))
        dm.recover(given_up.id)
        eventually(lambda: dm.info(given_up.id).given_up)
        told = [dm.info(one.id) for one in (wanted, cached, known, failing, given_up)]
        with dm.acquire(wanted.id) as _:
            counts = dm.status().counts
    assert [(one.state, one.known, one.cached, one.given_up) for one in told] == [
        ("available", False, False, False),
        ("available", True, True, False),
        ("known", True, False, False),
        ("failed", False, False, False),
        ("failed", False, False, True),
    ]
    assert (told[2].dataset_id, told[2].block_range) == (known.dataset_id, known.block_range)
    expected = {"known": 2, "fetching": 0, "available": 2, "held": 1, "cached": 1, "failing": 1, "given_up": 1}
    assert counts == expected
    shown = fsdm_json("status", "-d", data_dir, "--counts")
    assert shown == {"counts": counts | {"held": 0}}
    assert fsdm("status", "-d", data_dir, "--counts").stdout.splitlines()[0] == "known\t2"


def test_registered_chunk_is_shown_where_it_is_asked_for(data_dir: Path, dm: DataManager, source: Source) -> None:
    here, known = (source.chunk(start=n, end=n + 1, files=1) for n in range(2))
    bring(dm, here)
    dm.register(known)
    assert [*dm.status().chunks] == [here.id]
    for arguments in ((known.id,), ("--state", "known")):
        assert [one["state"] for one in fsdm_json("status", "-d", data_dir, *arguments)["chunks"]] == ["known"]
    assert fsdm("status", "-d", data_dir, an_id(9)).returncode == 3


def test_nothing_is_known_of_a_chunk_that_was_never_asked_for(dm: DataManager) -> None:
    with pytest.raises(UnknownChunkError, match="nothing is known"):
        dm.info(an_id(1))
    with pytest.raises(InvalidInputError, match="chunk_id"):
        dm.info("x")


def test_chunk_that_is_held_is_not_deleted_and_its_holder_is_named(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        next_tick(data_dir)
        dm.register(chunk)
        command = [sys.executable, "-c", HOLDER, str(data_dir), chunk.dataset_id, "0"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holds\n"
            with pytest.raises(ChunkInUseError, match=f"pid {holder.pid}"):
                dm.delete_chunk(chunk.id, unless_held=True)
            done = fsdm("delete", "-d", data_dir, chunk.id, "--unless-held")
            assert (done.returncode, f"pid {holder.pid}" in done.stderr) == (1, True)
            assert fsdm_json("delete", "-d", data_dir, chunk.id, "--unless-held", "--dry-run")["deleted"] == []
            assert entries(data_dir / "delete") == []
            assert entries(data_dir / "known") == [chunk.id]
            assert dm.list_chunks() == [chunk.id]
            holder.communicate("")
        with dm.acquire(chunk.id), pytest.raises(ChunkInUseError, match="is held by"):
            dm.delete_chunk(chunk.id, unless_held=True)  # by this process as well
        dm.delete_chunk(chunk.id, unless_held=True)
        assert not dm.wait(chunk.id, PATIENCE_S)
    assert entries(data_dir / "known") == []


def test_what_is_not_here_is_deleted_and_a_stray_file_holds_nothing(data_dir: Path, dm: DataManager) -> None:
    dm.delete_chunk(an_id(3), unless_held=True)
    assert not dm.wait(an_id(3), PATIENCE_S)
    place = put_chunk(dm.layout)
    Path(dm.layout.path(place)).rename(data_dir / "elsewhere")
    Path(dm.layout.path(place)).touch()
    dm.delete_chunk(place.chunk_id, unless_held=True)
    eventually(lambda: not Path(dm.layout.path(place)).exists())


def test_no_ref_is_given_once_the_delete_stands_and_none_is_held_then(
    data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delete comes while the directory is locked: whoever takes a ref looks for it after that."""
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    with Client(data_dir) as client, Client(data_dir) as reader:
        from fsdm.store import asker

        def place(layout: object, chunk_id: str, real: object = asker.place_delete) -> None:
            lock = LockDescriptor()
            lock.fd = fd = open_fd(str(chunk_dir(data_dir, chunk)))
            assert not try_flock(fd, EXCLUSIVE)
            lock.close()
            assert reader.find_chunk(chunk.dataset_id, 0) is None
            real(layout, chunk_id)  # type: ignore[operator]

        monkeypatch.setattr(asker, "place_delete", place)
        client.delete_chunk(chunk.id, unless_held=True)
        assert reader.find_chunk(chunk.dataset_id, 0) is None


def test_readers_and_deletes_that_race_never_both_win(data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(start=n, end=n + 1, files=1) for n in range(12)]
    with DataManager(data_dir) as dm:
        bring(dm, *chunks)
    both, refs = list[str](), list[ChunkRef | None]()
    with Client(data_dir) as deleter, Client(data_dir) as reader, ThreadPoolExecutor(2) as pool:
        for chunk in chunks:
            barrier = threading.Barrier(2)

            def hold(place: Place = chunk.place, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                refs.append(reader.find_chunk(place.dataset_id, place.block_range.start))
                return refs[-1] is not None

            def delete(chunk_id: str = chunk.id, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                try:
                    deleter.delete_chunk(chunk_id, unless_held=True)
                except ChunkInUseError:
                    return False
                return True

            held, deleted = pool.submit(hold), pool.submit(delete)
            both += [chunk.id] * (held.result() and deleted.result())
    assert both == []
