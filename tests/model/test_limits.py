"""Limits: their defaults, their errors, and which of them change at run time."""

from typing import Any

import pytest

from fsdm import Limits
from fsdm.model.errors import InvalidInputError


def test_by_default_there_is_no_budget_and_all_is_durable() -> None:
    limits = Limits()
    assert (limits.max_bytes, limits.keep_free_bytes, limits.durable) == (None, 0, True)
    assert not Limits(durability="none").durable


@pytest.mark.parametrize(
    "limits",
    [
        *({"jobs": 0}, {"connections": 0}, {"per_host": 0}, {"per_file": 0}, {"workers": -1}, {"max_bytes": 0}),
        *({"keep_free_bytes": -1}, {"poll_s": 0.0}, {"bytes_per_s": 0.0}, {"scrub_days": 0.0}),
        *({"bytes_per_s": float("nan")}, {"brake_share": -0.1}, {"brake_share": 1.1}, {"brake_share": float("nan")}),
        *({"jobs": "8"}, {"jobs": True}, {"max_bytes": 1.5}, {"durability": "file"}),
        *({"cache_low": 0.0}, {"cache_low": 1.1}),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_its_field(limits: dict[str, Any]) -> None:
    ((name, value),) = limits.items()
    with pytest.raises(InvalidInputError, match=f"^{name}: must .*, not {value!r}$") as e:
        Limits(**limits)
    assert e.value.field == name


def test_a_field_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"^job: is not a limit$"):
        Limits(job=1)  # type: ignore[call-arg]


def test_changes_at_run_time_hold_and_the_others_wait() -> None:
    now, then = Limits(jobs=1, connections=2), Limits(jobs=9, connections=3, max_bytes=7, deny_private=True)
    assert now.changed_to(then) == (Limits(jobs=9, connections=2, max_bytes=7), ["connections", "deny_private"])
    assert now.changed_to(now) == (now, [])


@pytest.mark.parametrize(
    ("name", "older", "value"),
    [
        ("connections_per_host", "per_host", 3), ("connections_per_file", "per_file", 3),
        ("limit_rate", "bytes_per_s", 9.0), ("keep_free", "keep_free_bytes", 9), ("brake", "brake_share", 0.5),
        ("allow_host", "allow_hosts", ("a",)), ("allow_source", "allow_sources", ("s3://a/",)),
        ("allow_dir", "allow_dirs", ("/srv",)),
    ],
)  # fmt: skip
def test_limit_has_the_name_of_its_option_and_an_older_one(name: str, older: str, value: Any) -> None:
    assert Limits(**{name: value}) == Limits(**{older: value})
    assert getattr(Limits(**{name: value}), older) == value
    with pytest.raises(InvalidInputError, match=f"^{older}: is {name} by another name, and both are there"):
        Limits(**{older: value, name: value})


def test_error_has_the_name_that_was_given() -> None:
    for name in ("limit_rate", "bytes_per_s"):
        with pytest.raises(InvalidInputError, match=f"^{name}: must be greater than 0") as e:
            Limits(**{name: 0.0})
        assert e.value.field == name
    with pytest.raises(InvalidInputError, match=r"^limit_rat: is not a limit$") as e:
        Limits(limit_rat=1)  # type: ignore[call-arg]
    assert "limit_rate" in e.value.hint
    assert "bytes_per_s" not in e.value.hint
