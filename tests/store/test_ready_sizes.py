"""Sizes by READY, of many chunks: whatever stands there, it is told as a document that is read alone tells it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm.model.layout import READY, Layout, Place
from fsdm.store.ready_sizes import READ_BYTES, ReadySizes
from tests.support.chunks import KINDS_OF_NO_FILE, put_chunk

LARGE = '{"files": {' + ", ".join(f'"{"x" * 90}{n}": {{"size": 2}}' for n in range(100)) + "}}"


@pytest.fixture
def sizes(layout: Layout) -> ReadySizes:
    return ReadySizes(layout)


def test_sizes_are_read_dataset_by_dataset(layout: Layout, sizes: ReadySizes) -> None:
    places = [put_chunk(layout, dataset=one * 64, files={"a": b"1" * 7, "b": b"2" * 5}) for one in "dedf"]
    assert [sizes.of(place) for place in places] == [12] * 4
    fds = len(os.listdir("/proc/self/fd"))
    sizes.close()
    assert len(os.listdir("/proc/self/fd")) == fds - 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (LARGE, 200),
        ('  {"files": {"a": {"size": 3}}}\r\n\t ', 3),
        ('{"files": {"a": {"size": 3}}} x', None),
        ('{"files": {"a": {}}}', None),
        ('[{"files": {}}]', None),
        ("[" * 9000, None),
        ("", None),
        ('{"files": {"\udcff": {"size": 3}}}', None),
    ],
)
def test_what_ready_says_is_taken_or_left(layout: Layout, sizes: ReadySizes, text: str, size: int | None) -> None:
    assert len(LARGE) > READ_BYTES
    place = put_chunk(layout)
    Path(layout.path(place), READY).write_bytes(text.encode(errors="surrogateescape"))
    assert sizes.of(place) == size


@pytest.mark.parametrize(("make", "what"), [*KINDS_OF_NO_FILE, (lambda path: None, "nothing")])
def test_what_is_no_file_has_no_size(layout: Layout, sizes: ReadySizes, make: Callable[[str], None], what: str) -> None:
    place = put_chunk(layout)
    os.unlink(ready := f"{layout.path(place)}/{READY}")
    make(ready)
    assert sizes.of(place) is None


def test_names_are_looked_up_nowhere_else_where_the_dataset_has_gone(
    layout: Layout, sizes: ReadySizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put_chunk(layout)
    monkeypatch.chdir(layout.dataset(place.dataset_id))
    assert sizes.of(Place("f" * 64, place.name)) is None
    assert sizes.of(place) is not None
