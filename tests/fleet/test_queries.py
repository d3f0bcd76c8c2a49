"""Queries over a fleet: each block is answered for once, by a node that holds it, or an error names it."""

import os
import signal
from pathlib import Path

import pytest

from fsdm.fleet.dask_node import FleetNode
from fsdm.fleet.queries import FleetClient
from fsdm.fleet.task import HeldChunk
from fsdm.model.errors import (
    ClosedError,
    InvalidInputError,
    NotHeldError,
    QueryDiedError,
    SchedulerLostError,
    WaitTimeoutError,
)
from tests.support import eventually
from tests.support.chunks import touch_delete
from tests.support.dask_fleet import BLOCKS, DATASET, Nodes, a_fleet, connected, in_processes, in_this_process
from tests.support.indexes import put_index


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def blocks_of(chunk: HeldChunk) -> range:
    return chunk.blocks


def node_of(chunk: HeldChunk) -> str:
    return chunk.path.parts[-5]


def test_range_is_answered_for_in_block_order_each_block_once(nodes: Nodes) -> None:
    for number in range(12):
        nodes.put("abc"[number % 3], "abc"[(number + 1) % 3])
    with a_fleet(nodes, "a", "b", "c") as fleet:
        found = list(fleet.map_range(blocks_of, DATASET, 5, 117))
        assert [block for blocks in found for block in blocks] == list(range(5, 117))
        assert found[1] == range(10, 20)
        groups = list(fleet.map_nodes(lambda chunks: [chunk.blocks for chunk in chunks], DATASET, 5, 117))
        assert len(groups) == 3
        assert sorted((blocks for group in groups for blocks in group), key=lambda blocks: blocks.start) == found
        assert [group[0].start for group in groups] == sorted(group[0].start for group in groups)


def test_chunk_is_held_while_the_function_runs_and_let_go_then(nodes: Nodes) -> None:
    place = nodes.put("a", blocks=b"rows")

    def read(chunk: HeldChunk) -> tuple[str, bytes, bool]:
        return chunk.id, (chunk.path / "blocks").read_bytes(), chunk.ref.closed

    with a_fleet(nodes, "a") as fleet:
        assert fleet.submit(read, DATASET, 3).result() == (place.chunk_id, b"rows", False)


def test_chunk_that_is_not_here_is_asked_of_another_node(nodes: Nodes) -> None:
    places = [nodes.put("a", "b") for _ in range(6)]
    for place in places[:4]:
        touch_delete(nodes.root / "a", place.chunk_id)  # its copy is on its way out, and the routes do not know yet
    with a_fleet(nodes, "a", "b") as fleet:
        ids = list(fleet.map_range(lambda chunk: chunk.id, DATASET, 0, 6 * BLOCKS))
    assert ids == [place.chunk_id for place in places]


def test_block_that_nobody_holds_is_an_error_that_names_it(nodes: Nodes) -> None:
    nodes.put("a")
    place = nodes.put("a")
    touch_delete(nodes.root / "a", place.chunk_id)
    with a_fleet(nodes, "a", patience_s=0.2) as fleet:
        with pytest.raises(NotHeldError, match=r"nobody holds blocks \[20, 25\) of dddd.*no chunk of the fleet"):
            fleet.map_range(blocks_of, DATASET, 0, 25)
        query = fleet.map_range(blocks_of, DATASET, 0, 20)
        assert next(query) == range(10)
        with pytest.raises(NotHeldError, match=rf"blocks \[10, 20\) .*{place.chunk_id}.*a: the chunk is not here"):
            next(query)
        with pytest.raises(ClosedError, match="has been closed"):
            next(query)


def test_chunk_whose_only_node_has_no_worker_is_an_error_that_names_both(nodes: Nodes) -> None:
    nodes.put("gone")
    missing = pytest.raises(NotHeldError, match=r"blocks \[3, 4\) .* gone: the scheduler has no worker of it")
    with a_fleet(nodes, "a", patience_s=0.2) as fleet, missing:
        fleet.submit(blocks_of, DATASET, 3).result()


