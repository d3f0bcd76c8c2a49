"""The numbers that Prometheus reads: after real downloads, failures and deletes, and told as it wants them."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import fsdm
from fsdm import DataChunk, DataManager, Index, Limits
from fsdm.model.errors import Cause
from fsdm.model.events import Kind
from fsdm.model.layout import Layout
from fsdm.model.state import ChunkState, State
from fsdm.monitoring import metrics as module
from fsdm.monitoring.health import Health
from fsdm.monitoring.metrics import METRICS, Metrics
from fsdm.reconcile import actions
from fsdm.reconcile.counters import Counts
from fsdm.reconcile.memo import NO_MEMO
from fsdm.reconcile.space_budget import PARTS, Part
from fsdm.store.filesystem import Space
from fsdm.store.pause import place_pause, remove_pause
from tests.support import PATIENCE_S, Source, eventually
from tests.support.chunks import an_id, chunk_dir, entries, touch_delete
from tests.support.states import DELETE, ID, NOW, OLD, WANT

DOCS = Path(fsdm.__file__).parent / "docs"


def value(dm: DataManager, name: str, **labels: str) -> float | None:
    return Metrics(dm).registry.get_sample_value(name, labels)


def get(dm: DataManager, chunk: DataChunk) -> None:
    dm.download_chunk(chunk)
    dm.wait(chunk.id, PATIENCE_S)


def drop(dm: DataManager, chunk: DataChunk) -> None:
    dm.delete_chunk(chunk.id)
    eventually(lambda: dm.counters.counts().events["deleted"] > 0)
    dm.wait_converged(PATIENCE_S)


def test_what_came_and_went_is_in_the_histograms_once_each(dm: DataManager, source: Source) -> None:
    chunks = [source.chunk(start=n, end=n + 1) for n in range(3)]
    for chunk in chunks:
        get(dm, chunk)
    drop(dm, chunks[0])
    assert value(dm, "fsdm_want_to_available_seconds_count") == 3
    assert value(dm, "fsdm_fetch_seconds_count") == 3
    assert value(dm, "fsdm_delete_to_gone_seconds_count") == 1
    for name in ("fsdm_want_to_available_seconds", "fsdm_fetch_seconds", "fsdm_delete_to_gone_seconds"):
        count = value(dm, f"{name}_count")
        assert count is not None
        assert value(dm, f"{name}_bucket", le="+Inf") == value(dm, f"{name}_bucket", le="86400.0") == count
        assert 0 < (value(dm, f"{name}_sum") or 0) < PATIENCE_S * count
    assert value(dm, "fsdm_published_bytes_total") == 6000
    assert value(dm, "fsdm_received_bytes_total") == 6000
    assert value(dm, "fsdm_events_total", kind="available") == 3
    assert value(dm, "fsdm_chunks", state="available") == 2


def test_a_delete_that_waited_for_a_ref_took_as_long(dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    get(dm, chunk)
    with dm.find_chunk(chunk.dataset_id, 0):  # type: ignore[union-attr]  # it is there
        dm.delete_chunk(chunk.id)
        eventually(lambda: value(dm, "fsdm_held_chunks") == 1)
        eventually(lambda: (value(dm, "fsdm_oldest_intent_age_seconds", intent="delete") or 0) > 0.1)
        assert value(dm, "fsdm_delete_to_gone_seconds_count") == 0
    eventually(lambda: value(dm, "fsdm_delete_to_gone_seconds_count") == 1)
    assert (value(dm, "fsdm_delete_to_gone_seconds_sum") or 0) > 0.1
    eventually(lambda: value(dm, "fsdm_oldest_intent_age_seconds", intent="delete") == 0)


def test_bytes_that_came_for_nothing_are_received_and_not_published(dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    source.fault(f"/{chunk.id}/blocks.parquet", cut_at=600, no_ranges=True)
    dm.download_chunk(chunk)
    eventually(lambda: dm.counters.counts().events["failed"] > 0)
    assert (value(dm, "fsdm_received_bytes_total") or 0) >= 600
    assert value(dm, "fsdm_published_bytes_total") == 0


def _refused(source: Source) -> DataChunk:
    files = {"a": {"url": "http://127.0.0.1:1/a"}}  # nobody listens there
    return DataChunk(id=an_id(), dataset_id="d" * 64, block_range=(0, 1), files=files)


def _with(other: bytes | None = None, **fault: Any) -> Callable[[Source], DataChunk]:
    """Make a chunk whose file is answered with a fault, or has other bytes than the want declares."""

    def make(source: Source) -> DataChunk:
        chunk = source.chunk(files=1)
        path = f"/{chunk.id}/blocks.parquet"
        if other is not None:
            source.put(path, other)
        else:
            to_itself = {"headers": {"Location": path}} if fault == {"status": 302} else {}
            source.fault(path, **fault, **to_itself)
        return chunk

    return make


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (_with(status=403), "http_403"),
        (_with(status=404), "http_404"),
        (_with(status=410), "http_404"),
        (_with(status=418), "http_4xx"),
        (_with(status=429), "http_429"),
        (_with(status=503), "http_5xx"),
        (_with(cut_at=10), "connection"),
        (_with(headers={"Content-Encoding": "gzip"}), "answer"),
        (_with(status=302, headers={"Location": "ftp://127.0.0.1/"}), "policy"),
        (_with(status=302), "redirect"),
        (_refused, "connection"),
        (_with(bytes(1000)), "digest"),
        (_with(bytes(999)), "size"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_failures_are_counted_by_what_caused_them(
    make: Callable[[Source], DataChunk], cause: str, dm: DataManager, source: Source
) -> None:
    dm.download_chunk(make(source))
    eventually(lambda: dm.counters.counts().events["failed"] > 0)
    assert (value(dm, "fsdm_failures_total", cause=cause) or 0) >= 1
    others = {one: value(dm, "fsdm_failures_total", cause=one) for one in get_args(Cause) if one != cause}
    assert set(others.values()) == {0.0}, others


def test_a_server_that_is_not_asked_any_more_is_another_cause(dm: DataManager, source: Source) -> None:
    for _ in range(6):
        dm.download_chunk(_refused(source))
    eventually(lambda: value(dm, "fsdm_failures_total", cause="host_down"))


def test_what_the_policy_and_the_budget_refuse_is_counted(data_dir: Path, source: Source) -> None:
    with DataManager(data_dir, limits=Limits(allow_hosts=("files.example.org",))) as dm:
        dm.download_chunk(source.chunk())
        eventually(lambda: value(dm, "fsdm_failures_total", cause="policy") == 1)
    with DataManager(data_dir, limits=Limits(max_bytes=100)) as dm:
        dm.download_chunk(source.chunk())
        eventually(lambda: value(dm, "fsdm_failures_total", cause="room"))
        assert value(dm, "fsdm_budget_bytes") == 100
        assert value(dm, "fsdm_budgeted_bytes") == 0


def test_a_want_that_cannot_be_taken_is_a_failure_of_the_want(dm: DataManager, data_dir: Path) -> None:
    (data_dir / "want" / an_id()).write_text("{no json")
    eventually(lambda: value(dm, "fsdm_failures_total", cause="want") == 1)


def test_who_pauses_downloads_and_what_the_brake_holds_back_is_told(data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(start=n, end=n + 1, files=1, size=10) for n in range(101)]
    with DataManager(data_dir, limits=Limits(brake_share=0.25)) as dm:
        for chunk in chunks:
            dm.download_chunk(chunk)
        dm.wait_converged(PATIENCE_S)
        place_pause(dm.layout, "a test")
        for chunk in chunks:
            touch_delete(data_dir, chunk.id)
        eventually(lambda: value(dm, "fsdm_downloads_paused", by="hand") == 1)
        eventually(lambda: value(dm, "fsdm_held_back_deletes"))
        assert value(dm, "fsdm_downloads_paused", by="disk") == 0
        (data_dir / "delete" / ".release").touch()
        remove_pause(dm.layout)
        eventually(lambda: value(dm, "fsdm_downloads_paused", by="hand") == 0)
        eventually(lambda: value(dm, "fsdm_held_back_deletes") == 0)


# ------------------------------------------------------------------------------- each number, where it is none and not


def a_loop(*, full: bool) -> Any:
    """A loop with nothing in it, or with another number of each."""
    many, pending = int(full), [ChunkState(ID, want=WANT), ChunkState(an_id(), delete=DELETE, ready=(OLD,))]
    fetch, other = actions.Fetch(ID, WANT), actions.Forget(ID, DELETE)
    limits = SimpleNamespace(max_bytes=100 if full else None)
    return SimpleNamespace(
        states={state.id: state for state in pending * many},
        executor=SimpleNamespace(actions=[fetch] * 2 * many + [other] * 3 * many),
        work_queue=SimpleNamespace(waiting_fetches=4 * many, parked_fetches=5 * many, waits=6 * many),
        results=SimpleNamespace(held_chunks=7 * many, memo=lambda _: NO_MEMO, is_given_up=lambda _: full),
        space=SimpleNamespace(limits=limits, keep_free_bytes=8 * many, budgeted_bytes=9),
        disk=SimpleNamespace(refusal="full" * many),
        paused=SimpleNamespace(why=""),
        delete_brake=SimpleNamespace(held_back=10 * many),
        catalog=[None] * 11 * many,
        heartbeat=SimpleNamespace(late_s=12.0 * many),
    )


def test_list_that_is_followed_is_told_from_the_files(dm: DataManager) -> None:
    names = ("chunks", "looked_timestamp_seconds", "failing", "held_back", "missing_chunks", "failing_chunks")
    assert [value(dm, f"fsdm_list_{name}") for name in names] == [None] * 6
    follow = Path(dm.layout.follow)
    follow.mkdir()
    said = {"url": "http://h/list", "sha256": "a" * 64, "chunks": 3, "looked_at": 7.0}
    (follow / "STATE").write_text(json.dumps(said))
    assert [value(dm, f"fsdm_list_{name}") for name in names] == [3, 7, 0, 0, None, None]
    assert value(dm, "fsdm_list_info", sha256="a" * 64) == 1
    (follow / "STATE").write_text(json.dumps({**said, "error": "x", "held_back": {"why": "y", "sha256": "\n"}}))
    (follow / "REPORT").write_text(json.dumps({"missing": [1, 2], "failing": [1]}))
    assert [value(dm, f"fsdm_list_{name}") for name in names] == [3, 7, 1, 1, 2, 1]


@pytest.mark.parametrize("full", [False, True])
def test_each_number_of_the_loop_is_of_that_alone(full: bool) -> None:
    loop, many = a_loop(full=full), int(full)
    told = module._of_the_loop(loop, NOW)
    chunks = {"available": 10 * many, "wanted": many, "retiring": many}
    assert told.pop("fsdm_chunks") == dict.fromkeys(get_args(State), 0) | chunks
    assert told.pop("fsdm_oldest_intent_age_seconds") == {
        "want": (NOW - WANT.ctime_ns / 1e9) * many,
        "delete": (NOW - DELETE.ctime_ns / 1e9) * many,
    }
    assert told.pop("fsdm_fetches") == {"running": 2 * many, "queued": 4 * many, "parked": 5 * many}
    assert told.pop("fsdm_downloads_paused") == {"disk": many, "hand": 0}
    assert told.pop("fsdm_given_up_chunks") == (len(loop.states) if full else 0)
    assert told == {
        "fsdm_held_chunks": 7 * many,
        "fsdm_running_actions": 3 * many,
        "fsdm_waiting_chunks": 6 * many,
        "fsdm_held_back_deletes": 10 * many,
        "fsdm_budget_bytes": 100 if full else None,
        "fsdm_budgeted_bytes": 9 if full else None,
        "fsdm_reserve_bytes": 8 * many,
    }
    loop.disk, loop.paused = SimpleNamespace(refusal=""), SimpleNamespace(why="by ann" * many)
    assert module._of_the_loop(loop, NOW)["fsdm_downloads_paused"] == {"disk": 0, "hand": many}


def test_clock_that_is_set_back_makes_no_intent_older_than_new() -> None:
    told = module._of_the_loop(a_loop(full=True), -NOW)
    assert told["fsdm_oldest_intent_age_seconds"] == {"want": 0, "delete": 0}


@pytest.mark.parametrize("reconciles", [True, False])
@pytest.mark.parametrize("full", [False, True])
def test_each_number_of_the_process_is_of_that_alone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, full: bool, reconciles: bool
) -> None:
    many, counts, space = int(full), Counts(), Space(free_bytes=1, size_bytes=2, free_inodes=3, read_only=full)
    for at, name in enumerate(("loop", "want_to_available", "delete_to_gone", "fetches"), 1):
        for _ in range(at * many):
            getattr(counts, name).took(0.25 * at)
    counts.failed_passes, counts.published_bytes = 5 * many, 6 * many
    monkeypatch.setattr(module, "health", lambda _: Health(is_well=full, why=""))
    monkeypatch.setattr(module, "look_at_disk", lambda _: space)
    loop = a_loop(full=full)
    loop.bytes_by_part = lambda: dict.fromkeys(PARTS, 7 * many)
    made, gathered = {"built": 11 * many, "failed": 13 * many}, {"tx": (14 * many, 15 * many)}
    indexing = SimpleNamespace(pending=9 * many, failing=10 * many, **made, gathered=lambda: gathered)
    reconciler = SimpleNamespace(loop=loop, received_bytes=8 * many, indexing=indexing) if reconciles else None
    dm = SimpleNamespace(reconciler=reconciler, layout=layout, counters=SimpleNamespace(counts=lambda: counts))
    registry = Metrics(cast("DataManager", dm)).registry

    def told(*names: str, **labels: str) -> list[float | None]:
        return [registry.get_sample_value(f"fsdm_{name}", labels) for name in names]

    assert told("healthy", "reconciling") == [many, int(reconciles)]
    assert told("failed_passes_total", "published_bytes_total") == [5 * many, 6 * many]
    for at, name in enumerate(("pass", "want_to_available", "delete_to_gone", "fetch"), 1):
        assert told(f"{name}_seconds_count", f"{name}_seconds_sum") == [at * many, 0.25 * at * at * many]
    assert told("disk_free_bytes", "disk_size_bytes", "disk_free_inodes", "disk_read_only") == [1, 2, 3, many]
    of_the_reconciler = [12 * many, 8 * many, 7 * many] if reconciles else [None] * 3
    assert told("loop_late_seconds", "received_bytes_total", "held_chunks") == of_the_reconciler
    of_indexes = [9 * many, 10 * many, 11 * many, 13 * many] if reconciles else [None] * 4
    names = ("pending_indexes", "failing_indexes", "built_indexes_total", "index_failures_total")
    assert told(*names) == of_indexes
    of_the_one = [14 * many, 15 * many] if reconciles else [None] * 2
    assert told("gathered_chunks", "gathered_bytes", index="tx") == of_the_one
    for part in PARTS:
        assert told("stored_bytes", part=part) == [7 * many if reconciles else None]


def test_two_managers_of_one_process_do_not_mix(dm: DataManager, source: Source, tmp_path: Path) -> None:
    get(dm, source.chunk())
    with DataManager(tmp_path / "other") as other:
        assert value(other, "fsdm_events_total", kind="available") == 0
        assert value(dm, "fsdm_events_total", kind="available") == 1


def test_several_may_read_one_manager_and_late_ones_see_what_was_before(dm: DataManager, source: Source) -> None:
    early = Metrics(dm).registry
    get(dm, source.chunk())
    late = Metrics(dm).registry
    for registry in (early, late):
        assert registry.get_sample_value("fsdm_events_total", {"kind": "available"}) == 1


def test_who_stands_by_tells_what_it_knows_and_nothing_else(dm: DataManager, data_dir: Path) -> None:
    with DataManager(data_dir) as standby:
        assert value(standby, "fsdm_reconciling") == 0
        assert value(standby, "fsdm_healthy") == 1
        assert value(standby, "fsdm_disk_size_bytes")
        for name in ("fsdm_held_chunks", "fsdm_received_bytes_total", "fsdm_loop_late_seconds"):
            assert value(standby, name) is None
        assert value(standby, "fsdm_chunks", state="available") is None
        dm.close()
        eventually(lambda: value(standby, "fsdm_reconciling") == 1)
        assert value(standby, "fsdm_chunks", state="available") == 0


def test_disk_that_hangs_takes_only_its_own_numbers(dm: DataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def look(*args: object) -> Space:
        assert gate.wait(PATIENCE_S)
        raise OSError("injected")

    monkeypatch.setattr(module, "look_at_disk", look)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    metrics = Metrics(dm)
    for _ in range(3):
        assert metrics.registry.get_sample_value("fsdm_disk_free_bytes") is None
        assert metrics.registry.get_sample_value("fsdm_reconciling") == 1
    assert sum(thread.name == "fsdm-probe" for thread in threading.enumerate()) == 1
    gate.set()


def test_the_registry_of_the_whole_process_is_left_alone(dm: DataManager) -> None:
    from prometheus_client import REGISTRY

    Metrics(dm)
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("fsdm_")]


def by_state(dm: DataManager) -> dict[str, float | None]:
    return {state: value(dm, "fsdm_chunks", state=state) for state in get_args(State)}


def by_status(dm: DataManager) -> dict[str, float | None]:
    """The same numbers from the files alone."""
    return {state: dm.status().count(state) for state in get_args(State)}


def stored_bytes(dm: DataManager) -> dict[Part, int] | None:
    assert dm.reconciler is not None
    return dm.reconciler.loop.bytes_by_part()


def test_an_empty_directory_has_a_zero_for_every_state(dm: DataManager) -> None:
    eventually(lambda: dm.counters.counts().loop.total > 0)
    assert by_state(dm) == dict.fromkeys(get_args(State), 0)
    for intent in ("want", "delete"):
        assert value(dm, "fsdm_oldest_intent_age_seconds", intent=intent) == 0
    assert value(dm, "fsdm_fetches", state="running") == value(dm, "fsdm_held_back_deletes") == 0
    assert value(dm, "fsdm_downloads_paused", by="disk") == value(dm, "fsdm_downloads_paused", by="hand") == 0


def test_chunks_of_every_kind_are_counted_as_status_counts_them(data_dir: Path, source: Source) -> None:
    here, held, failing = (source.chunk(start=n, end=n + 1) for n in range(3))
    large = source.chunk(start=4, end=5, size=4 << 20)
    slow = source.chunk(start=5, end=6, files=1, size=3 << 20)
    source.fault(f"/{failing.id}/blocks.parquet", status=404)
    stall = source.fault(f"/{slow.id}/blocks.parquet", stall_at=2 << 20)
    with DataManager(data_dir, limits=Limits(max_bytes=4 << 20)) as dm:
        for chunk in (here, held):
            get(dm, chunk)
        with dm.find_chunk(held.dataset_id, 1):  # type: ignore[union-attr]  # it is there
            dm.delete_chunk(held.id)
            for chunk in (failing, large, slow):
                dm.download_chunk(chunk)
            assert stall.stalled.wait(PATIENCE_S)
            expected = {"available": 1, "retiring": 1, "failed": 1, "waiting": 1, "downloading": 1}
            eventually(lambda: {state: n for state, n in by_state(dm).items() if n} == expected)
            eventually(lambda: value(dm, "fsdm_held_chunks") == 1)
            eventually(lambda: (value(dm, "fsdm_waiting_chunks") or 0) >= 1)  # the failing one backs off
            eventually(lambda: value(dm, "fsdm_fetches", state="parked") == 1)
            assert by_state(dm) == by_status(dm)
            assert value(dm, "fsdm_fetches", state="running") == 1
            for intent in ("want", "delete"):
                assert value(dm, "fsdm_oldest_intent_age_seconds", intent=intent)
            stored = stored_bytes(dm)
            assert stored is not None
            assert (stored["here"], stored["retiring"]) == (2000, 2000)
            # what has come, not what is to come
            eventually(lambda: 0 < (value(dm, "fsdm_stored_bytes", part="partial") or 0) < 3 << 20)
            stall.gate.set()
            dm.wait(slow.id, PATIENCE_S)
        eventually(lambda: value(dm, "fsdm_chunks", state="retiring") == 0)
        assert value(dm, "fsdm_chunks", state="available") == 2
        eventually(lambda: value(dm, "fsdm_held_chunks") == 0)  # the loop takes in that it has gone


def test_oldest_intent_is_the_first_placed(
    dm: DataManager, source: Source, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 1000
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: later))

    def is_oldest(chunk: DataChunk) -> bool:
        age = later - (data_dir / "want" / chunk.id).stat().st_ctime_ns / 1e9
        return value(dm, "fsdm_oldest_intent_age_seconds", intent="want") == age

    first, second = source.chunk(files=1), source.chunk(files=1)
    for chunk in (first, second):
        source.fault(f"/{chunk.id}/blocks.parquet", status=404)
        dm.download_chunk(chunk)
        eventually(lambda chunk=chunk: dm.status().chunks[chunk.id].state == "failed")
    eventually(lambda: is_oldest(first))
    dm.delete_chunk(first.id)
    eventually(lambda: is_oldest(second))


def test_an_entry_that_is_no_intent_has_no_age(dm: DataManager, data_dir: Path) -> None:
    (data_dir / "delete" / an_id()).mkdir()
    eventually(lambda: value(dm, "fsdm_chunks", state="failed") == 1)
    assert value(dm, "fsdm_oldest_intent_age_seconds", intent="delete") == 0
    assert value(dm, "fsdm_failures_total", cause="marker") == 1


def test_bytes_are_counted_without_a_budget_where_that_is_asked_for(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(data_dir, limits=Limits(count_bytes=True)) as dm:
        get(dm, chunk)
    with DataManager(data_dir, limits=Limits(count_bytes=True)) as dm:  # counted at the start
        assert stored_bytes(dm) == {"here": 2000, "retiring": 0, "partial": 0, "trash": 0}
        touch_delete(data_dir, chunk.id)
        eventually(lambda: set((stored_bytes(dm) or {}).values()) == {0})
        assert value(dm, "fsdm_budget_bytes") is None
    with DataManager(data_dir) as dm:
        assert stored_bytes(dm) is None


def exposition(dm: DataManager) -> str:
    return generate_latest(Metrics(dm).registry).decode()


def test_no_label_comes_from_outside(dm: DataManager, source: Source) -> None:
    chunk, failing = source.chunk(), source.chunk()
    source.fault(f"/{failing.id}/blocks.parquet", status=404)
    get(dm, chunk)
    dm.download_chunk(failing)
    eventually(lambda: dm.counters.counts().events["failed"] > 0)
    text = exposition(dm)
    for secret in (chunk.id[:12], failing.id[:12], chunk.dataset_id[:12], "127.0.0.1", "parquet", str(dm.layout.root)):
        assert secret not in text
    closed: dict[str, set[str]] = {
        "kind": set(get_args(Kind)),
        "cause": set(get_args(Cause)),
        "state": {*get_args(State), "running", "queued", "parked"},
        "part": set(PARTS),
        "intent": {"want", "delete"},
        "by": {"disk", "hand"},
        "version": {fsdm.__version__},
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, one in sample.labels.items():
                assert label == "le" or one in closed[label]


def test_the_number_of_series_does_not_grow_with_what_is_here(dm: DataManager, source: Source) -> None:
    before = len(exposition(dm).splitlines())
    for n in range(5):
        get(dm, source.chunk(start=n, end=n + 1, dataset=an_id()))
    assert len(exposition(dm).splitlines()) == before


def test_names_have_base_units_and_counters_say_that_they_are_totals() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"fsdm(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert metric.help.endswith(".")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(data_dir: Path, source: Source) -> None:
    with DataManager(data_dir, limits=Limits(max_bytes=1 << 20, keep_free_bytes=1)) as dm:
        get(dm, source.chunk())
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=exposition(dm), capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_metric_has_samples_where_all_is_known(data_dir: Path) -> None:
    limits, indexes = Limits(max_bytes=1 << 20, keep_free_bytes=1), [Index(name="tx", indexer="car")]
    with DataManager(data_dir, limits=limits, indexes=indexes) as dm:
        assert dm.reconciler is not None
        eventually(dm.reconciler.indexing.gathered)
        families = {family.name: family for family in Metrics(dm).collect()}
    for metric in METRICS:
        # nothing was evicted, and no list is followed
        is_known = metric.name != "fsdm_last_victim_idle_seconds" and not metric.name.startswith("fsdm_list_")
        assert bool(families[metric.name.removesuffix("_total")].samples) is is_known, metric.name


def test_a_part_can_be_asked_for_by_name(dm: DataManager) -> None:
    registry = Metrics(dm).registry.restricted_registry(["fsdm_chunks"])
    assert isinstance(Metrics(dm).registry, CollectorRegistry)
    assert {family.name for family in registry.collect()} == {"fsdm_chunks"}


def test_the_page_explains_each_metric_in_the_words_of_the_endpoint() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(fsdm_\w+)(?:\{\w+\})?` \| (.*) \|$", page, re.MULTILINE))
    assert rows.keys() == {metric.name for metric in METRICS}
    for metric in METRICS:
        shown = f"{metric.name}{{{metric.label}}}" if metric.label else metric.name
        assert f"| `{shown}` | {metric.kind} | {metric.help}" in page
    causes = re.findall(r"^\| `(\w+)` \| (?!gauge|counter|histogram)", page, re.MULTILINE)
    assert causes == list(get_args(Cause))


def test_what_was_asked_for_and_what_went_for_it_is_counted(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk, other = (source.chunk(start=n, end=n + 1, files=1, size=1000) for n in range(2))
    for one in (chunk, other):
        dm.register(one)
        dm.acquire(one.id, PATIENCE_S).close()
    dm.acquire(chunk.id, PATIENCE_S).close()
    eventually(lambda: not entries(data_dir / "acquire"))
    assert value(dm, "fsdm_acquire_misses_total") == 2
    assert value(dm, "fsdm_last_victim_idle_seconds") is None
    os.utime(chunk_dir(data_dir, chunk) / "CACHED", (1, 1))
    assert [one.outcome for one in dm.gc(idle_s=10_000, timeout_s=PATIENCE_S)] == ["evicted"]
    eventually(lambda: value(dm, "fsdm_evicted_bytes_total") == 1000)
    assert (value(dm, "fsdm_last_victim_idle_seconds") or 0) > 10_000


def test_what_is_given_up_is_counted(dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    source.fault(f"/{chunk.id}/blocks.parquet", status=404)
    dm.change(Limits(max_attempts=1))
    dm.download_chunk(chunk)
    eventually(lambda: value(dm, "fsdm_given_up_chunks") == 1)
    eventually(lambda: value(dm, "fsdm_chunks", state="failed") == 1)  # once its thread is back
