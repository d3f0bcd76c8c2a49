"""What is registered, not wanted and not held goes when its room is needed, and comes again when it is asked for."""

import os
import threading
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager, InvalidInputError, Limits, WaitTimeoutError
from fsdm.model.layout import CACHED, READY
from fsdm.reconcile.actions import Evict
from fsdm.reconcile.caching import may_go
from fsdm.store.eviction import victims
from fsdm.store.filesystem import FileSystem
from fsdm.store.markers import place_evict
from tests.support import fsdm_json
from tests.support.chunks import bring, chunk_dir, entries, judged, put_chunk
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually, next_tick

SIZE = 1000


def used_at(data_dir: Path, chunk: DataChunk, at: int) -> None:
    """Let a chunk have been used last so long ago, with no request that says it is in use."""
    (data_dir / "acquire" / chunk.id).unlink(missing_ok=True)
    os.utime(chunk_dir(data_dir, chunk) / CACHED, (at, at))


def acquired(data_dir: Path, dm: DataManager, source: Source, count: int) -> list[DataChunk]:
    """Chunks that may be evicted, the least recently used first."""
    chunks = [source.chunk(start=n * 10, end=n * 10 + 10, files=1, size=SIZE) for n in range(count)]
    for chunk in chunks:
        dm.register(chunk)
        dm.acquire(chunk.id, PATIENCE_S).close()
    eventually(lambda: not entries(data_dir / "acquire"))
    for n, chunk in enumerate(chunks, 1):
        used_at(data_dir, chunk, n)
    return chunks


def test_gc_evicts_the_least_recently_used_and_tells_of_each(data_dir: Path, dm: DataManager, source: Source) -> None:
    old, held, new = acquired(data_dir, dm, source, 3)
    with dm.acquire(held.id, PATIENCE_S) as ref:
        eventually(lambda: (chunk_dir(data_dir, held) / CACHED).stat().st_mtime > 10)
        used_at(data_dir, held, 2)
        assert [one.id for one in dm.gc(to_bytes=SIZE, dry_run=True)] == [old.id, held.id]
        found = {one.id: (one.outcome, one.size_bytes) for one in dm.gc(to_bytes=SIZE, timeout_s=PATIENCE_S)}
        assert found == {old.id: ("evicted", SIZE), held.id: ("held", SIZE)}
        assert dm.list_chunks() == [held.id, new.id], "a refused claim leaves it available"
        assert ref.path.exists()
    assert entries(data_dir / "known") == sorted(one.id for one in (old, held, new))
    assert entries(data_dir / "want") == entries(data_dir / "evict") == []
    dm.acquire(old.id, PATIENCE_S).close()
    assert source.asked[f"/{old.id}/blocks.parquet"] == 2


def test_what_is_wanted_or_not_registered_is_never_evicted(data_dir: Path, dm: DataManager, source: Source) -> None:
    wanted, pinned, unknown, other_files = (source.chunk(start=n, end=n + 1, files=1) for n in range(4))
    bring(dm, wanted, unknown)
    for chunk in (pinned, other_files):
        dm.register(chunk)
        dm.acquire(chunk.id, PATIENCE_S).close()
    next_tick(data_dir)
    bring(dm, pinned)
    files = {"blocks.parquet": {"url": source.url, "size": 7}}
    dm.register(DataChunk(id=other_files.id, dataset_id=other_files.dataset_id, block_range=(3, 4), files=files))
    eventually(lambda: not entries(data_dir / "acquire") or used_at(data_dir, other_files, 1))
    assert [(one.id, one.outcome) for one in dm.gc(timeout_s=PATIENCE_S)] == [(other_files.id, "kept")]
    for chunk in (wanted, pinned, unknown, other_files):
        (data_dir / "evict" / chunk.id).touch()
    eventually(lambda: not entries(data_dir / "evict"))
    assert sorted(dm.list_chunks()) == sorted(one.id for one in (wanted, pinned, unknown, other_files))


