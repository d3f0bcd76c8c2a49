"""One pass: what is looked at in it, and what is left for the next one. How passes converge stands in other tests."""

import fcntl
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fsdm.reconcile.loop
from fsdm import Limits
from fsdm.model.layout import Layout
from fsdm.reconcile.loop import Loop
from tests.support.chunks import an_id, put_chunk, touch_delete
from tests.support.loop import Inline


class Bench(Inline):
    """A reconciler of this thread, whose wall clock stands still, and that scans no second time by itself."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, Limits(poll_s=1e6, durability="none"))
        self.loop = self.it.loop

    def run_pass(self, *woken: str, everything: bool = False) -> bool:
        return self.loop.run_pass(set(woken), everything=everything)


@pytest.fixture
def bench(layout: Layout) -> Bench:
    """After its first pass, which scans."""
    bench = Bench(layout)
    assert not bench.loop.is_done(), "nothing has been looked at yet"
    assert not bench.run_pass()
    assert bench.loop.is_done()
    return bench


def test_a_notified_id_is_looked_at_others_wait_for_the_scan(bench: Bench, layout: Layout, data_dir: Path) -> None:
    named, unnamed = put_chunk(layout), put_chunk(layout, start=20, end=30)
    bench.run_pass(everything=True)
    for place in (named, unnamed):
        touch_delete(data_dir, place.chunk_id)
    assert bench.run_pass(named.chunk_id)
    while bench.run_pass():  # what has ended is taken in, and gone on with
        pass
    assert (os.path.exists(layout.path(named)), os.path.exists(layout.path(unnamed))) == (False, True)
    assert bench.run_pass(everything=True)
    assert not os.path.exists(layout.path(unnamed))


def test_a_scan_is_due_after_a_time_and_comes_with_the_upkeep(bench: Bench, layout: Layout) -> None:
    os.rmdir(layout.verify)
    bench.run_pass()
    assert not os.path.exists(layout.verify)
    assert 0.0 < bench.loop.wait_s() <= 1e6
    bench.loop.next_scan = time.monotonic()
    assert bench.loop.wait_s() == 0.0
    bench.run_pass()
    assert os.path.isdir(layout.verify)
    assert bench.loop.wait_s() > 0.0


def test_what_is_suspected_is_looked_at_in_the_next_pass(bench: Bench, layout: Layout) -> None:
    place = put_chunk(layout)
    bench.run_pass(everything=True)
    Path(layout.path(place), "data", "blocks.parquet").write_bytes(b"")
    assert not bench.run_pass()
    bench.loop.manifest_check.check(place)
    assert bench.run_pass()
    assert not os.path.exists(f"{layout.path(place)}/READY")


def test_an_id_about_which_there_is_nothing_is_forgotten(bench: Bench) -> None:
    chunk_id = an_id()
    assert not bench.run_pass(chunk_id)
    assert bench.loop.states == {}
    assert bench.loop.troubles() == {}
    assert bench.loop.results._memos == {}


def test_what_waits_for_a_ref_is_told_of(bench: Bench, layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    bench.run_pass(everything=True)
    touch_delete(data_dir, place.chunk_id)
    fd = os.open(layout.path(place), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        assert bench.run_pass(place.chunk_id)
        bench.run_pass()
        assert bench.loop.troubles() == {place.chunk_id: "refs hold it"}
        assert bench.loop.results.held_chunks == 1
    finally:
        os.close(fd)


IS_DONE = {  # what is otherwise than after a pass that left nothing
    "nothing is left": ({}, True),
    "nothing was looked at": ({"next_scan": 0.0}, False),
    "something runs": ({"executor": ["it"]}, False),
    "a fetch waits for room that is being made": ({"parked": 1, "is_emptying": True}, False),
    "a fetch waits for room": ({"parked": 1}, True),
    "room is made for no fetch": ({"is_emptying": True}, True),
    "a fetch waits for its turn": ({"waiting": 1}, False),
    "a fetch waits for its turn while the disk refuses": ({"waiting": 1, "refuses": True}, True),
    "a fetch waits for its turn while downloads are paused": ({"waiting": 1, "why": "a reason"}, True),
    "a want was not tried often enough": ({"states": ["want"]}, False),
    "a want was tried often enough": ({"states": ["want"], "is_stuck": True}, True),
    "a want that the disk refuses": ({"states": ["want"], "refuses": True}, True),
    "a want while downloads are paused": ({"states": ["want"], "why": "a reason"}, True),
    "a delete was not tried often enough": ({"states": ["delete"]}, False),
    "a delete while the disk refuses": ({"states": ["delete"], "refuses": True}, False),
    "a delete that is held back": ({"states": ["delete"], "holds_back": True}, True),
    "one of two is not done": ({"states": ["want", "delete"], "refuses": True}, False),
}


@pytest.mark.parametrize(("otherwise", "is_done"), IS_DONE.values(), ids=IS_DONE)
def test_it_is_done_where_nothing_runs_and_what_is_left_was_tried(
    monkeypatch: pytest.MonkeyPatch, otherwise: dict[str, Any], is_done: bool
) -> None:
    it = {"next_scan": 9.0, "executor": [], "parked": 0, "waiting": 0, "is_emptying": False, "refuses": False}
    it |= {"why": "", "states": [], "is_stuck": False, "holds_back": False} | otherwise
    monkeypatch.setattr(fsdm.reconcile.loop, "is_stuck", lambda memo: it["is_stuck"])
    loop = SimpleNamespace(
        next_scan=it["next_scan"],
        executor=it["executor"],
        work_queue=SimpleNamespace(parked_fetches=it["parked"], waiting_fetches=it["waiting"]),
        space=SimpleNamespace(is_emptying=it["is_emptying"]),
        disk=SimpleNamespace(refuses_for_long=it["refuses"]),
        paused=SimpleNamespace(why=it["why"]),
        results=SimpleNamespace(memo=lambda chunk_id: None),
        delete_brake=SimpleNamespace(brake=SimpleNamespace(holds_back=lambda chunk_id: it["holds_back"])),
        states={kind: SimpleNamespace(want=True if kind == "want" else None) for kind in it["states"]},
    )
    assert Loop.is_done(loop) is is_done  # type: ignore[arg-type]


def test_changed_limits_hold_from_the_next_pass_on_the_last_of_them(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    inline = Inline(layout, Limits(jobs=1, brake_share=0.5))
    loop = inline.it.loop
    loop.change(Limits(jobs=2, brake_share=0.25, max_bytes=1000))
    loop.change(Limits(jobs=3, brake_share=None, connections=Limits().connections + 1))
    assert loop.limits.jobs == 1
    inline.passes(1)
    assert (loop.limits.jobs, loop.limits.connections, loop.limits.max_bytes) == (3, Limits().connections, None)
    assert (loop.delete_brake.brake.share, loop.space.is_limited) == (None, False)
    assert [record.getMessage() for record in caplog.records] == ["not before the next start: connections"]
