"""Room is made when it is needed, at once; and a try that finds nothing is not made again too soon."""

from unittest.mock import Mock

import pytest

import fsdm.reconcile.eviction
from fsdm.model.layout import Layout
from fsdm.reconcile.eviction import RETRY_FIRST_S, Eviction
from tools.support.workers import InlineWorkers


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes for which victims were looked for, of which there are none."""
    bytes_of: list[int] = []

    def choose(_layout: Layout, _places: object, free_bytes: int, _before: float) -> list[object]:
        bytes_of.append(free_bytes)
        return []

    monkeypatch.setattr(fsdm.reconcile.eviction, "choose", choose)
    return bytes_of


def an_eviction(layout: Layout, space: Mock, clock: Mock) -> Eviction:
    work_queue = Mock(parked_needs=Mock(return_value=[100]))
    return Eviction(layout, Mock(), space, work_queue, InlineWorkers(), Mock(), clock)


def test_a_fetch_that_waits_for_a_slot_though_there_is_room_puts_no_eviction_off(
    layout: Layout, chosen: list[int]
) -> None:
    space = Mock(is_emptying=False, can_ever_fit=Mock(return_value=True), excess_bytes=Mock(return_value=0))
    eviction = an_eviction(layout, space, Mock(return_value=10.0))
    for _ in range(10):
        eviction.begin(1)
    assert chosen == []
    space.excess_bytes.return_value = 100
    eviction.begin(1)
    assert chosen == [100]


def test_where_nothing_may_go_the_next_try_waits_longer_each_time(layout: Layout, chosen: list[int]) -> None:
    space = Mock(is_emptying=False, can_ever_fit=Mock(return_value=True), excess_bytes=Mock(return_value=100))
    clock = Mock(return_value=0.0)
    eviction = an_eviction(layout, space, clock)
    tried = []
    for tenth in range(150):
        clock.return_value = tenth / 10
        before = len(chosen)
        eviction.begin(1)
        if len(chosen) > before:
            tried.append(clock.return_value)
    assert tried == pytest.approx([0.0, 2 * RETRY_FIRST_S, 6 * RETRY_FIRST_S, 14 * RETRY_FIRST_S])