def test_error_of_the_function_is_raised_with_where_it_was(nodes: Nodes) -> None:
    place = nodes.put("a")

    def fail(chunk: HeldChunk) -> None:
        raise KeyError("no such column")

    with a_fleet(nodes, "a") as fleet, pytest.raises(KeyError, match="no such column") as e:
        list(fleet.map_range(fail, DATASET, 0, 10))
    assert e.value.__notes__ == [f"on node a, of chunk {place.chunk_id} (blocks [0, 10))"]


def test_worker_that_is_no_node_is_asked_nothing(nodes: Nodes) -> None:
    nodes.put("a")

    class Other(FleetNode):
        def setup(self, worker: object) -> None:
            """Be no node."""

        teardown = setup

    with in_this_process({"b": Other(nodes.layout("a").root, "a")}) as client:
        fleet = FleetClient(client, nodes.routes, patience_s=0.2)
        with pytest.raises(NotHeldError, match="a: the scheduler has no worker of it"):
            fleet.submit(blocks_of, DATASET, 3).result()


def test_node_that_is_to_lose_a_chunk_is_asked_last(nodes: Nodes) -> None:
    for _ in range(8):
        nodes.put("b", leaving=["a"])
    with a_fleet(nodes, "a", "b") as fleet:
        assert set(fleet.map_range(node_of, DATASET, 0, 80)) == {"b"}
    with a_fleet(nodes, "a") as fleet:
        assert set(fleet.map_range(node_of, DATASET, 0, 80)) == {"a"}


def test_chunks_that_hold_a_key_are_found_on_whichever_nodes_they_are(nodes: Nodes) -> None:
    places = [nodes.put("a", "b"), nodes.put("b", "c"), nodes.put("c", "a")]
    for place, nodes_of, keys in zip(places, ("ab", "bc", "ca"), ([b"x"], [b"y"], [b"x", b"y"]), strict=True):
        for node in nodes_of[1:] if place is places[0] else nodes_of:  # the first one has no index on its first node
            put_index(nodes.layout(node), place, keys)
    with a_fleet(nodes, "a", "b", "c", patience_s=0.2) as fleet:
        for _ in range(4):
            assert list(fleet.map_key("tx", b"x", lambda chunk: chunk.id)) == [places[0].chunk_id, places[2].chunk_id]
        assert list(fleet.map_key("tx", b"z", node_of, DATASET)) == []
        with pytest.raises(NotHeldError, match="the chunk has no index 'nope' yet"):
            list(fleet.map_key("nope", b"x", node_of))
        with pytest.raises(InvalidInputError, match="key"):
            fleet.map_key("tx", "x", node_of)  # type: ignore[arg-type]


def test_what_cannot_be_asked_is_refused_at_once(nodes: Nodes) -> None:
    nodes.put("a")
    with a_fleet(nodes, "a") as fleet:
        with pytest.raises(InvalidInputError, match="start: must be a range"):
            fleet.map_range(blocks_of, DATASET, 5, 5)
        with pytest.raises(InvalidInputError, match="fn: it cannot be sent"):
            fleet.map_range((number for number in ()).__next__, DATASET, 0, 5)
        with pytest.raises(InvalidInputError, match="patience_s: must be above zero"):
            FleetClient(fleet._dispatch.client, nodes.routes, patience_s=0)


class Gate:
    """Holds up a function on some nodes until a file is there; another one tells that it has begun."""

    def __init__(self, root: Path, *nodes: str) -> None:
        self.root, self.nodes = root, nodes

    def __call__(self, chunk: HeldChunk) -> range:
        if (node := node_of(chunk)) in self.nodes:
            (self.root / f"begun-{node}").touch()
            wait_for(self.root / "open")
        return chunk.blocks

    def until_begun(self) -> None:
        eventually(lambda: all((self.root / f"begun-{node}").exists() for node in self.nodes), "they have begun")

    def open(self) -> None:
        (self.root / "open").touch()


def wait_for(path: Path) -> None:
    eventually(path.exists, f"{path} is there")


def ranges(chunks: int) -> list[range]:
    return [range(at, at + BLOCKS) for at in range(0, chunks * BLOCKS, BLOCKS)]


