"""File systems whose times have whole seconds: no chunk stays unseen, and no intent is taken for an older one."""

import os
from pathlib import Path

import pytest

from fsdm.client import Client
from fsdm.model.layout import Layout
from fsdm.model.state import Marker
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import open_data_dir
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import finish_removals, remove_marker
from fsdm.store.markers import look_at, place_want
from tests.support.chunks import a_want, an_id, judged, put, put_chunk
from tests.support.filesystems import CrashBefore, CrashError

DATASET = "d" * 64


@pytest.fixture
def layout(coarse_disk: Path) -> Layout:
    return open_data_dir(coarse_disk / "data")


def test_chunk_that_is_published_within_the_second_of_a_listing_is_found(layout: Layout) -> None:
    put_chunk(layout)
    with Client(layout.root) as client:
        for start in range(10, 300, 10):  # some of them within one second, wherever that begins
            assert client.find_chunk(DATASET, start) is None
            put_chunk(layout, start=start, end=start + 10)
            ref = client.find_chunk(DATASET, start)
            assert ref is not None
            ref.close()


def test_own_catalog_sees_what_another_hand_puts_there_within_a_second(layout: Layout) -> None:
    catalog = Catalog(layout, own=True)
    for start in range(0, 300, 10):
        place = put_chunk(layout, start=start, end=start + 10)
        assert catalog.refresh() == {place.chunk_id}


def _same_again(path: str, first: str, *texts: str) -> Marker:
    """Put a want, and others in its place until one has its identity; return the first one, as it was judged."""
    for _ in range(20):  # a second may end meanwhile
        put(path, first)
        marker = judged(path)
        while (now := judged(path)).mtime_ns == marker.mtime_ns:
            for text in texts:
                put(path, text)
            if judged(path) == marker:
                return marker.read_as(first.encode())
        assert now != marker
    raise AssertionError("no inode was given away again within a second")


def test_newer_want_with_the_inode_time_and_size_of_the_judged_one_is_not_removed(layout: Layout) -> None:
    path = layout.want_marker(an_id())
    want = _same_again(path, "old", "...", "new")
    assert not remove_marker(layout, FileSystem(), path, want, None)
    assert Path(path).read_text() == "new"
    assert remove_marker(layout, FileSystem(), path, judged(path).read_as(b"new"), None)
    assert look_at(path) is None


def test_crash_leaves_a_newer_want_that_looks_as_the_judged_one(layout: Layout) -> None:
    path = layout.want_marker(an_id())
    want = _same_again(path, "old", "...", "new")
    with pytest.raises(CrashError):
        remove_marker(layout, CrashBefore(1), path, want, None)  # renamed aside, not looked at
    assert os.listdir(layout.want) != [os.path.basename(path)]
    finish_removals(layout, FileSystem())
    assert Path(path).read_text() == "new"


def test_want_of_a_client_replaces_another_within_a_second(layout: Layout) -> None:
    chunk = a_want()
    place_want(layout, chunk)
    before = judged(layout.want_marker(chunk.id))
    place_want(layout, chunk)
    assert judged(layout.want_marker(chunk.id)).ino != before.ino
