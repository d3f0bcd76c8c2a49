"""Limits: what is so unless somebody says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from fsdm import Limits
from fsdm.errors import InvalidInputError


def test_there_is_no_budget_and_everything_is_durable_unless_it_is_said() -> None:
    limits = Limits()
    assert (limits.max_bytes, limits.keep_free_bytes, limits.durable) == (None, 0, True)
    assert not Limits(durability="none").durable


@pytest.mark.parametrize(
    "numbers",
    [
        {"jobs": 0},
        {"connections": 0},
        {"per_host": 0},
        {"per_file": 0},
        {"hands": -1},
        {"max_bytes": 0},
        {"keep_free_bytes": -1},
        {"poll_s": 0.0},
        {"bytes_per_s": 0.0},
        {"scrub_days": 0.0},
        {"bytes_per_s": float("nan")},
    ],
)
def test_a_number_that_is_too_small_is_named(numbers: dict[str, Any]) -> None:
    (name,) = numbers
    with pytest.raises(InvalidInputError, match=f"^{name}: must "):
        Limits(**numbers)
