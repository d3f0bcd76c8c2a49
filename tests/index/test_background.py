"""The indexes of all chunks: made when chunks come, tried again, cut when they are to leave, and never in their way."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm import DataManager, Limits
from fsdm.client import Client
from fsdm.concurrency.workers import Workers
from fsdm.index import background as module
from fsdm.index.background import Indexing
from fsdm.index.building import Building
from fsdm.index.gathering import Gathering
from fsdm.index.process import run
from fsdm.model.indexes import Index
from fsdm.model.layout import Layout, Place, index_path
from fsdm.monitoring.metrics import Metrics
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.index_failures import read_index_failures
from fsdm.store.index_file import open_chunk_index
from fsdm.store.index_runs import IndexRuns
from tests.support import Source, fsdm, fsdm_json
from tests.support.chunks import bring, chunk_dir, content, put_chunk, touch_delete
from tests.support.indexers import by_four, command
from tests.support.indexes import put_index
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
        self.it.wake("of some chunk")
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
    assert bench.it.step() == module.LOOK_S
    assert all(bench.has(place, name) for place in places for name in ("four", "other"))
    assert (bench.it.built, bench.it.failed, bench.it.pending, bench.it.failing) == (6, 0, 0, 0)
    late = put_chunk(layout, start=7, end=8)
    assert bench.step() == module.LOOK_S
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
    bench.it.change([by_four(tmp_path)], Limits())  # it has all looked at again, as an hour has
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


class Gate:
    """It lets indexers begin, and counts them; they go on once it is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = self.most = 0
        self.open = threading.Event()
        self._mutex = threading.Lock()
        monkeypatch.setattr("fsdm.index.building.run", self._run)

    def _run(self, *given: object) -> object:
        with self._mutex:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.open.wait(PATIENCE_S)
        with self._mutex:
            self.running -= 1
        return run(*given)  # type: ignore[arg-type]


