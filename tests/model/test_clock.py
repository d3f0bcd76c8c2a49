"""Times as people read them."""

from __future__ import annotations

import time

import pytest

from fsdm.model.clock import ago, lasting, moment

NOON = time.mktime((2026, 5, 17, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"), (0.4, "0 s"), (59.6, "60 s"), (99, "99 s"), (100, "2 min"), (5990, "1 h 40 min"),
        (3600 * 3, "3 h"), (3600 * 47 + 60, "47 h 1 min"), (86_400 * 4, "4 days"), (1e12, "11574074 days"),
    ],
)  # fmt: skip
def test_a_duration_has_one_or_two_units(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_a_moment_has_seconds_where_it_is_near_and_a_date_where_it_is_another_day() -> None:
    assert moment(NOON - 61, NOON) == "11:58:59"
    assert moment(NOON + 3600, NOON) == "13:00"
    assert moment(NOON - 86_400, NOON) == "2026-05-16 12:00"
    assert ago(NOON - 7200, NOON) == "10:00 (2 h ago)"
    assert ago(NOON + 660, NOON) == "12:11 (in 11 min)"


@pytest.mark.parametrize("at", [1e300, -1e300, 1e18])
def test_a_time_that_there_is_not_is_told_as_such(at: float) -> None:
    assert moment(at, NOON) == "at no time that there is"
