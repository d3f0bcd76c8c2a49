"""The sentences that people who wait are told: each once, and none that does not concern them."""

from typing import Any

from fsdm.status.chunk_status import Failing
from fsdm.status.obstacles import LISTED, Obstacles
from fsdm.status.progress import Retiring, Survey
from fsdm.store.holders import Holder, Holders
from tests.support.chunks import an_id

ROOT = "/my data"
FAILS = Failing(an_id(1), "transfer", "HTTP 404 Not Found", 1, 1900.0, "", transient=False)
HELD = Retiring(an_id(2), 0.0, 5, Holders((Holder(77, "sleep 60", "me", 0.0, "shared"),)))


def a_survey(**what: Any) -> Survey:
    return Survey(**{"at": 1000.0, "reconciler": "pid 1 on host", "free_bytes": 5, "read_only": False, **what})


def test_where_nothing_is_in_the_way_nothing_is_said() -> None:
    assert Obstacles(ROOT).news(a_survey(wanted=3, retiring=(Retiring(an_id(3), 0.0, 1, Holders()),))) == []


def test_each_obstacle_is_told_once_and_names_the_way_out() -> None:
    obstacles = Obstacles(ROOT)
    seen = a_survey(
        reconciler=None,
        paused=True,
        braked=True,
        free_bytes=0,
        failing=(FAILS,),
        waiting=(Failing(an_id(4), "room", "needs 5 GB"),),
        retiring=(HELD,),
    )
    told = "\n".join(obstacles.news(seen))
    for words in (
        "no process is reconciling /my data",
        "fsdm run -d '/my data'",
        "downloads are paused; to let them go on: fsdm resume -d '/my data'",
        "deletes are held back; fsdm status -d '/my data'",
        "the disk is full",
        f"{an_id(1)[:12]} fails: HTTP 404 Not Found; it will not pass by itself: fsdm explain -d '/my data' {an_id(1)}",
        f"{an_id(4)[:12]} waits for room: it needs 5 GB",
        f"{an_id(2)[:12]} is deleted once it is released by pid 77 `sleep 60`",
    ):
        assert words in told
    assert obstacles.news(seen) == []
    passing = Failing(an_id(1), "transfer", "HTTP 503", 2, 1007.0)
    (again,) = obstacles.news(a_survey(failing=(passing,)))
    assert "HTTP 503; it is tried again at " in again
    assert "(in 7 s): fsdm explain" in again


def test_a_reconciler_that_is_stuck_and_a_read_only_disk_are_told() -> None:
    stuck = "the reconciler, pid 1, does not go on"
    told = Obstacles(ROOT).news(a_survey(reconciler_trouble=stuck, read_only=True, free_bytes=0))
    assert told == [stuck, "the file system is read-only: nothing can be downloaded or deleted"]


def test_only_those_that_are_waited_for_are_named() -> None:
    obstacles = Obstacles(ROOT, [an_id(2)])
    (told,) = obstacles.news(a_survey(failing=(FAILS,), retiring=(HELD,)))
    assert told.startswith(an_id(2)[:12])


def test_of_thousands_a_few_are_named_and_the_others_pointed_to() -> None:
    obstacles = Obstacles(ROOT)
    many = tuple(Failing(an_id(n), "transfer", "HTTP 404") for n in range(5000))
    told = obstacles.news(a_survey(failing=many))
    assert len(told) == LISTED + 1
    assert told[-1] == "more chunks fail: fsdm status -d '/my data' tells which"
    assert obstacles.news(a_survey(failing=many)) == []
    assert len(obstacles.news(a_survey(failing=many, paused=True))) == 1
