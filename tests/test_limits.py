"""Limits: what is so unless somebody says otherwise."""

from __future__ import annotations

from fsdm import Limits


def test_there_is_no_budget_and_everything_is_durable_unless_it_is_said() -> None:
    limits = Limits()
    assert (limits.max_bytes, limits.keep_free_bytes, limits.durable) == (None, 0, True)
    assert not Limits(durability="none").durable
