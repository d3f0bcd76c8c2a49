"""The settings of a list that is followed: each is taken in the forms that people write, or named."""

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.model.follow import Follow


def test_settings_are_taken_and_what_is_not_given_stays() -> None:
    found = Follow().given({"url": "http://h/list", "every": "5m", "node-id": "a1", "zone": "z", "capacity": "900G"})
    assert found == Follow("http://h/list", 300.0, None, "a1", "z", 900 * 10**9)
    assert found.given({"every": 1.5, "zone": None, "capacity": 7}) == Follow("http://h/list", 1.5, None, "a1", "z", 7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", ""),
        ("url", 7),
        ("every", "soon"),
        ("every", 0.5),
        ("every", "2d"),
        ("every", True),
        ("report", "a\nb"),
        ("node-id", "../a"),
        ("node-id", ""),
        ("zone", "z" * 129),
        ("capacity", "0"),
        ("capacity", -1),
        ("capacity", True),
    ],
)
def test_value_that_cannot_be_taken_is_named_by_its_key(key: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"^{key}: "):
        Follow().given({key: value})
