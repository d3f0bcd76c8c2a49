"""What has failed is given up when that was said, tried when it is asked for anew, and not before a server has said."""

import errno
from dataclasses import replace
from typing import Any

import pytest

from fsdm.model.documents import Failure
from fsdm.model.errors import DiskError, TransferError
from fsdm.model.state import COARSE_NS, ChunkState, Marker, Partial
from fsdm.reconcile.actions import (
    Action,
    ClearAcquire,
    ClearEvict,
    ClearFailure,
    Discard,
    Fetch,
    Forget,
    Report,
    Retire,
    Wait,
)
from fsdm.reconcile.memo import NO_MEMO, Memo
from fsdm.reconcile.plan import decide
from fsdm.reconcile.recovery import BY_TIME, PERMANENT_S, Recovery, is_stuck, next_failure, stamp
from tests.support.states import DELETE, ID, NOW, OLD, WANT, _failure

KNOWN, ACQUIRE = Marker(50, 50, 50, 500), Marker(60, 60, 60, 5)
BY_ASKING, BY_HAND, AFTER_TWO = Recovery("acquire"), Recovery("never"), Recovery(max_attempts=2)
TOUCHED, OTHER = replace(WANT, mtime_ns=9), replace(WANT, ino=9)
ANEW = replace(ACQUIRE, mtime_ns=61)
ASKED = {"acquire": ACQUIRE, "asked": "held", "known": KNOWN, "failed": True}


def given_up(marker: Marker | None = WANT, **more: Any) -> Failure:
    """The failure of a wanted chunk that is given up."""
    return _failure(until=None, marker=marker, given_up=True, **more)


def not_fetched(**more: Any) -> Failure:
    """The failure of a registered chunk that is given up."""
    return given_up(ACQUIRE, known=stamp(KNOWN), **more)


def told(failure: Failure, **by: Marker) -> Report:
    """The answer to who asks anew: the same failure, of now."""
    stamps = {name: stamp(marker) for name, marker in by.items()}
    return Report(ID, failure.model_copy(update={"last_at": NOW, **stamps}))


@pytest.mark.parametrize("recovery", [BY_ASKING, BY_HAND, AFTER_TWO])
@pytest.mark.parametrize(
    ("found", "failure"),
    [
        ({"want": WANT}, given_up(attempts=2)),
        ({"want": WANT, "acquire": ACQUIRE, "asked": "held"}, given_up(attempts=2, acquire=stamp(ACQUIRE))),
        (ASKED, not_fetched(attempts=2)),
        (ASKED | {"asked": "touched"}, not_fetched(attempts=2)),
        ({"known": KNOWN, "failed": True}, not_fetched(attempts=2)),
    ],
)
def test_what_is_given_up_waits_for_nothing(found: dict[str, Any], failure: Failure, recovery: Recovery) -> None:
    state, memo = ChunkState(ID, **found), Memo(failure=failure)
    assert decide(state, memo, NOW, recovery) is None
    assert (
        decide(state, memo, NOW, BY_TIME)
        == {
            "want": Fetch(ID, WANT),
            "acquire": Fetch(ID, KNOWN, True),
            "": ClearFailure(ID),
        }[next((name for name in ("want", "acquire") if name in found), "")]
    )


