"""Putting a reconciler together and ending it: what it is given reaches its parts, and all of them are asked to end."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from fsdm import Limits
from fsdm.model.layout import Layout
from fsdm.reconcile.reconciler import Reconciler
from fsdm.transfer.http.source_settings import Sources

PARTS = ["scrub", "indexing", "_known_naming", "_scheduler", *map(str, range(5))]


@pytest.fixture
def it(layout: Layout) -> Iterator[Reconciler]:
    """A reconciler that was not started."""
    it = Reconciler(layout, limits=Limits(durability="none", scrub_days=30))
    yield it
    assert it.stop()


def test_sources_are_those_that_it_was_given(layout: Layout) -> None:
    sources = Sources()
    it = Reconciler(layout, limits=Limits(durability="none"), sources=sources)
    assert it._fetcher.sources is sources  # type: ignore[attr-defined]
    assert it._scheduler is not None
    assert it._scheduler.group == sources.group
    assert it.stop()


def test_all_that_was_begun_has_ended_where_it_says_so(it: Reconciler) -> None:
    it.start()
    assert it.is_running
    assert it.stop(None)
    assert not it.is_running


@pytest.mark.parametrize("part", PARTS)
def test_part_that_has_not_ended_is_told_and_its_steps_may_go_on(
    it: Reconciler, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    ends, applier = Mock(return_value=False), Mock()
    stub: Any = Mock(stop=ends, close=ends)
    with monkeypatch.context() as patched:
        patched.setattr(it, "_applier", applier)
        if part.isdecimal():
            pools = (*it.loop.pools[: int(part)], stub, *it.loop.pools[int(part) + 1 :])
            patched.setattr(it.loop, "pools", pools)
        else:
            patched.setattr(it, part, stub)
        assert it.stop(0.5) is False
        ends.assert_called_once_with(0.5)
        applier.close.assert_not_called()
        ends.return_value = True
        assert it.stop(0.5) is True
        applier.close.assert_called_once_with()
