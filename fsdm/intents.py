"""Placing, reading and removing markers: the files in `want/`, `delete/` and `verify/` whose names are chunk ids.

Invariants: a marker appears whole, by a rename or as an empty file; placing one never loses the intent that stood
before it, whatever the instant of a crash (the new one is there before the opposite one goes); a marker is removed only
while it is the one that was judged.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fsdm.brake import MANY_CHUNKS
from fsdm.errors import DataDirectoryError, FsdmError, InvalidInputError, NoDataDirectoryError, StaleMarkerError
from fsdm.fs import is_directory, read_regular, write_all
from fsdm.layout import WANT_MAX_BYTES, Layout, is_id
from fsdm.locks import intents_lock
from fsdm.state import Marker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.fs import FileSystem
    from fsdm.model import DataChunk

CLIENT_WAIT_S = 0.005  # a client's call must stay short: then it goes on without the lock
RECONCILER_WAIT_S = 0.05

CLOCK_REALTIME_COARSE = 5  # clock_gettime(2)
SET_BACK_NS = 1_000_000_000  # a ctime so far ahead is of before the clock was set back

TEMPORARY_MAX_AGE_S = 3600.0
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}\Z")

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def look_at(path: str, *, limit: int | None = None) -> Marker | None:
    """The entry at `path`, or None where there is none. `limit` is the greatest size in bytes of an intent."""
    try:
        return marker_of(os.lstat(path), limit=limit)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None


def marker_of(found: os.stat_result, *, limit: int | None = None) -> Marker:
    """The marker that an lstat found."""
    fault = None
    if not stat.S_ISREG(found.st_mode):
        fault = f"is {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}, not a file"
    elif limit is not None and found.st_size > limit:
        fault = f"has {found.st_size} bytes, more than the {limit} that are read"
    return Marker(found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size, fault)


def place_want(layout: Layout, chunk: DataChunk) -> None:
    """Ask for a chunk, and overrule a delete of it. Does not wait for the disk."""
    marker = layout.want_marker(chunk.id)
    data = chunk.to_json()
    if len(data) > WANT_MAX_BYTES:
        raise InvalidInputError(f"the want has {len(data)} bytes, more than {WANT_MAX_BYTES}", field="files")
    try:
        with intents_lock(layout, CLIENT_WAIT_S):
            _put(marker, data)
            _overrule(layout.delete_marker(chunk.id))
    except OSError as e:
        raise _placing(e, marker) from e


def place_delete(layout: Layout, chunk_id: str) -> None:
    """Ask for a chunk to be deleted, and overrule a want of it. Does not wait for the disk."""
    marker = layout.delete_marker(chunk_id)
    try:
        with intents_lock(layout, CLIENT_WAIT_S):
            while not _touch(marker):  # each round somebody has removed it between our open and our look
                continue
            _overrule(layout.want_marker(chunk_id))
    except OSError as e:
        raise _placing(e, marker) from e


def place_verify(layout: Layout, chunk_id: str) -> None:
    """Ask for a chunk's bytes to be compared with READY. Does not wait for the disk."""
    marker = layout.verify_marker(chunk_id)
    try:
        while not _touch(marker):
            continue
    except OSError as e:
        raise _placing(e, marker) from e


def place_deletes(layout: Layout, ids: Iterable[str], *, meant: bool) -> None:
    """Ask for chunks to be deleted. `meant`: however many they are; and all that others have asked for before."""
    for number, chunk_id in enumerate(ids, 1):
        place_delete(layout, chunk_id)
        if meant and number % (MANY_CHUNKS // 2) == 0:  # before so many stand that the reconciler's brake takes them up
            release_deletes(layout)
    if meant:
        release_deletes(layout)


def release_deletes(layout: Layout) -> None:
    """Say that all deletes that stand now are meant: see PROTOCOL.md, "The brake"."""
    try:
        while not _touch(layout.release):
            continue
    except OSError as e:
        raise _placing(e, layout.release) from e


def retry(layout: Layout, chunk_id: str) -> bool:
    """Make what is asked for this id a new request, as `touch` does; whether anything is. No marker is ever made.

    Where both markers stand, only the later one: so it stays the later. (Where nobody can tell, neither: both are about
    to be judged.)

    Raises:
        DataDirectoryError: what stands there is no file, or may not be touched.
    """
    later: list[str] = []
    try:
        with intents_lock(layout, CLIENT_WAIT_S):
            paths = (layout.want_marker(chunk_id), layout.delete_marker(chunk_id))
            found = {path: marker for path in paths if (marker := look_at(path)) is not None}
            latest = max((marker.ctime_ns for marker in found.values()), default=0)
            later = [path for path, marker in found.items() if marker.ctime_ns == latest]
            if len(later) == 1:
                _renew(later[0])
    except FileNotFoundError:  # the reconciler has just removed it: it is done
        return False
    except OSError as e:
        raise _placing(e, later[0] if later else layout.want) from e
    return bool(later)


def _renew(marker: str) -> None:
    """Give a regular file that is there a new mtime; what may not be touched has a copy of itself take its place."""
    try:
        fd = os.open(marker, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        read = read_regular(marker, WANT_MAX_BYTES)
        if read is not None:
            _put(marker, read[1])
        return
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.ENXIO, "is no file")
        os.utime(fd)
    finally:
        os.close(fd)


def _put(marker: str, data: bytes) -> None:
    """Write a marker aside, and put it in place by a rename."""
    directory, name = os.path.split(marker)
    temporary = f"{directory}/.{name}.{secrets.token_hex(4)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664)
    try:
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        os.rename(temporary, marker)
    except OSError:
        _unlink(temporary)
        raise


def _overrule(marker: str) -> None:
    """Remove the opposite marker. Where this user may not, it is the earlier one of two, and goes all the same."""
    with suppress(PermissionError):
        _unlink(marker)


def _touch(marker: str) -> bool:
    """Create a marker, or make the one that is there the later intent; whether it is that one that stands there now.

    Without the lock of intents, an old one may be on its way out just now: then its inode was touched in vain.
    """
    try:
        fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o664)
    except PermissionError:  # it is another user's: one of our own takes its place
        _put(marker, b"")
        return True
    try:
        os.utime(fd)
        return os.path.samestat(os.fstat(fd), os.lstat(marker))
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)


