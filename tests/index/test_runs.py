"""Runs over all chunks: merged, found as by brute force, rid of what is dead, and whole after a kill at each step."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fsdm.index.lookup  # noqa: F401 before a test patches what it imports
from fsdm.client import Client
from fsdm.index import gathering as module
from fsdm.index import merging
from fsdm.index.gathering import RUNS_MAX, Gathering, Merge, RunInfo, inputs_for, redundant
from fsdm.index.merging import MergeJob
from fsdm.model.errors import DataDirectoryError, IndexerError, InvalidInputError
from fsdm.model.index_format import HEADER_BYTES, IndexedChunk
from fsdm.model.indexes import Index
from fsdm.model.layout import READY, Layout, Place, index_path
from fsdm.store import index_runs
from fsdm.store.filesystem import FileSystem
from fsdm.store.index_runs import IndexRuns, open_run, run_names
from tests.support.chunks import a_want, flip, put_chunk, touch_delete
from tests.support.indexes import put_index
from tests.support.locks import can_lock
from tests.support.waiting import PATIENCE_S

INDEX = Index(name="tx", indexer="parquet:hash")


class Bench:
    """Chunks with an index, whose runs are merged in this process."""

    def __init__(self, layout: Layout, fs: FileSystem | None = None) -> None:
        self.layout = layout
        self.places: dict[Place, set[bytes]] = {}
        self.it = Gathering(layout, fs or FileSystem(durable=False), INDEX)

    def put(self, *keys: bytes) -> Place:
        start = len(self.places)
        place = put_chunk(self.layout, start=start, end=start + 1)
        put_index(self.layout, place, keys, definition=INDEX.definition)
        self.places[place] = set(keys)
        return place

    def drop(self, place: Place) -> None:
        os.rename(self.layout.path(place), f"{self.layout.trash}/{place.name}")
        del self.places[place]

    def look(self, *, is_calm: bool = True) -> Merge | None:
        return self.it.look(self.places.keys(), self.places, is_calm=is_calm)

    def gather(self) -> list[Place]:
        """Merge until nothing is due; return what could not be taken."""
        untaken: list[Place] = []
        while (merge := self.look()) is not None:
            untaken += self.it.merge(merge, lambda: None)
            self.it.forget()
            self.it.forget_places(untaken)
            if untaken:
                break
        return untaken

    def runs(self) -> list[str]:
        return run_names(self.layout.runs_of("tx"))

    def found(self, key: bytes, runs: IndexRuns | None = None) -> list[Place]:
        return [chunk.place for chunk in (runs or IndexRuns(self.layout)).find("tx", key)]

    def agrees(self, keys: Sequence[bytes]) -> bool:
        runs = IndexRuns(self.layout)
        return all(
            self.found(key, runs) == sorted(place for place, its in self.places.items() if key in its) for key in keys
        )


def _inline(module_name: str, job: bytes, timeout_s: float, go_on: Callable[[], None]) -> dict[str, object]:
    assert module_name == "fsdm.index.merging"
    go_on()
    given = json.loads(job)
    return merging.merge(MergeJob(**{**given, "places": [tuple(place) for place in given["places"]]}))


@pytest.fixture
def bench(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(module, "run", _inline)
    return Bench(layout)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs are merged each time."""
    monkeypatch.setattr(module, "RUNS_MAX", 1)


def test_a_process_of_its_own_merges(layout: Layout) -> None:
    bench = Bench(layout)
    places = [bench.put(b"all", bytes([n])) for n in range(3)]
    assert bench.gather() == []
    assert len(bench.runs()) == 1
    assert bench.found(b"all") == places
    assert [bench.found(bytes([n])) for n in range(4)] == [[place] for place in places] + [[]]
    assert os.listdir(layout.trash) == []


