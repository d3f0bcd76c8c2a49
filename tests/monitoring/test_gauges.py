"""How a reconciler stands, in numbers: from what it has in memory, while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from fsdm import DataManager, Limits
from fsdm.model.state import State
from fsdm.monitoring.gauges import read_gauges
from fsdm.status.chunk_status import read_status
from tests.support.chunks import an_id, touch_delete
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from fsdm import DataChunk
    from fsdm.monitoring.gauges import Gauges
    from fsdm.reconcile.ledger import Part
    from tests.support.source import Source


def gauges(dm: DataManager) -> Gauges:
    assert dm.reconciler is not None
    return read_gauges(dm.reconciler.loop)


def stored_bytes(dm: DataManager) -> dict[Part, int]:
    assert dm.reconciler is not None
    found = dm.reconciler.loop.bytes_by_part()
    assert found is not None
    return found


def by_status(dm: DataManager) -> dict[State, int]:
    """The same numbers from the files alone."""
    chunks = read_status(dm.layout).chunks.values()
    return {state: sum(chunk.state == state for chunk in chunks) for state in get_args(State)}


def test_an_empty_directory_has_a_zero_for_every_state(dm: DataManager) -> None:
    eventually(lambda: dm.counters.counts().loop.total > 0)
    found = gauges(dm)
    assert found.chunks == dict.fromkeys(get_args(State), 0)
    assert (found.oldest_want_at, found.oldest_delete_at, found.fetching) == (None, None, ())
    assert (found.paused_by_disk, found.paused_by_hand, found.held_back_deletes) == (False, False, 0)


def test_chunks_of_every_kind_are_counted_as_status_counts_them(data_dir: Path, source: Source) -> None:
    here, held, failing = (source.chunk(start=n, end=n + 1) for n in range(3))
    large = source.chunk(start=4, end=5, size=4 << 20)
    slow = source.chunk(start=5, end=6, files=1, size=3 << 20)
    source.fault(f"/{failing.id}/blocks.parquet", status=404)
    stall = source.fault(f"/{slow.id}/blocks.parquet", stall_at=2 << 20)
    with DataManager(data_dir, limits=Limits(max_bytes=4 << 20)) as dm:
        for chunk in (here, held):
            dm.download_chunk(chunk)
            dm.wait(chunk.id, PATIENCE_S)
        with dm.find_chunk(held.dataset_id, 1):
            dm.delete_chunk(held.id)
            for chunk in (failing, large, slow):
                dm.download_chunk(chunk)
            assert stall.stalled.wait(PATIENCE_S)
            expected = {"available": 1, "retiring": 1, "failed": 1, "waiting": 1, "downloading": 1}
            eventually(lambda: {state: n for state, n in gauges(dm).chunks.items() if n} == expected)
            eventually(lambda: gauges(dm).held_chunks == 1)
            eventually(lambda: gauges(dm).waits >= 1)  # the failing one backs off
            eventually(lambda: gauges(dm).parked_fetches == 1)
            found = gauges(dm)
            assert found.chunks == by_status(dm)
            assert (found.fetching, found.parked_fetches, found.max_bytes) == ((slow.id,), 1, 4 << 20)
            assert found.oldest_want_at is not None
            assert found.oldest_delete_at is not None
            stored = stored_bytes(dm)
            assert (stored["here"], stored["retiring"]) == (2000, 2000)
            eventually(lambda: 0 < stored_bytes(dm)["partial"] < 3 << 20)  # what has come, not what is to come
            stall.gate.set()
            dm.wait(slow.id, PATIENCE_S)
        eventually(lambda: gauges(dm).chunks["retiring"] == 0)
        assert gauges(dm).chunks["available"] == 2
        assert gauges(dm).held_chunks == 0


def test_the_oldest_intent_is_the_one_that_was_placed_first(dm: DataManager, source: Source, data_dir: Path) -> None:
    def placed_at(chunk: DataChunk) -> float:
        return (data_dir / "want" / chunk.id).stat().st_ctime_ns / 1e9

    first, second = source.chunk(files=1), source.chunk(files=1)
    for chunk in (first, second):
        source.fault(f"/{chunk.id}/blocks.parquet", status=404)
        dm.download_chunk(chunk)
        eventually(lambda chunk=chunk: dm.status().chunks[chunk.id].state == "failed")
    eventually(lambda: gauges(dm).oldest_want_at == placed_at(first))
    dm.delete_chunk(first.id)
    eventually(lambda: gauges(dm).oldest_want_at == placed_at(second))


def test_an_entry_that_is_no_intent_has_no_age(dm: DataManager, data_dir: Path) -> None:
    (data_dir / "delete" / an_id()).mkdir()
    eventually(lambda: gauges(dm).chunks["failed"] == 1)
    assert gauges(dm).oldest_delete_at is None
    assert dm.counters.counts().failures["marker"] == 1


def test_bytes_are_counted_without_a_budget_where_that_is_asked_for(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(data_dir, limits=Limits(count_bytes=True)) as dm:
        dm.download_chunk(chunk)
        dm.wait(chunk.id, PATIENCE_S)
    with DataManager(data_dir, limits=Limits(count_bytes=True)) as dm:  # counted at the start
        assert dm.reconciler is not None
        assert dm.reconciler.loop.bytes_by_part() == {"here": 2000, "retiring": 0, "partial": 0, "trash": 0}
        touch_delete(data_dir, chunk.id)
        eventually(lambda: dm.reconciler and set(dm.reconciler.loop.bytes_by_part().values()) == {0})  # type: ignore[union-attr]
        assert gauges(dm).max_bytes is None
    with DataManager(data_dir) as dm:
        assert dm.reconciler is not None
        assert dm.reconciler.loop.bytes_by_part() is None
