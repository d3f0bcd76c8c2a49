"""The indexes of all chunks: made when chunks come, tried again, cut when they are to leave, and never in their way."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm import DataManager, Limits
from fsdm.concurrency.workers import Workers
from fsdm.index import background as module
from fsdm.index.background import Indexing
from fsdm.index.building import Building
from fsdm.index.process import run
from fsdm.model.indexes import Index
from fsdm.model.layout import Layout, Place, index_path
from fsdm.monitoring.metrics import Metrics
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.index_failures import read_index_failures
from fsdm.store.index_file import open_chunk_index
from tests.support import Source, fsdm, fsdm_json
from tests.support.chunks import bring, chunk_dir, put_chunk, touch_delete
from tests.support.indexers import by_four, command
from tests.support.waiting import PATIENCE_S, eventually
from tools.support.workers import InlineWorkers


class Bench:
    """The indexes of a directory, whose processes run one after the other in this thread, while time stands still."""

    def __init__(self, layout: Layout, *indexes: Index, jobs: int = 4, workers: Workers | None = None) -> None:
        self.now = 1_000_000.0
        self.layout = layout
        self.catalog = Catalog(layout, own=True)
        building = Building(layout, FileSystem(durable=False), lambda: self.now)
        self.it = Indexing(layout, self.catalog, building, indexes, jobs, workers or InlineWorkers())

    def step(self) -> float:
        self.catalog.refresh()
        self.it.wake()
        self.it.step()
        return self.it.step()  # it takes in what has ended

    def has(self, place: Place, name: str = "four") -> bool:
        index = open_chunk_index(self.layout.path(place), name)
        if index is not None:
            index.close()
        return index is not None


def test_what_is_missing_is_made_and_then_nothing_is_due(layout: Layout, tmp_path: Path) -> None:
    places = [put_chunk(layout, start=n, end=n + 1) for n in range(3)]
    bench = Bench(layout, by_four(tmp_path), by_four(tmp_path, name="other"))
    bench.catalog.refresh()
    bench.it.step()
    while bench.it.pending:
        bench.it.step()
    assert bench.it.step() == module.EVERY_S
    assert all(bench.has(place, name) for place in places for name in ("four", "other"))
    assert (bench.it.built, bench.it.failed, bench.it.pending, bench.it.failing) == (6, 0, 0, 0)
    late = put_chunk(layout, start=7, end=8)
    assert bench.step() == module.EVERY_S
    assert bench.has(late)


def test_a_failure_rests_and_concerns_no_other_chunk(layout: Layout, tmp_path: Path) -> None:
    bad, good = put_chunk(layout, files={"bad": b"1234"}), put_chunk(layout, start=1, end=2, files={"good": b"1234"})
    text = "sys.exit('bad' in os.listdir(data))"
    bench = Bench(layout, Index(name="four", command=command(tmp_path, text)))
    assert bench.step() == module.FIRST_REST_S
    assert (bench.has(bad), bench.has(good), bench.it.failing, bench.it.pending) == (False, True, 1, 1)
    bench.step()
    assert bench.it.failed == 1
    bench.now += module.FIRST_REST_S
    bench.step()
    assert bench.it.failed == 2
    command(tmp_path, "sys.exit(0)")
    bench.now += 2 * module.FIRST_REST_S
    bench.step()
    assert bench.has(bad)
    assert read_index_failures(layout.path(bad)) == []
    assert (bench.it.pending, bench.it.failing) == (0, 0)


def test_a_failure_shows_in_status_explain_and_metrics(source: Source, data_dir: Path, tmp_path: Path) -> None:
    index = Index(name="four", command=command(tmp_path, "print('no such file', file=sys.stderr); sys.exit(3)"))
    with DataManager(data_dir, indexes=[index]) as dm:
        chunk = source.chunk()
        bring(dm, chunk)
        directory = str(chunk_dir(data_dir, chunk))
        (failure,) = eventually(lambda: read_index_failures(directory))
        registry = Metrics(dm).registry
        eventually(lambda: registry.get_sample_value("fsdm_index_failures_total") == 1)
        for name, value in (("pending_indexes", 1), ("failing_indexes", 1), ("built_indexes_total", 0)):
            eventually(lambda name=name, value=value: registry.get_sample_value(f"fsdm_{name}") == value, name)
        said = "the command ended with code 3; it said: no such file"
        assert failure.error == said
        status = dm.status().chunks[chunk.id]
        assert (status.state, status.error, status.index_errors) == ("available", None, (f"four: {said}",))
    assert f"\tno index four: {said}\n" in fsdm("status", "-d", data_dir).stdout
    (explained,) = fsdm_json("explain", "-d", data_dir, chunk.id)
    assert explained["why"][0].startswith(f"its index four cannot be made, tried once: {said}; the next attempt is at ")


def test_what_has_gone_is_forgotten_and_what_was_removed_is_made_again(layout: Layout, tmp_path: Path) -> None:
    gone, place = put_chunk(layout), put_chunk(layout, start=1, end=2)
    failing = put_chunk(layout, start=2, end=3, files={"bad": b"1234"})
    bench = Bench(layout, Index(name="four", command=command(tmp_path, "sys.exit('bad' in os.listdir(data))")))
    bench.step()
    for left in (gone, failing):
        os.rename(layout.path(left), f"{layout.trash}/{left.name}")
    os.unlink(index_path(layout.path(place), "four"))
    bench.step()
    assert bench.it.pending == 0
    assert not bench.has(place)
    bench.it.change([by_four(tmp_path)])  # it has all looked at again, as an hour has
    bench.it.stop(None)
    bench.step()
    assert bench.it.built == 2


def test_a_disk_that_refuses_is_asked_again(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put_chunk(layout)
    bench = Bench(layout, by_four(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "mkdir", lambda *_: (_ for _ in ()).throw(OSError(5, "EIO")))
        assert bench.step() == module.FIRST_REST_S
    assert not bench.has(place)
    bench.now += module.FIRST_REST_S
    bench.step()
    assert bench.has(place)


def test_a_chunk_that_is_deleted_is_not_waited_for_and_a_withdrawn_delete_brings_the_index(
    layout: Layout, data_dir: Path, tmp_path: Path
) -> None:
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    bench = Bench(layout, by_four(tmp_path))
    assert bench.step() == module.FIRST_REST_S
    os.unlink(layout.delete_marker(place.chunk_id))
    bench.now += module.FIRST_REST_S
    bench.step()
    assert bench.has(place)


def test_so_many_run_at_once(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        put_chunk(layout, start=n, end=n + 1)
    mutex, together, running, may_end = threading.Lock(), threading.Event(), [0, 0], threading.Event()

    def counted(*given: object) -> object:
        with mutex:
            running[0] += 1
            running[1] = max(running)
            if running[0] == 2:
                together.set()
        assert may_end.wait(PATIENCE_S)
        with mutex:
            running[0] -= 1
        return run(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("fsdm.index.building.run", counted)
    workers = Workers("test", 5)
    bench = Bench(layout, by_four(tmp_path), jobs=2, workers=workers)
    bench.step()
    assert together.wait(PATIENCE_S)
    bench.step()
    assert (len(bench.it._running), bench.it.pending) == (2, 5)
    may_end.set()
    eventually(lambda: bench.step() and not bench.it.pending)
    assert workers.close(PATIENCE_S)
    assert (bench.it.built, running[1]) == (5, 2)


@pytest.fixture
def indexed(data_dir: Path, tmp_path: Path) -> Iterator[DataManager]:
    with DataManager(data_dir, indexes=[by_four(tmp_path)], limits=Limits(durability="none")) as dm:
        yield dm


def test_a_chunk_that_comes_is_indexed_and_its_index_leaves_with_it(
    indexed: DataManager, source: Source, data_dir: Path
) -> None:
    earlier, chunk = source.chunk(start=10, end=20), source.chunk()
    bring(indexed, earlier)
    eventually(lambda: os.path.exists(index_path(str(chunk_dir(data_dir, earlier)), "four")))
    bring(indexed, chunk)  # nothing else is due by now
    with indexed.find_chunk(chunk.dataset_id, chunk.block_range.start) or pytest.fail("it is not here") as ref:
        index = eventually(lambda: ref.index("four"))
        assert len(index) > 0
    indexed.delete_chunk(chunk.id)
    indexed.wait_converged(PATIENCE_S)
    assert not chunk_dir(data_dir, chunk).exists()


def test_an_index_that_hangs_keeps_no_chunk_from_readers_nor_from_leaving(
    source: Source, data_dir: Path, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    hangs = Index(
        name="four", command=command(tmp_path, f"Path({str(started)!r}).touch()\ntime.sleep(1e6)", "hangs.py")
    )
    with DataManager(data_dir, indexes=[hangs]) as dm:
        chunk = source.chunk()
        bring(dm, chunk)
        eventually(started.exists)
        with dm.find_chunk(chunk.dataset_id, chunk.block_range.start) or pytest.fail("it is not here"):
            pass
        dm.delete_chunk(chunk.id)
        dm.wait_converged(PATIENCE_S)
        assert not chunk_dir(data_dir, chunk).exists()
        started.unlink()
        bring(dm, chunk)
        eventually(started.exists)  # and the close does not wait for it
    assert os.listdir(data_dir / "trash") == []


def test_a_change_cuts_what_is_no_longer_to_be_made(source: Source, data_dir: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    hangs = Index(
        name="four", command=command(tmp_path, f"Path({str(started)!r}).touch()\ntime.sleep(1e6)", "hangs.py")
    )
    with DataManager(data_dir) as dm:
        chunk = source.chunk()
        bring(dm, chunk)
        dm.change(Limits(), indexes=[hangs])
        eventually(started.exists)
        dm.change(Limits())  # as it was
        dm.change(Limits(), indexes=[by_four(tmp_path)])
        path = index_path(str(chunk_dir(data_dir, chunk)), "four")
        eventually(lambda: os.path.exists(path))


def test_a_step_that_fails_is_told_and_the_next_one_comes(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put_chunk(layout)
    bench = Bench(layout, by_four(tmp_path), workers=Workers("test", 1))
    bench.catalog.refresh()
    monkeypatch.setattr(module, "FIRST_REST_S", 0.0)
    steps = iter([RuntimeError("a defect")])
    step = bench.it.step

    def failing() -> float:
        if (error := next(steps, None)) is not None:
            raise error
        return step()

    monkeypatch.setattr(bench.it, "step", failing)
    bench.it.start()
    eventually(lambda: bench.has(place))
    assert bench.it.stop(PATIENCE_S)