def test_so_many_run_at_once(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        put_chunk(layout, start=n, end=n + 1)
    gate, workers = Gate(monkeypatch), Workers("test", 5)
    bench = Bench(layout, by_four(tmp_path), jobs=2, workers=workers)
    bench.step()
    eventually(lambda: gate.running == 2)
    bench.step()
    assert (len(bench.it._running), bench.it.pending) == (2, 5)
    gate.open.set()
    eventually(lambda: bench.step() and not bench.it.pending)
    assert workers.close(PATIENCE_S)
    assert (bench.it.built, gate.most) == (5, 2)


def test_how_many_run_at_once_and_what_is_to_stay_free_change_at_run_time(
    data_dir: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(5):
        put_chunk(layout, start=n, end=n + 1)
    gate = Gate(monkeypatch)
    with DataManager(data_dir, indexes=[by_four(tmp_path)]) as dm:
        eventually(lambda: gate.running == 1)
        dm.change(Limits(index_jobs=3))
        eventually(lambda: gate.running == 3)
        dm.change(Limits(index_jobs=1, keep_free_bytes=shutil.disk_usage(tmp_path).total))
        gate.open.set()
        told = eventually(lambda: [c.index_errors for c in dm.status().chunks.values() if c.index_errors][1:])
        eventually(lambda: dm.reconciler and dm.reconciler.indexing.failing == 2)
    assert all("there is no room for it" in error for errors in told for error in errors)
    assert gate.most == 3
    assert "not before the next start" not in caplog.text


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


def found(dm: Client, key: bytes) -> list[str]:
    seen = []
    for ref in dm.find_key("four", key):
        with ref:
            seen.append(ref.id)
    return seen


def test_keys_are_found_over_all_chunks_and_again_after_each_removal(
    indexed: DataManager, source: Source, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    chunks = [source.chunk(start=n, end=n + 1) for n in range(3)]
    bring(indexed, *chunks)
    keys = [content(f"{chunk.id}/blocks.parquet")[:4] for chunk in chunks]

    def is_all_found() -> bool:
        runs = data_dir / "index" / "four"
        return runs.exists() and [found(indexed, key) for key in keys] == [[chunk.id] for chunk in chunks]

    eventually(is_all_found)
    shutil.rmtree(data_dir / "index")
    eventually(is_all_found)
    assert fsdm("index", "-d", data_dir, "rebuild", "four", "--chunks").returncode == 0
    eventually(is_all_found)
    eventually(lambda: all(os.path.exists(index_path(str(chunk_dir(data_dir, chunk)), "four")) for chunk in chunks))
    eventually(lambda: fsdm_json("index", "-d", data_dir, "status")[0]["gathered"] == 3)
    assert indexed.reconciler is not None
    [(gathered, size)] = indexed.reconciler.indexing.gathered().values()
    assert gathered >= 3
    assert size > 0
    (state,) = fsdm_json("index", "-d", data_dir, "status", "four")
    assert (state["chunks"], state["indexed"], state["failing"], state["runs"] > 0) == (3, 3, 0, True)
    assert "four\t3/3 chunks\t3 in " in fsdm("index", "-d", data_dir, "status").stdout
    shown = fsdm_json("find", "-d", data_dir, "--key", "four", f"0x{keys[1].hex()}")
    [one] = shown["chunks"]
    assert (shown["index"], shown["key"], one["id"]) == ("four", keys[1].hex(), chunks[1].id)
    assert {"file": "blocks.parquet", "offset": 0, "length": 4} in one["places"]
    path = chunk_dir(data_dir, chunks[1]) / "data"
    assert fsdm("find", "-d", data_dir, "--key", "four", keys[1].hex()).stdout == f"{path}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("find",), 2, "takes DATASET and BLOCK, or --key NAME KEY"),
        (("find", "d" * 64), 2, "takes DATASET and BLOCK"),
        (("find", "d" * 64, "7", "--key", "four", "ab"), 2, "takes DATASET and BLOCK"),
        (("find", "--key", "none", "ab"), 2, "there is no index 'none'"),
        (("find", "--key", "../x", "ab"), 2, "cannot be the name of an index"),
        (("find", "--key", "four", ""), 2, "is empty"),
        (("find", "--key", "four", "abcd"), 3, "no available chunk holds the key 'abcd'"),
        (("index", "rebuild"), 2, "name the index"),
        (("index", "rebuild", "none"), 2, "there is no index none"),
        (("index", "status", "none"), 2, "there is no index none"),
        (("index", "status", "--chunks"), 2, "goes with rebuild alone"),
    ],
)
def test_what_cannot_be_asked_is_told(layout: Layout, words: tuple[str, ...], code: int, says: str) -> None:
    os.makedirs(layout.runs_of("four"))
    done = fsdm(words[0], "-d", layout.root, *words[1:])
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_text_is_a_key_where_no_chunk_holds_the_bytes(layout: Layout) -> None:
    text, both = put_chunk(layout), put_chunk(layout, start=1, end=2)
    gathering = Gathering(layout, FileSystem(durable=False), Index(name="tx", indexer="parquet:x"))
    put_index(layout, text, [b"abcd"], definition=gathering.index.definition)
    put_index(layout, both, [b"\xfe\xed", b"feed"], definition=gathering.index.definition)
    merge = gathering.look([text, both], [text, both], is_calm=True)
    assert merge is not None
    assert gathering.merge(merge, lambda: None) == []
    shown = {key: fsdm_json("find", "-d", layout.root, "--key", "tx", key) for key in ("abcd", "feed")}
    assert [(one["key"], [chunk["id"] for chunk in one["chunks"]]) for one in shown.values()] == [
        (b"abcd".hex(), [text.chunk_id]),
        ("feed", [both.chunk_id]),
    ]
    os.unlink(index_path(layout.path(text), "tx"))
    assert fsdm_json("find", "-d", layout.root, "--key", "tx", "abcd")["chunks"][0]["places"] is None


def test_once_makes_the_indexes_of_the_config_and_gathers_them(layout: Layout, tmp_path: Path) -> None:
    places = [put_chunk(layout, start=n, end=n + 1, files={"a": bytes([n]) * 4}) for n in range(3)]
    fails = command(tmp_path, "sys.exit(5)", "fails.py")
    config = (
        f"[index.four]\ncommand = {json.dumps(by_four(tmp_path).command)}\n[index.bad]\ncommand = {json.dumps(fails)}\n"
    )
    Path(layout.config).write_text(config)
    done = fsdm("run", "-d", layout.root, "--once")
    assert done.returncode == 0, "an index that fails is no chunk that has not converged"
    assert f"index bad of {places[0].chunk_id} cannot be made: the command ended with code 5" in done.stderr
    states = {state["name"]: state for state in fsdm_json("index", "-d", layout.root, "status")}
    assert (states["four"]["indexed"], states["four"]["gathered"], states["four"]["runs"]) == (3, 3, 1)
    assert (states["bad"]["indexed"], states["bad"]["failing"]) == (0, 3)
    assert "fsdm explain ID" in fsdm("index", "-d", layout.root, "status").stderr
    with Client(layout.root) as client:
        assert found(client, b"\2" * 4) == [places[2].chunk_id]


def test_no_symlink_in_the_place_of_a_directory_of_indexes_is_followed(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"run-{16 * '0'}").touch()
    (outside / "four").touch()
    place = put_chunk(layout)
    os.symlink(outside, f"{layout.path(place)}/index")
    os.mkdir(layout.index)
    os.symlink(outside, layout.runs_of("four"))
    before = sorted(os.listdir(outside))
    bench = Bench(layout, by_four(tmp_path))
    assert bench.step() == module.FIRST_REST_S, "the disk refuses to make the index"
    assert fsdm("index", "-d", layout.root, "rebuild", "four", "--chunks").returncode == 0
    assert sorted(os.listdir(outside)) == before
    os.unlink(f"{layout.path(place)}/index")
    bench.now += module.FIRST_REST_S
    bench.step()
    bench.step()
    assert bench.has(place)
    assert sorted(os.listdir(outside)) == before
    assert IndexRuns(layout).find("four", b"none") == []


def test_a_chunk_that_takes_anothers_place_is_indexed(layout: Layout, tmp_path: Path) -> None:
    place = put_chunk(layout, files={"a": b"1111"})
    bench = Bench(layout, by_four(tmp_path))
    bench.step()
    shutil.rmtree(layout.path(place))
    again = put_chunk(layout, chunk_id=place.chunk_id, files={"a": b"2222"})
    assert again == place
    bench.it.wake(place.chunk_id)
    bench.it.step()
    while bench.it.pending or bench.it._merging:
        bench.it.step()
    bench.it.step()
    runs = IndexRuns(layout)
    assert [chunk.place for chunk in runs.find("four", b"2222")] == [place]
    assert bench.has(place)


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