def read_want(layout: Layout, chunk_id: str, judged: Marker) -> DataChunk:
    """The chunk that the marker `want/ID` describes, read through one descriptor.

    Raises:
        InvalidInputError: it cannot be taken as it is (it may be half-written, or this user may not read it).
        StaleMarkerError: it is not the one that was judged.
    """
    from fsdm.model import DataChunk

    return DataChunk.parse_want(read_want_text(layout, chunk_id, judged), chunk_id)


def read_want_text(layout: Layout, chunk_id: str, judged: Marker) -> bytes:
    """What stands in the marker `want/ID`, read through one descriptor; raises as `read_want` does."""
    path = layout.want_marker(chunk_id)
    try:
        read = read_regular(path, WANT_MAX_BYTES)
    except PermissionError as e:
        hint = f"let the reconciler's user read it, then touch it: chmod a+r {path}"
        raise InvalidInputError("the reconciler may not read it", hint=hint) from e
    if read is None or not marker_of(read[0]).same_as(judged):
        raise StaleMarkerError(path)
    return read[1]


def is_wanted(layout: Layout, chunk_id: str) -> bool:
    """Whether a want stands that can be read: one that cannot overrules nothing."""
    path = layout.want_marker(chunk_id)
    while (want := look_at(path, limit=WANT_MAX_BYTES)) is not None and want.fault is None:
        try:
            read_want(layout, chunk_id, want)
        except InvalidInputError:
            return False
        except StaleMarkerError:  # each round somebody has changed it between our look and our read
            continue
        return True
    return False


def remove_marker(layout: Layout, fs: FileSystem, path: str, judged: Marker, winner: tuple[str, Marker] | None) -> bool:
    """Remove a marker whose intent holds, or that the marker `winner` (path, as judged) has overruled.

    A delete goes without a winner only while nobody wants its chunk: which of the two is later is not judged here. A
    marker in `verify/` has no opposite.

    Whoever changes markers with care holds the same lock. For the others it is renamed aside first and looked at there:
    if it is not the one that was judged, it goes back, unless a newer one has come; so a newer one is never lost.

    The caller fsyncs the directory before it acts on the id again: else a power failure may bring the marker back.

    Returns:
        Whether it is gone; False where it, or the winner, is no longer what was judged.
    """
    directory, name = os.path.split(path)
    aside = f"{directory}/{ASIDE}{'_'.join(map(str, judged.identity))}_{name}"
    with intents_lock(layout, RECONCILER_WAIT_S):
        if winner is not None and not winner[1].same_as(look_at(winner[0])):
            return False
        if winner is None and directory == layout.delete and is_wanted(layout, name):
            return False
        if not judged.same_as(look_at(path)):
            return False
        try:
            fs.rename(path, aside)
        except FileNotFoundError:
            return False
        if not judged.same_as(look_at(aside)):
            put_back(layout, fs, aside, path)
            return False
        fs.unlink(aside)
    return True


ASIDE = ".judged-"  # … INODE_MTIME_SIZE_ID: a marker on its way out, and which one was judged


def finish_removals(layout: Layout, fs: FileSystem) -> None:
    """Finish what a crash left in the middle: a marker aside goes if it is the one that was judged, else back."""
    for directory in (layout.want, layout.delete, layout.verify):
        for name in os.listdir(directory):
            if name.startswith(ASIDE):
                with intents_lock(layout, RECONCILER_WAIT_S):
                    _finish_removal(layout, fs, directory, name)
        fs.fsync_dir(directory)