KEYS = [bytes([n]) * 4 for n in range(12)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.sets(st.sampled_from(KEYS)), st.none(), st.just("gather")), max_size=25))
def test_look_ups_equal_brute_force_whatever_comes_and_goes(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[set[bytes] | str | None]
) -> None:
    layout = Layout(tmp_path_factory.mktemp("data"))
    for directory in layout.directories():
        os.mkdir(os.path.join(layout.root, directory))
    bench = Bench(layout)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "run", _inline)
        patched.setattr(merging, "TOGETHER", 4)
        for deed in [*deeds, "gather"]:
            if isinstance(deed, set):
                bench.put(*sorted(deed))
            elif deed == "gather":
                assert bench.gather() == []
                assert len(bench.runs()) <= RUNS_MAX
                gone = {chunk.place for info in bench.it.runs.values() for chunk in info.chunks} - bench.places.keys()
                in_runs = sum(len(info.chunks) for info in bench.it.runs.values())
                assert len(gone) <= in_runs / 2
                assert in_runs - len(gone) == len(bench.places)
                for key in KEYS:
                    found = [place for place in bench.found(key) if place not in gone]
                    assert found == sorted(place for place, its in bench.places.items() if key in its)
            elif bench.places:
                bench.drop(next(iter(bench.places)))


@pytest.mark.usefixtures("eager")
def test_many_records_are_merged_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "TOGETHER", 64)
    monkeypatch.setattr(merging, "RELEASE_EVERY", 2)
    keys = [number.to_bytes(4) for number in range(5000)]
    for at in range(5):
        bench.put(*keys[at * 500 : at * 500 + 3000])
        bench.gather()
    assert bench.agrees([*keys[::7], b"no"])
    (run,) = (open_run(f"{bench.layout.runs_of('tx')}/{name}") for name in bench.runs())
    assert run is not None
    assert (run.header.count, run.header.bits) == (15_000, 10)
    assert run.is_whole()


def test_there_are_never_more_than_so_many_runs(bench: Bench) -> None:
    for number in range(40):
        bench.put(*(bytes([number, n]) for n in range(1 + number % 3)))
        bench.gather()
        assert len(bench.runs()) == len(bench.it.runs) <= RUNS_MAX
    assert bench.agrees([bytes([number, 0]) for number in range(40)])


@given(st.lists(st.integers(0, 10**9), max_size=12), st.integers(0, 10**6))
def test_what_is_left_after_a_choice_is_little_and_larger(counts: list[int], new: int) -> None:
    runs = [RunInfo(str(number), count, frozenset()) for number, count in enumerate(counts)]
    taken = inputs_for(runs, new)
    left = sorted(info.count for info in runs if info not in taken)
    assert len(left) + 1 <= RUNS_MAX
    if taken:
        assert not left or left[0] > new + sum(info.count for info in taken)
    else:
        assert len(runs) < RUNS_MAX


@pytest.mark.parametrize(("batches", "times"), [(8, 1.0), (40, 2.0), (500, 4.0), (5000, 7.0)])
def test_a_record_is_written_a_few_times_in_its_life(batches: int, times: float) -> None:
    runs: list[RunInfo] = []
    written = 0
    for number in range(batches):
        taken = inputs_for(runs, 1)
        count = 1 + sum(info.count for info in taken)
        written += count
        runs = [info for info in runs if info not in taken] + [RunInfo(str(number), count, frozenset())]
    assert written <= times * batches


def chunks(*starts: int) -> frozenset[IndexedChunk]:
    return frozenset(IndexedChunk(Place.of("d" * 64, range(start, start + 1), "1" * 64), bytes(32)) for start in starts)


def test_runs_that_a_crash_has_kept_are_redundant_and_no_others() -> None:
    alive = chunks(1, 2, 3, 4).__contains__
    small, other, merged = RunInfo("a", 1, chunks(1, 9)), RunInfo("b", 2, chunks(2)), RunInfo("c", 3, chunks(1, 2))
    assert redundant([merged, small, other], alive) == [small, other]
    assert redundant([small, other], alive) == []
    twins = [RunInfo("d", 1, chunks(1)), RunInfo("e", 1, chunks(1))]
    assert len(redundant(twins, alive)) == 1
    assert redundant([RunInfo("f", 1, chunks(8, 9))], alive) == [RunInfo("f", 1, chunks(8, 9))]


