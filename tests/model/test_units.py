"""Sizes as people write and read them."""

from __future__ import annotations

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.model.units import parse_size, readable


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1),
        ("4096", 4096),
        ("10K", 10_000),
        ("2M", 2_000_000),
        ("900G", 900_000_000_000),
        ("900GB", 900_000_000_000),
        ("3T", 3_000_000_000_000),
        ("1Ki", 1024),
        ("2MiB", 2 << 20),
        ("10Gi", 10 << 30),
        ("1.5Ti", 3 << 39),
        ("0.5K", 500),
        ("9007199254740993", 2**53 + 1),
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
        (0, "0 bytes"),
        (99_999, "99999 bytes"),
        (100_000, "100.0 kB"),
        (1_000_000, "1.0 MB"),
        (950_000_000, "950.0 MB"),
        (1_000_000_000, "1000.0 MB"),
        (900_000_000_000, "900.0 GB"),
        (20_000_000_000_000, "20.0 TB"),
    ],
)
def test_a_size_is_shown_as_people_read_it(size_bytes: int, text: str) -> None:
    assert readable(size_bytes) == text