@pytest.mark.parametrize(
    ("found", "failure", "asking", "by_hand"),
    [
        ({"want": TOUCHED}, given_up(), Fetch(ID, TOUCHED), Fetch(ID, TOUCHED)),
        ({"want": OTHER}, given_up(), Fetch(ID, OTHER), Fetch(ID, OTHER)),
        (
            {"want": WANT, "acquire": ACQUIRE, "asked": "held"},
            given_up(),
            Fetch(ID, WANT),
            told(given_up(), acquire=ACQUIRE),
        ),
        ({"want": WANT, "acquire": ACQUIRE, "asked": ""}, given_up(), None, None),
        (ASKED | {"acquire": ANEW}, not_fetched(), Fetch(ID, KNOWN, True), told(not_fetched(), marker=ANEW)),
        (
            ASKED | {"acquire": ANEW, "asked": "touched"},
            not_fetched(),
            Fetch(ID, KNOWN, True),
            told(not_fetched(), marker=ANEW),
        ),
        (
            ASKED | {"known": replace(KNOWN, mtime_ns=51)},
            not_fetched(),
            *[Fetch(ID, replace(KNOWN, mtime_ns=51), True)] * 2,
        ),
        (ASKED | {"known": replace(KNOWN, ino=51)}, not_fetched(), *[Fetch(ID, replace(KNOWN, ino=51), True)] * 2),
        ({"known": replace(KNOWN, ino=51), "failed": True}, not_fetched(), ClearFailure(ID), ClearFailure(ID)),
        ({"known": None, "failed": True}, not_fetched(), ClearFailure(ID), ClearFailure(ID)),
        (ASKED | {"asked": ""}, not_fetched(), ClearAcquire(ID, ACQUIRE), ClearAcquire(ID, ACQUIRE)),
        ({"delete": DELETE, "failed": True}, given_up(), Forget(ID, DELETE), Forget(ID, DELETE)),
        ({"delete": DELETE, "ready": (OLD,)}, given_up(), *[Retire(ID, OLD, DELETE)] * 2),
    ],
)
def test_who_asks_anew_has_it_tried_or_is_told_of_it(
    found: dict[str, Any], failure: Failure, asking: Action | None, by_hand: Action | None
) -> None:
    state, memo = ChunkState(ID, **found), Memo(failure=failure)
    assert decide(state, memo, NOW, BY_ASKING) == asking
    assert decide(state, memo, NOW, BY_HAND) == by_hand


def test_what_is_told_again_is_told_once() -> None:
    state = ChunkState(ID, **ASKED | {"acquire": ANEW})
    answer = decide(state, Memo(failure=not_fetched()), NOW, BY_HAND)
    assert isinstance(answer, Report)
    assert decide(state, Memo(failure=answer.failure), NOW + 1, BY_HAND) is None


def test_who_asks_where_times_are_coarse_is_told_once_they_differ() -> None:
    second = int(NOW) * 10**9
    state = ChunkState(ID, **ASKED | {"acquire": Marker(60, second, second, 5)})
    failure = not_fetched().model_copy(update={"marker": stamp(state.acquire), "last_at": NOW + 0.5})
    later = (second + COARSE_NS) / 1e9
    assert decide(state, Memo(failure=failure), NOW + 0.5, BY_HAND) == Wait(later)
    answer = decide(state, Memo(failure=failure), later, BY_HAND)
    assert isinstance(answer, Report)
    assert decide(state, Memo(failure=answer.failure), later + 9, BY_HAND) is None


@pytest.mark.parametrize("recovery", [BY_TIME, BY_ASKING])
@pytest.mark.parametrize(
    ("found", "failure", "waits"),
    [
        ({"want": TOUCHED}, given_up(not_before=NOW + 5), True),
        ({"want": OTHER}, given_up(not_before=NOW + 5), False),
        ({"want": WANT, "acquire": ACQUIRE, "asked": "held"}, given_up(not_before=NOW + 5), True),
        (ASKED | {"acquire": ANEW}, not_fetched(not_before=NOW + 5), True),
        (ASKED | {"known": replace(KNOWN, mtime_ns=51)}, not_fetched(not_before=NOW + 5), True),
        (ASKED | {"known": replace(KNOWN, size=51)}, not_fetched(not_before=NOW + 5), False),
    ],
)
def test_nothing_is_tried_before_a_server_that_said_when(
    found: dict[str, Any], failure: Failure, waits: bool, recovery: Recovery
) -> None:
    state, memo = ChunkState(ID, **found), Memo(failure=failure)
    assert (decide(state, memo, NOW, recovery) == Wait(NOW + 5)) is waits
    assert isinstance(decide(state, memo, NOW + 5, recovery), Fetch)


def test_a_failure_that_says_when_is_kept_until_then_for_who_asks_next() -> None:
    state = ChunkState(ID, known=KNOWN, failed=True)
    failure = _failure(marker=ACQUIRE, known=stamp(KNOWN), not_before=NOW + 5)
    assert decide(state, Memo(failure=failure), NOW) == Wait(NOW + 5)
    assert decide(state, Memo(failure=failure), NOW + 5) == ClearFailure(ID)
    assert decide(replace(state, ready=(OLD,)), Memo(failure=failure), NOW) == ClearFailure(ID)


