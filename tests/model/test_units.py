"""Sizes, durations and times as people write and read them."""

import time

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.model.units import ago, how_far, lasting, moment, parse_duration, parse_size, per_second, readable

NOON = time.mktime((2026, 5, 17, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("1", 1), ("4096", 4096), ("10K", 10_000), ("2M", 2_000_000), ("900G", 900_000_000_000)),
        *(("900GB", 900_000_000_000), ("3T", 3_000_000_000_000), ("1Ki", 1024), ("2MiB", 2 << 20)),
        *(("10Gi", 10 << 30), ("1.5Ti", 3 << 39), ("0.5K", 500), ("9007199254740993", 2**53 + 1)),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.1", "-1G", "1e9", "10 G", "10g", "G", "10Q", "nan", "inf", "1.G", "١", "1" * 400 + ".5", "9" * 5000],
)
def test_what_is_no_size_is_refused_with_the_units_that_there_are(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no size") as refused:
        parse_size(text)
    assert "Gi" in refused.value.hint


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        *((0, "0 bytes"), (99_999, "99999 bytes"), (100_000, "100.0 kB"), (1_000_000, "1.0 MB")),
        *((950_000_000, "950.0 MB"), (1_000_000_000, "1000.0 MB"), (900_000_000_000, "900.0 GB")),
        (20_000_000_000_000, "20.0 TB"),
    ],
)
def test_a_size_is_shown_as_people_read_it(size_bytes: int, text: str) -> None:
    assert readable(size_bytes) == text


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
    assert moment(at, NOON) == "at an impossible time"


@pytest.mark.parametrize(
    ("bytes_per_s", "text"), [(0, "0.0 kB/s"), (99_999, "100.0 kB/s"), (100_000, "100.0 kB/s"), (12.5e6, "12.5 MB/s")]
)
def test_rates_are_told_in_bytes_a_second(bytes_per_s: float, text: str) -> None:
    assert per_second(bytes_per_s) == text


@pytest.mark.parametrize(
    ("known", "text"),
    [((5, 7), "5 bytes of 7 bytes"), ((5, None, 9), "5 bytes of at least 9 bytes"), ((5, None, 5), "5 bytes")],
)
def test_how_far_something_is_says_what_is_known(known: tuple[int, int | None], text: str) -> None:
    assert how_far(*known) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("1d", 86_400), ("0.5", 0.5)],
)
def test_a_duration_is_a_number_and_perhaps_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m", "-1", "1w", "1e3", "5m\n", "m5"])
def test_a_text_that_is_no_duration_is_told_so(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no duration"):
        parse_duration(text)
