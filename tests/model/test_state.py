"""The state on disk: when two markers are one, and when a chunk needs no action."""

from dataclasses import replace
from typing import Any

import pytest

from fsdm.model.layout import Place
from fsdm.model.state import ChunkState, Marker, Partial

ID = "a" * 64
PLACE = Place.of("d" * 64, range(5), ID)
MARKER = Marker(ino=1, ctime_ns=2, mtime_ns=3, size=4)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"ctime_ns": 9}, True),  # a rename changes it
        ({"fault": "is a FIFO"}, True),
        ({"ino": 9}, False),
        ({"mtime_ns": 9}, False),
        ({"size": 9}, False),
    ],
)
def test_a_marker_is_known_by_inode_mtime_and_size(change: dict[str, Any], same: bool) -> None:
    other = replace(MARKER, **change)
    assert MARKER.same_as(other) is other.same_as(MARKER) is same
    assert not other.same_as(None)


@pytest.mark.parametrize(
    ("found", "at_rest"),
    [
        ({}, True),
        ({"ready": (PLACE,)}, True),
        ({"want": MARKER}, False),
        ({"want": replace(MARKER, fault="is a directory, not a file")}, False),
        ({"delete": MARKER}, False),
        ({"partial": Partial.BEGUN}, False),
        ({"partial": Partial.READY}, False),
        ({"unready": (PLACE,)}, False),
        ({"failed": True}, False),
    ],
)
def test_a_state_is_at_rest_when_nothing_in_it_could_ask_for_anything(found: dict[str, Any], at_rest: bool) -> None:
    assert ChunkState(ID, **found).at_rest is at_rest
    assert ChunkState(ID, **{"ready": (PLACE,), **found}).at_rest is at_rest


def test_equal_looks_are_equal_states() -> None:
    assert ChunkState(ID, want=MARKER) == ChunkState(ID, want=Marker(1, 2, 3, 4))
    assert ChunkState(ID, want=MARKER) != ChunkState(ID, delete=MARKER)
