"""What a run that is to end thinks of one id."""

from __future__ import annotations

from dataclasses import replace

from fsdm.reconcile.plan import NO_MEMO
from fsdm.reconcile.verdict import HELD_TRIES, TRIES, is_stuck, trouble
from tests.support.states import NOW, _failure


def test_what_was_never_tried_is_not_stuck() -> None:
    assert not is_stuck(NO_MEMO)
    assert trouble(NO_MEMO, "not done") == "not done"


def test_a_failure_is_tried_again_a_few_times_and_one_that_waits_for_another_not_at_all() -> None:
    failing = _failure().model_copy(update={"attempts": 1, "last_at": NOW, "next_attempt_at": NOW + 1.0})
    assert not is_stuck(replace(NO_MEMO, failure=failing))
    tried = failing.model_copy(update={"attempts": TRIES})
    assert is_stuck(replace(NO_MEMO, failure=tried))
    assert not is_stuck(replace(NO_MEMO, failure=tried, reported=False))
    assert is_stuck(replace(NO_MEMO, failure=failing.model_copy(update={"next_attempt_at": None})))
    assert trouble(replace(NO_MEMO, failure=failing), "not done") == failing.error


def test_a_held_chunk_is_waited_for_a_while() -> None:
    assert not is_stuck(replace(NO_MEMO, held=HELD_TRIES - 1))
    held = replace(NO_MEMO, held=HELD_TRIES)
    assert is_stuck(held)
    assert trouble(held, "not done") == "refs hold it"
