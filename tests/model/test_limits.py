"""Limits: what is so unless somebody says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from fsdm import Limits
from fsdm.model.errors import InvalidInputError


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
        {"workers": -1},
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


def test_what_may_change_at_run_time_holds_and_the_rest_waits() -> None:
    now, then = Limits(jobs=1, connections=2), Limits(jobs=9, connections=3, max_bytes=7, deny_private=True)
    assert now.changed_to(then) == (Limits(jobs=9, connections=2, max_bytes=7), ["connections", "deny_private"])
    assert now.changed_to(now) == (now, [])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(InvalidInputError, match="brake_share"):
        Limits(brake_share=share)
