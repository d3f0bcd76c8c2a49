"""Moves: each copy that a round adds or drops is said once, with where it comes from, and why."""

from pathlib import Path

import pytest

from fsdm.fleet.moves import DRAINS, Move
from fsdm.fleet.round import Round
from tests.support.placed import NOW, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fleet that has all that it is to have."""
    place = Place(tmp_path)
    place.publish()
    place.report_all()
    place.publish()
    return place


def moves_of(one: Round) -> list[Move]:
    return list(one.moves())


def test_first_placement_makes_all_copies_anew(tmp_path: Path) -> None:
    one = Place(tmp_path).read()
    found = moves_of(one)
    assert len(found) == 600
    assert {(move.origin, move.reason, move.why) for move in found} == {
        (None, "missing", "the chunk has too few copies")
    }
    assert sum(move.bytes for move in found) == one.summary().added["missing"].bytes


def test_where_nothing_changes_nothing_moves(place: Place) -> None:
    assert moves_of(place.read()) == []


def test_what_drains_moves_from_there_and_is_dropped_once_it_is_confirmed(place: Place) -> None:
    had = set(place.ids("w0"))
    place.workers[0]["draining"] = True
    one = place.publish()
    coming = moves_of(one)
    assert {(move.origin, move.reason, move.why) for move in coming} == {("w0", "leaving", DRAINS)}
    assert {move.chunk for move in coming} == had
    assert all(move.target not in {None, "w0"} for move in coming)
    place.report_all()
    going = moves_of(place.read())
    assert going
    assert {(move.origin, move.target, move.reason) for move in going} == {("w0", None, "dropped")}
    assert going[0].to_json() == {
        "id": going[0].chunk,
        "bytes": going[0].bytes,
        "from": "w0",
        "to": None,
        "reason": "dropped",
        "why": "the others are confirmed",
    }


def test_worker_that_joins_is_given_from_those_that_have_more(place: Place) -> None:
    place.workers.append({"name": "w9", "capacity": "500M"})
    found = moves_of(place.read(NOW))
    assert {(move.target, move.reason) for move in found} == {("w9", "balance")}
    held = {name: set(place.ids(name)) for name in ("w0", "w1", "w2", "w3", "w4", "w5")}
    assert all(move.origin is not None and move.chunk in held[move.origin] for move in found)
    assert len({move.chunk for move in found}) == len(found)
