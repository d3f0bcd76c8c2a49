"""The brake: how much may go before somebody is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.model.errors import BrakedError, InvalidInputError
from fsdm.reconcile.brake import MANY_CHUNKS, WINDOW_S, Brake, check, exceeds, parse_share


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


# ----------------------------------------------------------------------------------------------------- the reconciler's


def of(count: int, first: int = 0) -> list[str]:
    return [f"{number:064x}" for number in range(first, first + count)]


class Life:
    """A brake over so many chunks, whose deletes are seen, judged and carried out."""

    def __init__(self, here: int, share: float | None = 0.25) -> None:
        self.here = here
        self.brake = Brake(share)
        self.now = 1000.0

    def delete(self, ids: list[str], ctime_ns: int = 5) -> list[str]:
        """Which of those that are seen now are let go."""
        for chunk_id in ids:
            self.brake.see(chunk_id, ctime_ns, is_here=True)
        return sorted(self.brake.judge(self.here, self.now))

    def withdraw(self, ids: list[str]) -> list[str]:
        for chunk_id in ids:
            self.brake.see(chunk_id, None, is_here=True)
        return sorted(self.brake.judge(self.here, self.now))

    def leave(self, ids: list[str]) -> None:
        for chunk_id in ids:
            assert not self.brake.holds_back(chunk_id)
            self.brake.see(chunk_id, None, is_here=False)
        self.here -= len(ids)
        self.brake.judge(self.here, self.now)


def test_a_burst_that_is_seen_at_once_is_held_back_as_a_whole() -> None:
    life = Life(400)
    assert life.delete(of(101)) == []
    assert life.brake.since == 1000.0
    assert all(map(life.brake.holds_back, of(101)))
    assert Life(400).delete(of(100)) == of(100)


def test_few_chunks_are_no_burst_whatever_their_share() -> None:
    life = Life(99)
    assert life.delete(of(99)) == of(99)
    assert Life(100).delete(of(100)) == []


def test_a_burst_that_comes_one_by_one_is_held_back_from_where_it_is_too_much() -> None:
    life = Life(1000)
    for number, chunk_id in enumerate(of(300)):
        went = life.delete([chunk_id])
        assert went == ([chunk_id] if number < 250 else [])
        if went:
            life.leave(went)
    assert (life.here, life.brake.let_go, life.brake.held_back, life.brake.before(life.here)) == (750, 250, 50, 1000)


def test_what_went_longer_ago_than_the_window_counts_no_more() -> None:
    for pause_s, lets_go in ((WINDOW_S - 1, False), (WINDOW_S, True)):
        life = Life(1000)
        life.leave(life.delete(of(200)))
        life.now += pause_s
        assert bool(life.delete(of(200, 200))) == lets_go


def test_while_it_is_braked_no_time_that_passes_lets_go() -> None:
    life = Life(1000)
    life.leave(life.delete(of(250)))
    assert life.delete(of(50, 250)) == []
    life.now += 10 * WINDOW_S
    assert life.delete(of(1, 300)) == []
    assert life.brake.since == 1000.0


def test_a_release_lets_go_what_is_not_younger_and_that_is_never_counted() -> None:
    life = Life(400)
    life.delete(of(150), ctime_ns=7)
    assert sorted(life.brake.release(7)) == of(150)
    assert life.delete(of(1, 200), ctime_ns=8) == of(1, 200)
    assert life.brake.since is None
    assert life.brake.let_go == 1
    assert life.brake.release(7) == set()


def test_what_is_younger_than_a_release_is_still_held_back_where_it_is_too_much_by_itself() -> None:
    life = Life(400)
    life.delete(of(50), ctime_ns=7)
    life.delete(of(150, 50), ctime_ns=9)
    assert life.brake.release(8) == set()  # those 50 were let go before
    assert life.brake.judge(life.here, life.now) == set()
    assert life.brake.held_back == 150
    assert life.brake.release(9) == set(of(150, 50))


def test_a_delete_that_comes_under_a_release_is_let_go_at_once() -> None:
    life = Life(400)
    life.brake.release(9)
    life.delete(of(200), ctime_ns=9)
    assert (life.brake.since, life.brake.let_go, any(map(life.brake.holds_back, of(200)))) == (None, 0, False)


def test_withdrawn_deletes_end_it_once_it_is_no_longer_too_much() -> None:
    life = Life(400)
    life.delete(of(110))
    assert life.withdraw(of(9)) == []
    assert life.withdraw(of(1, 9)) == of(100, 10)
    assert life.brake.since is None


def test_what_was_let_go_and_withdrawn_in_time_counts_no_more() -> None:
    life = Life(400)
    life.delete(of(100))
    life.withdraw(of(100))
    assert life.delete(of(100, 100)) == of(100, 100)


def test_a_delete_that_refs_keep_waiting_is_judged_once() -> None:
    life = Life(400)
    life.delete(of(100))  # held by refs: they stay where they are
    life.now += 2 * WINDOW_S
    assert life.delete([*of(100), *of(50, 100)]) == of(50, 100)
    life.delete(of(60, 150))
    assert life.brake.since is not None
    assert not any(map(life.brake.holds_back, of(150)))


def test_an_earlier_process_that_was_braked_is_gone_on_from() -> None:
    brake = Brake(0.25, since=1.0, let_go_before=250)
    for chunk_id in of(20):
        brake.see(chunk_id, 5, is_here=True)
    assert brake.judge(750, 5000.0) == set()
    assert brake.since == 1.0
    for chunk_id in of(20):
        brake.see(chunk_id, None, is_here=True)
    brake.judge(750, 5000.0)
    assert (brake.since, brake.let_go) == (None, 0)


def test_without_a_share_nothing_is_held_back_and_nothing_is_remembered() -> None:
    life = Life(400, share=None)
    life.delete(of(400))
    assert not life.brake.holds_back(of(1)[0])
    assert life.brake == Brake(None)


@given(st.lists(st.tuples(st.sampled_from(["delete", "withdraw", "wait"]), st.integers(0, 300), st.integers(1, 120))))
def test_within_a_window_never_more_than_the_share_goes_unless_it_is_few(steps: list[tuple[str, int, int]]) -> None:
    life, went = Life(300), list[tuple[float, str]]()
    present = set(of(300))
    for what, first, count in steps:
        ids = [one for one in of(count, first) if one in present]
        if what == "wait":
            life.now += count
        elif what == "withdraw":
            life.withdraw(ids)
        else:
            before = len(present)
            gone = life.delete(ids)
            life.leave(gone)
            went += [(life.now, one) for one in gone]
            present -= set(gone)
            recent = sum(when > life.now - WINDOW_S for when, _ in went)
            assert recent < MANY_CHUNKS or not gone or recent <= 0.25 * (len(present) + recent), (before, recent)
