"""Verdicts on the bytes of chunks: the mtime of VERIFIED is when they were last seen to be what READY says.

Invariant: one is written under the ref by which all bytes were read, so it speaks of no other directory; and it stays
the owner's file, whoever writes it, so that the reconciler can write the next one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fsdm.model.layout import READY, VERIFIED

if TYPE_CHECKING:
    from fsdm.model.layout import Layout, Place
    from fsdm.store.filesystem import FileSystem


def write_verdict(fs: FileSystem, directory: str) -> None:
    """Note that all bytes of the held chunk in a directory are what READY says, as of now.

    Raises:
        OSError: it cannot be written; mostly because this user is not the owner.
    """
    found = os.stat(directory)
    owner = None if os.geteuid() == found.st_uid else (found.st_uid, found.st_gid)
    fs.touch(f"{directory}/{VERIFIED}", owner=owner)


def verified_at(layout: Layout, place: Place) -> float | None:
    """Tell when a chunk's bytes were last read; None where they have not been."""
    try:
        return os.lstat(f"{layout.path(place)}/{VERIFIED}").st_mtime
    except OSError:
        return None


def checked_at(layout: Layout, place: Place) -> float | None:
    """Tell when a chunk's bytes came, or were last read; None where there is no READY."""
    try:
        came = os.lstat(f"{layout.path(place)}/{READY}").st_mtime
    except OSError:
        return None
    return max(came, verified_at(layout, place) or came)
