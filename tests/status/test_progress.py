"""How fast and how long: rates that do not flatter, ETAs that do not invent."""

from dataclasses import replace

import pytest

from fsdm.status.chunk_status import Failing
from fsdm.status.progress import Meter, Progress, Retiring, Running, Survey

EMPTY = Survey(at=1000.0, reconciler="pid 1", free_bytes=10**9, read_only=False)


def metered(*marks: tuple[float, int]) -> Meter:
    meter = Meter()
    for now, count in marks:
        meter.take(now, count)
    return meter


def seen(*surveys: tuple[float, Survey]) -> Progress:
    progress = Progress()
    for now, survey in surveys:
        progress.take(survey, now)
    return progress


STEADY = [(float(at), at * 100) for at in range(20)]


@pytest.mark.parametrize(
    ("marks", "rate"),
    [
        ([], None),
        ([(0, 5)], None),
        ([(0, 5), (0.5, 900)], None),
        ([(0, 0), (2, 900)], 450),
        ([*STEADY, *((float(at), 1900) for at in range(20, 25))], pytest.approx(50)),  # in ten seconds, five quiet ones
        ([*STEADY[:10], *((float(at), 900) for at in range(10, 21))], 0.0),
        ([(0, 0), (60, 600), (120, 1200)], 10),
    ],
    ids=["no mark", "one mark", "too short", "long enough", "the last ten seconds", "a stall", "seldom looks"],
)
def test_a_rate_is_of_the_last_ten_seconds(marks: list[tuple[float, int]], rate: float | None) -> None:
    assert metered(*marks).rate() == rate


def test_a_meter_forgets_what_is_long_ago() -> None:
    meter = metered(*((float(at), at) for at in range(1000)))
    assert len(meter._marks) < 70


WHOLE = replace(EMPTY, running=(Running("a" * 64, 0, 900),), left_bytes=900)
SOME = replace(EMPTY, running=(Running("a" * 64, 0),), wanted=1, unknown=1)
FAST = replace(WHOLE, came_bytes=10**6)


@pytest.mark.parametrize(
    ("surveys", "eta_s"),
    [
        ([(0, WHOLE), (3, replace(WHOLE, came_bytes=300, left_bytes=600))], 6.0),
        ([(0, SOME), (3, replace(SOME, came_bytes=300, left_bytes=600))], 6.0),
        ([(0, SOME), (3, replace(SOME, came_bytes=300))], None),
        ([(0, WHOLE)], None),
        ([(0, WHOLE), (5, WHOLE)], None),
        ([(0, WHOLE), *((at, FAST) for at in range(1, 20))], None),
        ([(0, EMPTY)], 0.0),
    ],
    ids=["sizes known", "some known", "none known", "one look", "nothing came", "a stall", "nothing is to come"],
)
def test_eta_is_what_is_left_over_what_comes(surveys: list[tuple[float, Survey]], eta_s: float | None) -> None:
    assert seen(*surveys).eta_s() == eta_s


def test_rate_is_zero_in_a_stall() -> None:
    assert seen((0, WHOLE), *((float(at), FAST) for at in range(1, 20))).rate() == 0.0


def test_what_brings_most_comes_first() -> None:
    first = replace(EMPTY, running=(Running("a", 0), Running("b", 500), Running("c", 0), Running("d", 9)))
    then = replace(EMPTY, running=(Running("a", 10), Running("b", 500), Running("c", 90), Running("d", 0)))
    progress = seen((0, first), (2, then))
    assert [one.id for one in progress.by_activity(then.running)] == ["c", "a", "b", "d"]
    assert progress.rate_of("c") == 45
    assert progress.rate_of("d") == 0.0, "a partial that is begun anew"
    assert progress.rate_of("x") is None


def test_a_chunk_that_no_longer_runs_is_forgotten() -> None:
    progress = seen((0, replace(EMPTY, running=(Running("a", 0),))), (5, EMPTY))
    assert progress.rate_of("a") is None


@pytest.mark.parametrize(
    "pending",
    [
        {"wanted": 1}, {"deleting": 1}, {"unready": 1}, {"running": (Running("a", 0),)},
        {"retiring": (Retiring("a", 0.0),)}, {"failing": (Failing("a", "", ""),)},
        {"waiting": (Failing("a", "room", ""),)},
    ],
    ids=lambda one: next(iter(one)),
)  # fmt: skip
def test_what_is_pending_is_not_converged(pending: dict[str, object]) -> None:
    assert EMPTY.is_converged
    assert not replace(EMPTY, **pending).is_converged  # type: ignore[arg-type]