@pytest.mark.parametrize("recovery", [BY_TIME, BY_ASKING, BY_HAND])
def test_touch_of_the_registration_lets_go_of_a_failure_but_not_of_what_its_server_said(recovery: Recovery) -> None:
    touched = ChunkState(ID, known=replace(KNOWN, mtime_ns=51), failed=True)
    said, silent = (Memo(failure=not_fetched(**how)) for how in ({"not_before": NOW + 5}, {}))
    assert decide(touched, said, NOW, recovery) == Wait(NOW + 5), "somebody asks next, as `fsdm retry` does"
    assert decide(touched, said, NOW + 5, recovery) == ClearFailure(ID)
    assert decide(touched, silent, NOW, recovery) == ClearFailure(ID)
    other = replace(touched, known=replace(KNOWN, size=51))
    assert decide(other, said, NOW, recovery) == ClearFailure(ID), "other URLs"


@pytest.mark.parametrize(
    ("recovery", "attempts", "is_given_up"),
    [(BY_TIME, 99, False), (BY_ASKING, 1, True), (BY_HAND, 1, True), (AFTER_TWO, 1, False), (AFTER_TWO, 2, True)],
)
def test_a_chunk_is_given_up_after_so_many_attempts(recovery: Recovery, attempts: int, is_given_up: bool) -> None:
    memo = Memo(failure=_failure(attempts=attempts - 1)) if attempts > 1 else NO_MEMO
    gone = TransferError("404", transient=False)
    failure = next_failure(Fetch(ID, WANT), gone, memo, NOW, 1.0, "transfer", recovery=recovery)
    assert (failure.attempts, bool(failure.given_up)) == (attempts, is_given_up)
    assert failure.next_attempt_at == (None if is_given_up else NOW + PERMANENT_S)
    of_the_disk = next_failure(Fetch(ID, WANT), DiskError("full"), memo, NOW, 1.0, "disk", recovery=recovery)
    assert not of_the_disk.given_up, "it is not the chunk's fault"


PUT_OFF = TransferError("others wait", transient=True, is_postponed=True)


@pytest.mark.parametrize("recovery", [BY_TIME, BY_ASKING, BY_HAND, AFTER_TWO])
def test_what_is_put_off_is_no_attempt_and_gives_nothing_up(recovery: Recovery) -> None:
    fetch, memo = Fetch(ID, KNOWN, True), NO_MEMO
    for postponed, delay in enumerate((1, 2, 4, 8, 8), 1):
        failure = next_failure(fetch, PUT_OFF, memo, NOW, 1.0, "transfer", ACQUIRE, recovery)
        assert (failure.attempts, failure.last_at, failure.postponed, failure.given_up) == (0, 0.0, postponed, None)
        assert failure.next_attempt_at == NOW + delay, "somebody waits: soon again"
        memo = Memo(failure=failure)
        assert is_stuck(memo) == (postponed >= 3), "a run that is to end does not wait for ever"
    state = ChunkState(ID, acquire=ACQUIRE, asked="held", known=KNOWN, failed=True)
    assert decide(state, memo, NOW, recovery) == Wait(NOW + 8)
    assert decide(state, memo, NOW + 8, recovery) == Fetch(ID, KNOWN, True)
    failure = next_failure(fetch, TransferError("404"), memo, NOW + 8, 1.0, "transfer", ACQUIRE)
    assert (failure.attempts, failure.last_at, failure.postponed) == (1, NOW + 8, None)


def test_what_is_put_off_after_an_attempt_says_when_that_was_and_waits_longer_where_nobody_asks() -> None:
    failed = next_failure(Fetch(ID, WANT), TransferError("503", transient=True), NO_MEMO, NOW - 9, 1.0, "transfer")
    memo = Memo(failure=failed)
    for delay in (1, 2, 4, 8, 16):
        failure = next_failure(Fetch(ID, WANT), PUT_OFF, memo, NOW, 1.0, "transfer")
        assert (failure.attempts, failure.last_at, failure.next_attempt_at) == (1, NOW - 9, NOW + delay)
        memo = Memo(failure=failure)