def test_nodes_that_are_killed_and_frozen_in_the_middle_change_no_answer(nodes: Nodes) -> None:
    for number in range(12):
        nodes.put("ab"[number % 2], "c")
    gate = Gate(nodes.root, "a", "b")
    with in_processes(nodes, "a", "b", "c") as processes, connected(processes, silent_s=1.5) as fleet:
        query = fleet.map_range(gate, DATASET, 0, 120)
        gate.until_begun()
        processes.send("a", signal.SIGKILL)
        processes.send("b", signal.SIGSTOP)
        assert list(query) == ranges(12)
        assert set(fleet.map_range(node_of, DATASET, 0, 120)) == {"c"}


def test_only_holder_that_dies_or_freezes_is_an_error_that_names_it_and_what_waits(nodes: Nodes) -> None:
    nodes.put("a")
    nodes.put("b")
    gate = Gate(nodes.root, "a", "b")
    with in_processes(nodes, "a", "b") as processes, connected(processes, silent_s=1.5, patience_s=0.5) as fleet:
        killed, frozen = (fleet.submit(gate, DATASET, block) for block in (0, BLOCKS))
        gate.until_begun()
        processes.send("a", signal.SIGKILL)
        with pytest.raises(NotHeldError, match=r"blocks \[0, 1\) .*a: (its worker has ended|the scheduler has no)"):
            killed.result()
        processes.send("b", signal.SIGSTOP)
        with pytest.raises(NotHeldError, match=r"blocks \[10, 11\) .*b: its worker has been silent for"):
            frozen.result()


def test_query_that_ends_its_process_takes_down_one_worker_and_is_named(nodes: Nodes) -> None:
    for _ in range(4):
        nodes.put("a", "b", "c")
    deadly = nodes.put("a", "b", "c")

    def fall(chunk: HeldChunk) -> range:
        if chunk.id == deadly.chunk_id:
            os.kill(os.getpid(), signal.SIGSEGV)
        return chunk.blocks

    with in_processes(nodes, "a", "b", "c") as processes, connected(processes, silent_s=60) as fleet:
        with pytest.raises(
            QueryDiedError, match=rf"ended its process with blocks \[40, 50\).*{deadly.chunk_id}.*SIGSEGV"
        ):
            list(fleet.map_range(fall, DATASET, 0, 50))
        ended = eventually(lambda: [one for one in processes.workers.values() if not one.is_alive()])
        assert len(ended) == 1
        assert list(fleet.map_range(blocks_of, DATASET, 0, 50)) == ranges(5)


def test_scheduler_that_comes_back_is_asked_anew_and_no_chunk_is_lost(nodes: Nodes) -> None:
    for _ in range(4):
        nodes.put("a", "b")
    gate = Gate(nodes.root, "a", "b")
    with in_processes(nodes, "a", "b") as processes, connected(processes, silent_s=60, patience_s=60) as fleet:
        query = fleet.map_range(gate, DATASET, 0, 40)
        gate.until_begun()
        assert processes.scheduler is not None
        processes.scheduler.kill()
        processes.scheduler.join()
        gate.open()
        processes.start_scheduler()
        processes.start("a", "b")
        assert list(query) == ranges(4)
        assert query._routing._asked[0].losses == 0  # no worker is to blame


def test_scheduler_that_stays_away_is_an_error(nodes: Nodes) -> None:
    nodes.put("a")
    gate = Gate(nodes.root, "a")
    with in_processes(nodes, "a") as processes, connected(processes, patience_s=0.5) as fleet:
        query = fleet.submit(gate, DATASET, 0)
        gate.until_begun()
        assert processes.scheduler is not None
        processes.scheduler.kill()
        with pytest.raises(SchedulerLostError, match=r"the scheduler has not answered for 0\.5 s"):
            query.result()


def test_query_that_is_closed_drops_what_runs(nodes: Nodes) -> None:
    nodes.put("a")
    gate = Gate(nodes.root, "a")
    with a_fleet(nodes, "a") as fleet:
        with fleet.submit(gate, DATASET, 0) as query:
            gate.until_begun()
            with pytest.raises(WaitTimeoutError, match=r"blocks \[0, 1\) .* not been answered for in time"):
                query.result(timeout_s=0.01)
        gate.open()
        with pytest.raises(ClosedError, match="has been closed"):
            next(query)
        assert fleet.submit(blocks_of, DATASET, 0).result() == range(1)
