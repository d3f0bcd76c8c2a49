"""Removing and restoring markers: only a judged one goes, whatever the instant of a crash."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress

from blake3 import blake3

from fsdm.model.layout import WANT_MAX_BYTES, Layout, is_id
from fsdm.model.state import COARSE_NS, Marker, granule_ns
from fsdm.store.filesystem import CREATE, Descriptor, FileSystem, is_directory, read_regular, write_all
from fsdm.store.flock import intents_lock
from fsdm.store.markers import is_known, is_wanted, look_at, registered_since

ASIDE = ".judged-"  # … INODE_MTIME_SIZE[_TEXT]_ID: a marker on its way out, and which one was judged
RECONCILER_WAIT_S = 0.05  # for the lock of the markers
CLOCK_REALTIME_COARSE = 5  # clock_gettime(2)
NEVER_NS = 0  # the mtime of the WANT of what came for who asked, or was being evicted
SET_BACK_NS = 1_000_000_000  # a ctime so far ahead means that the clock was set back
TEMPORARY_MAX_AGE_S = 3600.0
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}\Z")


def remove_marker(layout: Layout, fs: FileSystem, path: str, judged: Marker, winner: tuple[str, Marker] | None) -> bool:
    """Remove a marker that is done, or that the marker `winner` (path, as judged) has overruled.

    See PROTOCOL.md, "Removing a marker". A delete goes without a winner only while its chunk is not wanted. The caller
    fsyncs the directory before it acts on the id again: else a power failure may bring the marker back.

    Returns:
        Whether it is gone; False where it, or the winner, has changed since it was judged.
    """
    directory, name = os.path.split(path)
    with intents_lock(layout, RECONCILER_WAIT_S):
        if winner is not None and winner[1] != look_at(winner[0]):
            return False
        if winner is None and directory == layout.delete and is_wanted(layout, name):
            return False
        return _remove(layout, fs, path, judged)


def remove_request(layout: Layout, fs: FileSystem, path: str, judged: Marker) -> bool:
    """Remove a request to verify, fetch or evict that was answered; tell whether it is gone, as `remove_marker` does.

    It has no opposite, and nobody places one under the lock of the markers: so none is taken.
    """
    return _remove(layout, fs, path, judged)


def _remove(layout: Layout, fs: FileSystem, path: str, judged: Marker) -> bool:
    directory, name = os.path.split(path)
    if judged != look_at(path):
        return False
    said = _said_of(judged, judged.text)
    aside = f"{directory}/{ASIDE}{'_'.join(said)}_{name}"
    try:
        fs.rename(path, aside)
    except FileNotFoundError:
        return False
    if not _is_judged(aside, said):
        restore_marker(layout, fs, aside, path)
        return False
    fs.unlink(aside)
    return True


def finish_removals(layout: Layout, fs: FileSystem) -> None:
    """Finish the removals that a crash cut off: a judged marker goes, any other is restored."""
    for directory in _marked(layout):
        for name in _hidden(directory):
            if name.startswith(ASIDE):
                with intents_lock(layout, RECONCILER_WAIT_S):
                    _finish_removal(layout, fs, directory, name)
        fs.fsync_dir(directory)


def _marked(layout: Layout) -> tuple[str, ...]:
    return (layout.want, layout.delete, layout.verify, layout.known, layout.acquire, layout.evict)


def _hidden(directory: str) -> list[str]:
    """List the dotfiles of a directory that may have a million other names."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.name.startswith(".")]


def _finish_removal(layout: Layout, fs: FileSystem, directory: str, name: str) -> None:
    aside = f"{directory}/{name}"
    *said, chunk_id = name.removeprefix(ASIDE).split("_")
    if not is_id(chunk_id):  # not made by us
        return
    if _is_judged(aside, said):
        fs.unlink(aside)
    else:
        restore_marker(layout, fs, aside, f"{directory}/{chunk_id}")


def _said_of(marker: Marker, text: bytes | None) -> list[str]:
    """Say which marker was judged, in the name of what is aside."""
    return [*map(str, marker.identity), *([] if text is None else [blake3(text).hexdigest(8)])]


def _is_judged(aside: str, said: list[str]) -> bool:
    """Return whether what is aside is the marker that its name says was judged."""
    found = look_at(aside)
    if found is None or found.fault:
        return False
    try:
        read = read_regular(aside, WANT_MAX_BYTES) if len(said) > len(found.identity) else None
    except OSError:  # it may not be read any more: then it is not thrown away
        return False
    return said == _said_of(found, None if read is None else read[1])


