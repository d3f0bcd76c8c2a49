"""Verdicts on bytes: when they were last right, and whose file that is."""

import os

import pytest

from fsdm.model.layout import READY, VERIFIED, Layout
from fsdm.store.filesystem import FileSystem
from fsdm.store.verdict import checked_at, verified_at, write_verdict
from tests.support.chunks import put_chunk


def test_bytes_are_known_to_be_right_since_they_came_or_were_read(layout: Layout) -> None:
    place = put_chunk(layout)
    path = layout.path(place)
    os.utime(f"{path}/{READY}", (100, 100))
    assert (verified_at(layout, place), checked_at(layout, place)) == (None, 100)
    write_verdict(FileSystem(), path)
    os.utime(f"{path}/{VERIFIED}", (200, 200))
    assert (verified_at(layout, place), checked_at(layout, place)) == (200, 200)
    os.utime(f"{path}/{READY}", (300, 300))
    assert (verified_at(layout, place), checked_at(layout, place)) == (200, 300)
    os.unlink(f"{path}/{READY}")
    assert checked_at(layout, place) is None


def test_a_verdict_of_root_is_the_owners_file_which_stays_writable(layout: Layout) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become other users")
    path = layout.path(put_chunk(layout))
    os.chown(path, 60_001, 61_001)
    for _ in range(2):
        write_verdict(FileSystem(), path)
        found = os.stat(f"{path}/{VERIFIED}")
        assert (found.st_uid, found.st_gid) == (60_001, 61_001)


def test_what_the_owner_has_planted_is_not_given_away(layout: Layout) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become other users")
    path = layout.path(put_chunk(layout))
    os.chown(path, 60_001, 61_001)
    precious = f"{layout.root}/precious"
    open(precious, "x").close()
    os.link(precious, f"{path}/{VERIFIED}")
    write_verdict(FileSystem(), path)
    assert os.stat(precious).st_uid == 0
    os.unlink(f"{path}/{VERIFIED}")
    os.symlink(precious, f"{path}/{VERIFIED}")
    with pytest.raises(OSError, match="symbolic links"):
        write_verdict(FileSystem(), path)
