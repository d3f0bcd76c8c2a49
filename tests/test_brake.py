"""The brake: how much may go before somebody is asked."""

from __future__ import annotations

import pytest

from fsdm.brake import check, exceeds, parse_share
from fsdm.errors import BrakedError, InvalidInputError


@pytest.mark.parametrize(
    ("text", "share"), [("0.25", 0.25), ("25%", 0.25), ("0", 0.0), ("1", 1.0), ("100%", 1.0), ("off", None)]
)
def test_a_share_is_a_number_a_percentage_or_off(text: str, share: float | None) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "25", "-1", "1.01", "101%", "nan", "inf", "1e-3", "%", "off%", " 1", "1\n"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_share(text)


def test_more_than_the_share_is_too_much_and_the_share_itself_is_not() -> None:
    assert not exceeds(25, 100, 0.25)
    assert exceeds(26, 100, 0.25)
    assert exceeds(1, 100, 0.0)
    assert not exceeds(0, 0, 0.0)
    assert not exceeds(100, 100, 1.0)
    assert not exceeds(100, 100, None)


def test_too_much_is_told_with_how_many_of_how_many_and_what_goes_on() -> None:
    check(25, 100, 0.25)
    with pytest.raises(BrakedError, match="26 of the 100 chunks that are here would go, which is more than 25%") as e:
        check(26, 100, 0.25)
    assert "--yes" in e.value.hint