def test_a_full_disk_is_waited_for() -> None:
    full = DiskError("no space left", code=errno.ENOSPC)
    failure = next_failure(Fetch(ID, KNOWN, True), full, NO_MEMO, NOW, 1.0, "disk", ACQUIRE)
    assert (failure.last_at, failure.postponed) == (0.0, 1)
    read_only = DiskError("read-only", code=errno.EROFS)
    assert next_failure(Fetch(ID, KNOWN, True), read_only, NO_MEMO, NOW, 1.0, "disk", ACQUIRE).last_at == NOW


def test_what_looks_like_an_older_request_is_tried_once_more_before_it_is_given_up() -> None:
    second = int(NOW) * 10**9
    for action, acquire in (
        (Fetch(ID, replace(WANT, mtime_ns=second)), None),
        (Fetch(ID, WANT), replace(ACQUIRE, mtime_ns=second)),
    ):
        failure = next_failure(action, TransferError("404"), NO_MEMO, NOW, 1.0, "transfer", acquire, BY_HAND)
        assert (failure.given_up, failure.next_attempt_at) == (None, NOW + COARSE_NS / 1e9)


def test_a_failure_names_all_by_which_a_newer_request_is_known() -> None:
    error = TransferError("503", transient=True, retry_after_s=7.0)
    wanted = next_failure(Fetch(ID, WANT), error, NO_MEMO, NOW, 1.0, "transfer", ACQUIRE)
    assert (wanted.marker, wanted.acquire, wanted.known) == (stamp(WANT), stamp(ACQUIRE), None)
    acquired = next_failure(Fetch(ID, KNOWN, True), error, NO_MEMO, NOW, 1.0, "transfer", ACQUIRE)
    assert (acquired.marker, acquired.acquire, acquired.known) == (stamp(ACQUIRE), None, stamp(KNOWN))
    assert wanted.not_before == acquired.not_before == NOW + 7


@pytest.mark.parametrize("ino", [WANT.ino, 77])
def test_want_of_a_damaged_chunk_is_given_up_until_it_is_touched(ino: int) -> None:
    damaged = given_up().model_copy(update={"kind": "damaged"})
    back = replace(WANT, ino=ino)  # a copy has come back
    assert decide(ChunkState(ID, back, failed=True), Memo(failure=damaged), NOW, BY_HAND) is None
    assert decide(ChunkState(ID, back, failed=True), Memo(failure=damaged), NOW, AFTER_TWO) == Fetch(ID, back)
    touched = replace(back, mtime_ns=9)
    assert decide(ChunkState(ID, touched, failed=True), Memo(failure=damaged), NOW, BY_HAND) == Fetch(ID, touched)


EVICT = Marker(70, 70, 70, 0)


@pytest.mark.parametrize(
    ("found", "failure", "step"),
    [
        ({"want": WANT, "partial": Partial.BEGUN}, given_up(), Discard(ID)),
        ({"want": WANT}, given_up(), ClearEvict(ID, EVICT)),
        (
            {"want": WANT, "partial": Partial.BEGUN},
            given_up().model_copy(update={"kind": "room"}),
            ClearEvict(ID, EVICT),
        ),
        ({"known": KNOWN, "failed": True}, not_fetched(), ClearFailure(ID)),
        ({"known": KNOWN}, not_fetched(), ClearEvict(ID, EVICT)),
        (ASKED, not_fetched(), ClearEvict(ID, EVICT)),
        ({"known": KNOWN, "failed": True, "ready": (OLD,)}, not_fetched(), ClearFailure(ID)),
    ],
)
def test_what_came_of_a_failed_chunk_goes_where_that_is_asked_for(
    found: dict[str, Any], failure: Failure, step: Action
) -> None:
    state = ChunkState(ID, evict=EVICT, **found)
    assert decide(state, Memo(failure=failure, crowded=False), NOW, BY_HAND) == step