def _finish_removal(layout: Layout, fs: FileSystem, directory: str, name: str) -> None:
    aside = f"{directory}/{name}"
    *identity, chunk_id = name.removeprefix(ASIDE).split("_")
    if not is_id(chunk_id):  # not one of ours
        return
    found = look_at(aside)
    if found is not None and not found.fault and identity == [str(part) for part in found.identity]:
        fs.unlink(aside)
    else:
        put_back(layout, fs, aside, f"{directory}/{chunk_id}")


def clear_temporaries(layout: Layout, fs: FileSystem, now: float) -> None:
    """Remove what killed processes left behind of markers and failures that were being written."""
    for directory in (layout.want, layout.delete, layout.verify, layout.failed):
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            found = look_at(path) if _TEMPORARY.match(name) else None
            if found is not None and not found.fault and found.mtime_ns / 1e9 < now - TEMPORARY_MAX_AGE_S:
                fs.unlink(path)


def put_back(layout: Layout, fs: FileSystem, aside: str, path: str) -> None:
    """Undo a rename aside; where a newer marker stands at `path` by now, or opposite to it, that one stays alone."""
    if _is_overruled(layout, aside, path):
        fs.unlink(aside)
        return
    fs.step("link", aside)
    try:
        os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        if is_directory(aside):  # no marker of ours, and not to be erased: it stays there, and is ignored
            return
    except OSError:  # a directory has no second link: nothing else can stand at `path` unless it just came
        if not os.path.lexists(path):
            fs.rename(aside, path)
        return
    fs.unlink(aside)


def put_want_back(layout: Layout, fs: FileSystem, kept: str, chunk_id: str) -> None:
    """Ask again, by a copy of what stands at `kept`, for a chunk that nobody has asked to go.

    Any other marker stays alone. To be followed by `settle_want`, also after a crash; then `kept` may go.
    """
    want, delete = layout.want_marker(chunk_id), layout.delete_marker(chunk_id)
    with intents_lock(layout, RECONCILER_WAIT_S):
        read = read_regular(kept, WANT_MAX_BYTES)
        if read is None or _is_intent(delete) or os.path.lexists(want):
            return
        temporary = f"{layout.want}/.{chunk_id}.{secrets.token_hex(4)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, read[1])
            os.utime(fd, ns=(read[0].st_mtime_ns, read[0].st_mtime_ns))  # by which it is known
            fs.fsync_file(fd, temporary)
        finally:
            os.close(fd)
        fs.step("link", temporary)
        with suppress(FileExistsError):
            os.link(temporary, want, follow_symlinks=False)
        fs.unlink(temporary)


def settle_want(layout: Layout, fs: FileSystem, kept: str, chunk_id: str) -> None:
    """Withdraw what was put back of `kept`, where a delete stands: that is somebody's intent, and this is not.

    Whatever the ctimes say. It waits (milliseconds) for the next tick of the clock that ctimes are taken from: so a
    delete that comes after this look is the later one by its ctime as well.
    """
    path, marker = layout.want_marker(chunk_id), layout.delete_marker(chunk_id)
    want, original = look_at(path), look_at(kept)
    if want is None or original is None or (want.mtime_ns, want.size) != (original.mtime_ns, original.size):
        return
    while 0 <= want.ctime_ns - time.clock_gettime_ns(CLOCK_REALTIME_COARSE) < SET_BACK_NS:
        time.sleep(0.001)
    delete = look_at(marker)
    if delete is not None and delete.fault is None:
        remove_marker(layout, fs, path, want, (marker, delete))


def _is_intent(path: str) -> bool:
    found = look_at(path)
    return found is not None and found.fault is None


def _is_overruled(layout: Layout, aside: str, path: str) -> bool:
    """Whether an opposite marker came since the rename aside: that was the last to change the ctime of what is aside.

    It must not be judged by its ctime later: the link that puts it back makes it the younger one.
    """
    directory, chunk_id = os.path.split(path)
    if directory == layout.verify:
        return False
    deleted = directory == layout.delete
    found = look_at(aside)
    other = look_at(layout.want_marker(chunk_id) if deleted else layout.delete_marker(chunk_id))
    if found is None or found.fault or other is None or other.fault or other.ctime_ns < found.ctime_ns:
        return False
    return not deleted or is_wanted(layout, chunk_id)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, IsADirectoryError):
        return


def _placing(error: OSError, marker: str) -> FsdmError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NoDataDirectoryError(
            f"{os.path.dirname(marker)} is not there", hint="start the reconciler there first: `fsdm run -d DIR`"
        )
    if error.errno in {errno.EISDIR, errno.ELOOP, errno.ENXIO}:
        return DataDirectoryError(
            f"{marker} is in the way: it is not a file", hint=f"remove it, then ask again: rm -ri {marker}"
        )
    return DataDirectoryError(f"cannot place {marker}: {error.strerror}", hint="check who may write there, and df")