def test_registration_after_a_want_lets_the_chunk_be_evicted(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    bring(dm, chunk)
    assert dm.gc(timeout_s=PATIENCE_S) == []
    next_tick(data_dir)
    dm.register(chunk)
    assert [one.outcome for one in dm.gc(timeout_s=PATIENCE_S)] == ["evicted"]
    assert not chunk_dir(data_dir, chunk).exists()


def test_what_somebody_waits_for_is_not_evicted(data_dir: Path, dm: DataManager, source: Source) -> None:
    (chunk,) = acquired(data_dir, dm, source, 1)
    (data_dir / "acquire" / chunk.id).touch()
    (data_dir / "evict" / chunk.id).touch()
    eventually(lambda: not entries(data_dir / "evict"))
    assert dm.list_chunks() == [chunk.id]


def test_eviction_cut_off_by_a_crash_brings_nothing_back(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        next_tick(data_dir)
        dm.register(chunk)
        layout = dm.layout
    place_evict(layout, chunk.id)
    assert may_go(layout, FileSystem(), Evict(chunk.id, chunk.place, judged(layout.evict_marker(chunk.id))), [])
    os.unlink(chunk_dir(data_dir, chunk) / READY)
    os.unlink(data_dir / "known" / chunk.id)
    with DataManager(data_dir) as dm:
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
        dm.wait_converged(PATIENCE_S)
    assert sum(source.asked.values()) == 1
    assert entries(data_dir / "want") == []


def test_what_does_not_fit_takes_the_room_of_the_least_recently_used(data_dir: Path, source: Source) -> None:
    with DataManager(data_dir, limits=Limits(max_bytes=10 * SIZE)) as dm:
        chunks = acquired(data_dir, dm, source, 10)
        wanted = source.chunk(start=1000, end=1001, files=1, size=SIZE)
        bring(dm, wanted)
        assert dm.list_chunks() == [*(one.id for one in chunks[2:]), wanted.id], "down to nine tenths, and no further"
        dm.acquire(chunks[0].id, PATIENCE_S).close()
        assert len(dm.list_chunks()) == 10
        dm.acquire(chunks[1].id, PATIENCE_S).close()
        assert not {chunks[2].id, chunks[3].id} & set(dm.list_chunks())
        assert len(dm.list_chunks()) == 9


def test_as_much_goes_as_is_said_once_anything_has_to(data_dir: Path, source: Source) -> None:
    with DataManager(data_dir, limits=Limits(max_bytes=10 * SIZE)) as dm:
        chunks = acquired(data_dir, dm, source, 10)
        dm.change(Limits(max_bytes=10 * SIZE, cache_low=0.5))
        wanted = source.chunk(start=1000, end=1001, files=1, size=SIZE)
        bring(dm, wanted)
        assert dm.list_chunks() == [*(one.id for one in chunks[6:]), wanted.id]


def test_nothing_is_evicted_for_what_can_never_fit(data_dir: Path, source: Source) -> None:
    with DataManager(data_dir, limits=Limits(max_bytes=3 * SIZE)) as dm:
        chunks = acquired(data_dir, dm, source, 3)
        large = source.chunk(start=1000, end=1001, files=1, size=4 * SIZE)
        dm.register(large)
        with pytest.raises(WaitTimeoutError, match="more than the"):
            dm.acquire(large.id, 1.0)
        assert dm.list_chunks() == [one.id for one in chunks]


def test_budget_holds_while_many_ask(data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(start=n, end=n + 1, files=1, size=SIZE) for n in range(24)]
    over = []
    with DataManager(data_dir, limits=Limits(max_bytes=8 * SIZE)) as dm:
        for chunk in chunks:
            dm.register(chunk)

        def ask(mine: list[DataChunk]) -> None:
            for chunk in mine:
                with dm.acquire(chunk.id, PATIENCE_S) as ref:
                    assert ref.id == chunk.id
                (data_dir / "acquire" / chunk.id).unlink(missing_ok=True)
                over.append(len(dm.list_chunks()))

        threads = [threading.Thread(target=ask, args=(chunks[n::4] * 2,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(over) == 2 * len(chunks), "all were served"
    assert max(over) <= 8


def test_victims_are_chosen_by_their_last_use(layout: object, data_dir: Path, dm: DataManager, source: Source) -> None:
    chunks = acquired(data_dir, dm, source, 3)
    used_at(data_dir, chunks[0], 100)
    put_chunk(dm.layout)
    found = victims(dm.layout, dm.available_places())
    assert [one.place.chunk_id for one in found] == [chunks[1].id, chunks[2].id, chunks[0].id]


def test_bad_bounds_are_refused(dm: DataManager) -> None:
    for bad in ({"to_bytes": -1}, {"idle_s": -1.0}, {"idle_s": float("nan")}):
        with pytest.raises(InvalidInputError, match=f"^{next(iter(bad))}: must not be below zero$"):
            dm.gc(**bad)


def test_gc_is_a_verb(data_dir: Path, dm: DataManager, source: Source) -> None:
    first, second = acquired(data_dir, dm, source, 2)
    assert fsdm_json("gc", "-d", data_dir, "--to", SIZE, "--dry-run")["freed_bytes"] == SIZE
    assert len(dm.list_chunks()) == 2
    shown = fsdm_json("gc", "-d", data_dir, "--to", SIZE)
    assert shown == {"chunks": [{"id": first.id, "outcome": "evicted", "size_bytes": SIZE}], "freed_bytes": SIZE}
    assert dm.list_chunks() == [second.id]