class _Killed(BaseException):
    pass


class _Killing(FileSystem):
    """It dies before its n-th step."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def step(self, name: str, path: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Killed


@pytest.mark.usefixtures("eager")
def test_a_kill_at_each_step_loses_no_key(bench: Bench) -> None:
    for steps in range(1000):
        bench.put(f"of {steps}".encode(), b"all")
        bench.gather()
        bench.put(f"also of {steps}".encode(), b"all")
        bench.it.fs = _Killing(steps)
        was_killed = False
        try:
            bench.gather()
        except _Killed:
            was_killed = True
        keys = [f"of {number}".encode() for number in range(steps + 1)]
        assert bench.agrees(keys), "what was there before stays"
        bench.it = Gathering(bench.layout, FileSystem(), INDEX)  # the next reconciler
        bench.gather()
        assert bench.agrees([*keys, *(b"also " + key for key in keys), b"all"])
        listed = [chunk for info in bench.it.runs.values() for chunk in info.chunks]
        assert len(listed) == len(set(listed)) == len(bench.places), "no chunk is left in a run that is of no use"
        if not was_killed:
            break
    assert 5 <= steps < 100


def test_readers_miss_nothing_while_runs_are_merged(bench: Bench) -> None:
    stays = bench.put(b"stays")
    bench.gather()
    runs, wrong, looked = IndexRuns(bench.layout), [], threading.Event()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if bench.found(b"stays", runs) != [stays]:
                wrong.append(run_names(bench.layout.runs_of("tx")))
            looked.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(60):
            looked.clear()
            bench.put(bytes([number]))
            bench.gather()
            assert looked.wait(PATIENCE_S)
    finally:
        done.set()
        reader.join()
    assert wrong == []


@pytest.mark.usefixtures("eager")
def test_a_run_that_goes_between_the_listing_and_its_open_is_listed_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put(b"a")
    bench.gather()
    opened, merged = index_runs.open_run, []

    def late(path: str) -> object:
        if not merged:
            merged.append(path)
            bench.put(b"b")
            bench.gather()
            assert not os.path.exists(path)
        return opened(path)

    monkeypatch.setattr(index_runs, "open_run", late)
    assert bench.agrees([b"a", b"b"])


def test_another_directory_of_the_same_time_is_listed(bench: Bench) -> None:
    bench.put(b"key")
    bench.gather()
    directory = bench.layout.runs_of("tx")
    long_ago_ns = 10**18
    os.utime(directory, ns=(long_ago_ns, long_ago_ns))
    runs = IndexRuns(bench.layout)
    assert bench.found(b"key", runs) != []
    os.rename(directory, f"{directory}.old")
    os.mkdir(directory)
    os.utime(directory, ns=(long_ago_ns, long_ago_ns))
    assert bench.found(b"key", runs) == []


def test_rm_r_is_safe_and_all_is_gathered_again(bench: Bench) -> None:
    keys = [bytes([n]) for n in range(4)]
    for key in keys:
        bench.put(key)
        bench.gather()
    runs = IndexRuns(bench.layout)
    assert bench.found(b"\1", runs) != []
    shutil.rmtree(bench.layout.index)
    assert bench.it.has_changed()
    assert bench.found(b"\1", runs) == []
    bench.gather()
    assert bench.agrees(keys)
    assert bench.found(b"\1", runs) != []
    assert not bench.it.has_changed()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("how", ["cut", "bit in the header", "bit in the body", "of another definition"])
def test_a_run_that_is_damaged_or_of_another_definition_is_made_again(bench: Bench, how: str) -> None:
    keys = [bytes([n]) for n in range(4)]
    bench.put(*keys)
    bench.gather()
    (name,) = bench.runs()
    path = f"{bench.layout.runs_of('tx')}/{name}"
    if how == "cut":
        os.truncate(path, os.path.getsize(path) - 1)
    elif how == "of another definition":
        bench.it = Gathering(bench.layout, FileSystem(), Index(name="tx", indexer="parquet:other"))
        assert bench.it.look(bench.places.keys(), [], is_calm=True) is None
        assert not os.path.exists(path)
        return
    else:
        flip(path, 9 if how == "bit in the header" else HEADER_BYTES + 3)
    bench.it = Gathering(bench.layout, FileSystem(), INDEX)
    new = [b"new", b"newer"]
    bench.put(*new)  # so many that the other run is merged with them, and read
    bench.gather()
    assert bench.agrees(keys + new)


def test_a_chunks_index_that_is_damaged_is_removed_to_be_made_again(bench: Bench) -> None:
    good = bench.put(b"good")
    bench.gather()
    before, place = bench.runs(), bench.put(b"key")
    path = index_path(bench.layout.path(place), "tx")
    flip(path, os.path.getsize(path) - 1)
    assert bench.gather() == [place]
    assert not os.path.exists(path)
    assert bench.runs() == before, "merged with nothing it is the same, and stays"
    assert bench.found(b"good") == [good]
    assert bench.found(b"key") == []
    put_index(bench.layout, place, [b"key"], definition=INDEX.definition)
    assert bench.gather() == []
    assert bench.agrees([b"key", b"good"])


def test_what_is_dead_goes_with_a_merge_and_by_itself_once_it_is_the_most(bench: Bench) -> None:
    places = [bench.put(b"all", bytes([n])) for n in range(8)]
    bench.gather()
    for place in places[:4]:
        bench.drop(place)
    assert bench.look() is None, "a half is kept"
    bench.drop(places[4])
    bench.gather()
    assert bench.found(b"all") == places[5:]
    assert bench.found(b"\0") == []
    for place in places[5:]:
        bench.drop(place)
    bench.gather()
    assert bench.runs() == []


@pytest.mark.usefixtures("eager")
def test_a_chunk_of_another_ready_is_dead(bench: Bench) -> None:
    place = bench.put(b"old")
    bench.gather()
    with open(f"{bench.layout.path(place)}/{READY}", "ab") as ready:
        ready.write(b"\n")
    put_index(bench.layout, place, [b"new"], definition=INDEX.definition)
    bench.it.forget_places([place])
    bench.gather()
    assert (bench.found(b"old"), bench.found(b"new")) == ([], [place])


def test_what_was_evicted_stays_while_it_is_registered_and_goes_with_a_merge_once_it_is_not(bench: Bench) -> None:
    places = [bench.put(b"all", bytes([n])) for n in range(5)]
    bench.gather()
    for place in places:
        bench.drop(place)
    evicted, elsewhere, torn, gone, deleted = places
    for place, blocks in ((evicted, evicted.block_range), (elsewhere, range(7, 9)), (gone, gone.block_range)):
        want = a_want(id=place.chunk_id, block_range=(blocks.start, blocks.stop))
        Path(bench.layout.known_marker(place.chunk_id)).write_bytes(want.to_json())
    Path(bench.layout.known_marker(torn.chunk_id)).write_text("{")
    before = bench.runs()
    assert bench.look() is not None, "most are dead"
    bench.gather()
    assert bench.found(b"all") == [evicted, gone]
    assert bench.runs() != before
    assert not os.path.exists(bench.layout.known_marker(deleted.chunk_id))
    os.unlink(bench.layout.known_marker(gone.chunk_id))
    bench.put(b"new")
    bench.it = Gathering(bench.layout, FileSystem(durable=False), INDEX)  # the next reconciler
    bench.gather()
    assert bench.found(b"all")[0] == evicted
    bench.it.merge(Merge(INDEX, tuple(bench.runs()), ()), lambda: None)
    assert bench.found(b"all") == [evicted]
    assert len(bench.found(b"new")) == 1


def test_the_dead_are_not_looked_for_again_and_again_where_most_were_evicted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[IndexedChunk] = []

    def counted(layout: Layout, chunk: IndexedChunk) -> bool:
        looked.append(chunk)
        return True

    monkeypatch.setattr(module, "stands", counted)
    monkeypatch.setattr(module, "DEAD_REST", 1e9)
    place = bench.put(b"key")
    bench.gather()
    bench.drop(place)
    for _ in range(3):
        assert bench.look() is None
    assert len(looked) == 1


def test_chunks_that_come_wait_for_others_but_not_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put(b"a")
    assert bench.look(is_calm=False) is None
    monkeypatch.setattr(module, "BATCH_MAX", 1)
    assert bench.look(is_calm=False) is not None
    monkeypatch.setattr(module, "BATCH_MAX", 256)
    monkeypatch.setattr(module, "LATE_S", 0.0)
    assert bench.look(is_calm=False) is not None


def test_a_merge_that_leaves_no_whole_run_removes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put(b"a")
    bench.gather()
    before = bench.runs()

    def cut(*given: object) -> object:
        report = _inline(*given)  # type: ignore[arg-type]
        (target,) = Path(bench.layout.trash).iterdir()
        os.truncate(target, target.stat().st_size - 1)
        return report

    monkeypatch.setattr(module, "run", cut)
    bench.put(b"b")
    with pytest.raises(IndexerError, match="no whole run"):
        bench.gather()
    assert bench.runs() == before
    assert os.listdir(bench.layout.trash) == []


def test_a_client_finds_the_available_chunks_of_a_key(bench: Bench, data_dir: Path) -> None:
    places = [bench.put(b"all", bytes([n])) for n in range(4)]
    bench.gather()
    with Client(bench.layout.root) as client:

        def at(key: bytes) -> list[str]:
            seen = []
            for ref in client.find_key("tx", key):
                with ref:
                    seen.append(ref.id)
            return seen

        assert at(b"all") == [place.chunk_id for place in places]
        assert at(b"\2") == [places[2].chunk_id]
        assert at(b"no") == []
        touch_delete(data_dir, places[0].chunk_id)
        os.unlink(f"{bench.layout.path(places[1])}/{READY}")
        os.unlink(index_path(bench.layout.path(places[2]), "tx"))
        put_index(bench.layout, places[3], [b"other"], definition=INDEX.definition)
        assert at(b"all") == [places[2].chunk_id], "neither deleted, nor unready, nor one whose own index knows better"
        with open(f"{bench.layout.path(places[2])}/{READY}", "ab") as ready:
            ready.write(b"\n")
        assert at(b"all") == [], "without an index of its own it must be the one that was merged"
        with pytest.raises(InvalidInputError, match="no index 'none' over all chunks"):
            client.find_key("none", b"all")
        with pytest.raises(InvalidInputError, match="must be bytes"):
            client.find_key("tx", "all")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="cannot be the name"):
            client.find_key("../tx", b"all")


def test_a_look_up_without_descriptors_is_told_and_holds_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    place = bench.put(b"key")
    bench.gather()

    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with Client(bench.layout.root) as client:
        for where in ("fsdm.store.index_file.identity_of", "fsdm.store.refs.open_fd", "os.lstat"):
            with monkeypatch.context() as patched:
                patched.setattr(where, refused)
                with pytest.raises(DataDirectoryError) as told:
                    list(client.find_key("tx", b"key"))
                assert "ulimit -n" in told.value.hint
                assert can_lock(bench.layout.path(place)), where
        [ref] = client.find_key("tx", b"key")
        ref.close()


def test_a_number_that_no_chunk_has_is_nobody(bench: Bench) -> None:
    bench.put(b"key")
    bench.gather()
    path = f"{bench.layout.runs_of('tx')}/{bench.runs()[0]}"
    with open(path, "r+b") as file:
        file.seek(HEADER_BYTES + 16)
        file.write(b"\xff" * 4)
    assert bench.found(b"key") == []