def clear_temporaries(layout: Layout, fs: FileSystem, now: float) -> None:
    """Remove the temporary files of markers and failures that killed processes have left."""
    for directory in (*_marked(layout), layout.failed):
        for name in _hidden(directory):
            path = f"{directory}/{name}"
            found = look_at(path) if _TEMPORARY.match(name) else None
            if found is not None and not found.fault and found.mtime_ns / 1e9 < now - TEMPORARY_MAX_AGE_S:
                fs.unlink(path)


def restore_marker(layout: Layout, fs: FileSystem, aside: str, path: str) -> None:
    """Undo a rename aside, unless a newer marker stands at `path` or opposite to it by now."""
    if _is_overruled(layout, aside, path):
        fs.unlink(aside)
        return
    fs.step("link", aside)
    try:
        os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        if is_directory(aside):  # no intent, and not to be erased: it stays aside, and is ignored
            return
    except OSError:  # a directory has no second link
        if not os.path.lexists(path):
            fs.rename(aside, path)
        return
    fs.unlink(aside)


def restore_want(layout: Layout, fs: FileSystem, stored: str, chunk_id: str) -> None:
    """Place a copy of the want at `stored`, for a lost chunk that no marker asks to delete.

    Neither where it was never wanted, or registered since: then it comes when it is asked for. Any other marker is left
    alone. `withdraw_restored_want` is to follow, also after a crash; then `stored` may go.
    """
    want, delete = layout.want_marker(chunk_id), layout.delete_marker(chunk_id)
    with intents_lock(layout, RECONCILER_WAIT_S):
        read = read_regular(stored, WANT_MAX_BYTES)
        if read is None or ((found := look_at(delete)) is not None and found.fault is None) or os.path.lexists(want):
            return
        if read[0].st_mtime_ns == NEVER_NS or registered_since(layout, chunk_id, read[0].st_mtime_ns) is not None:
            return
        temporary = f"{layout.want}/.{chunk_id}.{secrets.token_hex(4)}"
        it = Descriptor()
        (it.fd,) = map(os.open, (temporary,), (CREATE,), (0o600,))  # see `Descriptor`
        with it as fd:
            write_all(fd, read[1])
            os.utime(fd, ns=(read[0].st_mtime_ns, read[0].st_mtime_ns))  # `withdraw_restored_want` knows it by these
            fs.fsync_file(fd, temporary)
        fs.step("link", temporary)
        with suppress(FileExistsError):
            os.link(temporary, want, follow_symlinks=False)
        fs.unlink(temporary)


def withdraw_restored_want(layout: Layout, fs: FileSystem, stored: str, chunk_id: str) -> None:
    """Withdraw a restored want where a delete or a later registration stands: only these are intents.

    It waits (milliseconds; seconds where times are coarse) until ctimes are later ones: so one that comes after this
    look is the later one by its ctime as well.
    """
    path, marker = layout.want_marker(chunk_id), layout.delete_marker(chunk_id)
    want, original = look_at(path), look_at(stored)
    if want is None or original is None or (want.mtime_ns, want.size) != (original.mtime_ns, original.size):
        return
    settled_ns = want.ctime_ns + (COARSE_NS if granule_ns(want.ctime_ns) == COARSE_NS else 0)
    while 0 <= settled_ns - time.clock_gettime_ns(CLOCK_REALTIME_COARSE) < SET_BACK_NS + COARSE_NS:
        time.sleep(0.001)
    delete = look_at(marker)
    known = registered_since(layout, chunk_id, original.mtime_ns)
    if delete is not None and delete.fault is None:
        remove_marker(layout, fs, path, want, (marker, delete))
    elif known is not None:
        remove_marker(layout, fs, path, want, (layout.known_marker(chunk_id), known))


def _is_overruled(layout: Layout, aside: str, path: str) -> bool:
    """Return whether a marker that overrules it came after the rename aside, which set its ctime.

    It is judged now, for later the link that restores the marker makes that the younger one. Tied with a registration,
    a want stays.
    """
    directory, chunk_id = os.path.split(path)
    found = look_at(aside)
    if directory in {layout.verify, layout.acquire, layout.evict} or found is None or found.fault:
        return False
    want, delete, known = (
        other.ctime_ns if other is not None and other.fault is None else -1
        for other in map(look_at, (f"{kind}/{chunk_id}" for kind in (layout.want, layout.delete, layout.known)))
    )
    if directory == layout.want:
        return delete >= found.ctime_ns or (known > found.ctime_ns and is_known(layout, chunk_id))
    if directory == layout.known:
        return delete >= found.ctime_ns
    return (want >= found.ctime_ns and is_wanted(layout, chunk_id)) or (
        known >= found.ctime_ns and is_known(layout, chunk_id)
    )
