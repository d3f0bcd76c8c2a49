"""A Dask worker as a node: what it reports, when it joins, and what becomes of a task that ends its process."""

import os
import signal
import sys
from pathlib import Path

import cloudpickle
import pytest
from distributed import Client

import fsdm
from fsdm.fleet.alone import work_alone
from fsdm.fleet.dask_node import FleetNode, start_delay_s
from fsdm.fleet.report import Report
from fsdm.fleet.routes import Part
from fsdm.fleet.task import HeldChunk, Work, work_on
from fsdm.model.layout import Layout, Place
from tests.support import begun, eventually
from tests.support.chunks import an_id, put_chunk
from tests.support.dask_fleet import in_this_process
from tests.support.indexes import put_index


def metric(client: Client) -> dict[str, object]:
    [worker] = client.sync(client.scheduler.identity, n_workers=-1)["workers"].values()
    return worker["metrics"]["fsdm"]  # type: ignore[no-any-return]


def test_heartbeats_tell_the_node_and_what_it_has_last_reported(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "a1.json"
    with in_this_process({"w": FleetNode(layout.root, "a1", str(path))}) as client:
        assert metric(client) == {"node": "a1"}
        said = Report(at=1.0, applied="a" * 64, missing=(an_id(), an_id()), bytes=7, braked=True, failing=(an_id(),))
        (tmp_path / "new").write_bytes(said.to_json())
        os.rename(tmp_path / "new", path)
        figures = {"applied": "a" * 64, "missing": 2, "bytes": 7, "braked": True, "failing": 1}
        eventually(lambda: metric(client) == {"node": "a1", **figures}, "the heartbeats tell it")
        path.write_text("{")
        eventually(lambda: "broken" in metric(client), "the heartbeats tell what is wrong")
        assert "the report cannot be read" in str(metric(client)["broken"])
        assert metric(client)["node"] == "a1"


def test_workers_that_start_at_once_join_one_after_another() -> None:
    names = [f"node-{n}" for n in range(2000)]
    delays = [start_delay_s(name, 10.0) for name in names]
    assert delays == [start_delay_s(name, 10.0) for name in names]
    assert all(0 <= delay < 10 for delay in delays)
    each_second = [sum(int(delay) == second for delay in delays) for second in range(10)]
    assert max(each_second) < 1.3 * 200
    assert start_delay_s("a", 0.0) == 0.0


def test_worker_of_dask_becomes_a_node_by_preload(layout: Layout) -> None:
    Path(layout.node_id).write_text("a7\n")
    with in_this_process({}) as client:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, "--no-nanny"]
        options = ["--preload", "fsdm.fleet.dask_node", "--no-dashboard", "--local-directory", layout.root]
        names = {"FSDM_DATA_DIR": layout.root, "FSDM_START_WITHIN": "0"}
        with begun([*command, *options], env={**os.environ, **names}):
            client.wait_for_workers(1, timeout=60)
            assert metric(client) == {"node": "a7"}


def a_work(function: object, *places: Place, how: str = "each", **more: object) -> Work:
    parts = [(number, Part(place, place.block_range)) for number, place in enumerate(places)]
    return Work(cloudpickle.dumps(function), how, parts, **more)  # type: ignore[arg-type]


@pytest.fixture
def two(layout: Layout) -> list[Place]:
    return [put_chunk(layout, start=n, end=n + 1) for n in range(2)]


def test_task_of_its_own_process_gives_what_one_of_the_worker_does(layout: Layout, two: list[Place]) -> None:
    missing = Place.of("d" * 64, range(5, 6), an_id())
    work = a_work(lambda chunk: (chunk.id, sorted(os.listdir(chunk.path))), *two, missing)
    with fsdm.Client(layout.root) as client:
        here = work_on(client.ref_at, "a", work)
    assert here.values[0] == (two[0].chunk_id, ["blocks.parquet"])
    assert here.refused == {2: "the chunk is not here"}
    assert work_alone(layout.root, "a", work, lambda: True) == here


def test_error_of_a_task_of_its_own_process_is_raised(layout: Layout, two: list[Place]) -> None:
    def fail(chunk: HeldChunk) -> None:
        raise LookupError("no such column")

    with pytest.raises(LookupError, match="no such column") as e:
        work_alone(layout.root, "a", a_work(fail, *two), lambda: True)
    assert e.value.__notes__[0].startswith(f"on node a, of chunk {two[0].chunk_id}")

    class OddError(Exception):
        """Cannot be made again of what it keeps."""

        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    def fail_oddly(chunk: HeldChunk) -> None:
        raise OddError(1, 2)

    with pytest.raises(RuntimeError, match="OddError: odd"):
        work_alone(layout.root, "a", a_work(fail_oddly, *two), lambda: True)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "it was ended by SIGKILL"),
        (lambda: os._exit(3), "it ended with code 3"),
    ],
    ids=["signal", "exit"],
)
def test_process_that_ends_tells_with_which_part_and_how(
    layout: Layout, two: list[Place], end: object, how: str
) -> None:
    def fall(chunk: HeldChunk) -> None:
        if chunk.id == two[1].chunk_id:
            end()  # type: ignore[operator]

    answer = work_alone(layout.root, "a", a_work(fall, *two), lambda: True)
    assert answer.died == (1, how)
    assert answer.values == {}


def test_process_of_a_task_that_nobody_waits_for_is_killed(layout: Layout, two: list[Place], tmp_path: Path) -> None:
    def wait(chunk: HeldChunk) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.rename(tmp_path / "pid", tmp_path / "here")
        signal.pause()

    here = tmp_path / "here"
    answer = work_alone(layout.root, "a", a_work(wait, *two), lambda: not here.exists())
    assert answer.died is not None
    with pytest.raises(ProcessLookupError):
        os.kill(int(here.read_text()), 0)


def test_only_chunks_that_hold_a_key_are_worked_on_and_one_without_the_index_is_told(
    layout: Layout, two: list[Place]
) -> None:
    bare = put_chunk(layout, start=5, end=6)
    put_index(layout, two[0], [b"key", b"other"])
    put_index(layout, two[1], [b"other"])
    with fsdm.Client(layout.root) as client:
        answer = work_on(client.ref_at, "a", a_work(lambda chunk: chunk.blocks, *two, bare, key=("tx", b"key")))
    assert answer.values == {0: range(1)}
    assert answer.refused == {2: "the chunk has no index 'tx' yet"}


def test_all_chunks_of_a_node_are_held_at_once_where_the_function_takes_them_together(
    layout: Layout, two: list[Place]
) -> None:
    missing = Place.of("d" * 64, range(1), an_id())
    work = a_work(lambda chunks: [(chunk.blocks, chunk.ref.closed) for chunk in chunks], missing, *two, how="all")
    with fsdm.Client(layout.root) as client:
        answer = work_on(client.ref_at, "a", work)
        assert answer.values == {1: [(range(1), False), (range(1, 2), False)]}
        assert answer.refused == {0: "the chunk is not here"}
        assert client.available_places() == two
