"""Placing and reading markers: files in `want/`, `delete/`, `verify/` and `known/` with ids as names.

Invariants: a marker appears whole; a new one is there before the opposite one goes, so no crash loses both.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fsdm.model.errors import (
    AlreadyKnownError,
    DataDirectoryError,
    FsdmError,
    InvalidInputError,
    NoDataDirectoryError,
    StaleMarkerError,
)
from fsdm.model.layout import WANT_MAX_BYTES, Layout, is_id
from fsdm.model.state import Marker
from fsdm.store.filesystem import CREATE, SAFE, Descriptor, exists, read_regular, write_all
from fsdm.store.flock import intents_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.documents import DataChunk

CLIENT_WAIT_S = 0.005  # for the lock of the markers: a client's call stays short

# by the first letter of `ls -l`
_KINDS = {"d": "a directory", "l": "a symbolic link", "p": "a FIFO", "s": "a socket", "c": "a device", "b": "a device"}


def marker_ids(directory: str) -> set[str]:
    """List the ids that have an entry in a directory of markers; other names are left out."""
    return set(filter(is_id, os.listdir(directory)))


def look_at(path: str, *, limit: int | None = None) -> Marker | None:
    """Return the entry at `path`, or None. `limit` is the greatest size in bytes of an intent."""
    try:
        return marker_of(os.lstat(path), limit=limit)
    except (FileNotFoundError, NotADirectoryError):
        return None


def marker_of(found: os.stat_result, *, limit: int | None = None) -> Marker:
    """Return the marker with this lstat."""
    fault = None
    if not stat.S_ISREG(found.st_mode):
        fault = f"is {_KINDS.get(stat.filemode(found.st_mode)[0], 'something else')}, not a file"
    elif limit is not None and found.st_size > limit:
        fault = f"has {found.st_size} bytes, more than the {limit} that are read"
    return Marker(found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size, fault)


def as_chunk(value: object) -> DataChunk:
    """Return a DataChunk, checked again; raise InvalidInputError for anything else."""
    from fsdm.model.documents import DataChunk

    if isinstance(value, DataChunk):
        return value.checked()
    hint = "make one: DataChunk(id=…, dataset_id=…, block_range=…, files=…), or DataChunk.parse(JSON)"
    raise InvalidInputError(f"must be a DataChunk, not {type(value).__name__}", field="chunk", hint=hint)


def place_want(layout: Layout, chunk: DataChunk) -> None:
    """Ask for a chunk, and overrule a delete of it. Nothing is fsynced."""
    place_want_text(layout, chunk.id, _text_of(chunk))


def place_want_text(layout: Layout, chunk_id: str, text: bytes) -> None:
    """Ask for a chunk by a text that is known to be a want of it, as `place_want` does."""
    marker = layout.want_marker(chunk_id)
    with placing(marker), intents_lock(layout, CLIENT_WAIT_S):
        _put(marker, text)
        _overrule(layout.delete_marker(chunk_id))


def place_known(layout: Layout, chunk: DataChunk, *, exclusive: bool) -> None:
    """Register a chunk, and overrule a want and a delete of it. Nothing is fsynced.

    Raises:
        AlreadyKnownError: it is registered already, and `exclusive`; then nothing is changed.
    """
    marker, data = layout.known_marker(chunk.id), _text_of(chunk)
    with placing(marker), intents_lock(layout, CLIENT_WAIT_S):
        try:
            _put(marker, data, exclusive=exclusive)
        except FileExistsError:
            raise AlreadyKnownError(f"chunk {chunk.id} is registered already") from None
        _overrule(layout.delete_marker(chunk.id))
        _overrule(layout.want_marker(chunk.id))


def _text_of(chunk: DataChunk) -> bytes:
    data = chunk.to_json()
    if len(data) > WANT_MAX_BYTES:
        raise InvalidInputError(f"the want has {len(data)} bytes, more than {WANT_MAX_BYTES}", field="files")
    return data


def place_delete(layout: Layout, chunk_id: str) -> None:
    """Ask for a chunk to be deleted, and overrule a want and a registration of it. Nothing is fsynced."""
    marker = layout.delete_marker(chunk_id)
    with placing(marker), intents_lock(layout, CLIENT_WAIT_S):
        _touch(marker)
        _overrule(layout.want_marker(chunk_id))
        _overrule(layout.known_marker(chunk_id))


def place_acquire(layout: Layout, chunk_id: str) -> None:
    """Ask for a registered chunk, or note that it is used. Nothing is fsynced."""
    marker = layout.acquire_marker(chunk_id)
    with placing(marker):
        _touch(marker)


def place_evict(layout: Layout, chunk_id: str) -> None:
    """Ask for a chunk's bytes to go, if they may. Nothing is fsynced."""
    marker = layout.evict_marker(chunk_id)
    with placing(marker):
        try:  # a new one needs no touch, and there may be thousands
            _opened(marker, os.O_CREAT | os.O_EXCL | SAFE).close()
        except FileExistsError:
            _touch(marker)


def place_verify(layout: Layout, chunk_id: str) -> None:
    """Ask for a chunk's bytes to be compared with READY. Nothing is fsynced."""
    marker = layout.verify_marker(chunk_id)
    with placing(marker):
        _touch(marker)


def release_deletes(layout: Layout) -> None:
    """Release all deletes that stand now: see PROTOCOL.md, "The brake"."""
    with placing(layout.release):
        _touch(layout.release)


def retry(layout: Layout, chunk_id: str) -> bool:
    """Make what is asked for this id a new request, as `touch` does; return whether anything is.

    Of two markers the later one is touched, so that it stays the later; of two with one ctime neither. Where there is
    none, a registered chunk that has failed is asked for, and its registration touched: so it is tried whatever
    `acquire/ID` alone would have done. Raises DataDirectoryError where no file stands there, or it may not be touched.
    """
    later: list[str] = []
    try:
        with intents_lock(layout, CLIENT_WAIT_S):
            paths = (layout.want_marker(chunk_id), layout.delete_marker(chunk_id))
            found = {path: marker for path in paths if (marker := look_at(path)) is not None}
            if not found and exists(layout.failed_of(chunk_id)) and exists(known := layout.known_marker(chunk_id)):
                later = [known]
                _renew(known)
                _put(layout.acquire_marker(chunk_id), b"")  # one that says held may be on its way out
                return True
            latest = max((marker.ctime_ns for marker in found.values()), default=0)
            later = [path for path, marker in found.items() if marker.ctime_ns == latest]
            if len(later) == 1:
                _renew(later[0])
    except FileNotFoundError:  # the reconciler has just removed it: it is done
        return False
    except OSError as e:
        raise _not_placed(e, later[0] if later else layout.want) from e
    return bool(later)


def _renew(marker: str) -> None:
    """Give a regular file a new mtime; one that this user may not touch is replaced by a copy."""
    try:
        with _opened(marker, os.O_WRONLY | SAFE) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ENXIO, "is no file")
            touch(fd)
    except PermissionError:
        read = read_regular(marker, WANT_MAX_BYTES)
        if read is not None:
            _put(marker, read[1])


def touch(fd: int) -> bool:
    """Give a file the time of now; return whether it is another one than it had: else once more, after a tick.

    The kernel's own clock has ticks; a finer time only its owner may give. Who may do neither is told that it is.
    """
    before_ns, now_ns = os.fstat(fd).st_mtime_ns, time.time_ns()
    try:
        os.utime(fd, ns=(now_ns, now_ns))
    except PermissionError:
        with suppress(PermissionError):
            os.utime(fd)
            return os.fstat(fd).st_mtime_ns != before_ns
    return True


def _opened(path: str, flags: int) -> Descriptor:
    it = Descriptor()
    (it.fd,) = map(os.open, (path,), (flags,), (0o664,))  # see `Descriptor`
    return it


def _put(marker: str, data: bytes, *, exclusive: bool = False) -> None:
    """Put a whole file in place, by rename(2); or by link(2), only where none stands."""
    directory, name = os.path.split(marker)
    temporary = f"{directory}/.{name}.{secrets.token_hex(4)}"
    try:
        with _opened(temporary, CREATE) as fd:
            write_all(fd, data)
        (os.link if exclusive else os.rename)(temporary, marker)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _touch(marker: str) -> None:
    """Create a marker, or make the one that is there the later intent."""
    while True:
        try:
            it = _opened(marker, os.O_WRONLY | os.O_CREAT | SAFE)
        except PermissionError:  # it is another user's: a new one takes its place
            _put(marker, b"")
            return
        # where it is being removed, without the lock, and was touched in vain: once more
        with it as fd, suppress(FileNotFoundError):
            os.utime(fd)
            if os.path.samestat(os.fstat(fd), os.lstat(marker)):
                return


def _overrule(marker: str) -> None:
    """Remove the opposite marker; one of another user goes later, as the earlier of two."""
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        os.unlink(marker)


def read_want(layout: Layout, chunk_id: str, judged: Marker) -> DataChunk:
    """Read the chunk that the marker `want/ID` describes; raises as `read_chunk` does."""
    return read_chunk(layout, chunk_id, judged, known=False)[0]


def read_chunk(layout: Layout, chunk_id: str, judged: Marker, *, known: bool) -> tuple[DataChunk, bytes]:
    """Read the chunk that `known/ID`, or else `want/ID`, describes, and its text.

    Raises:
        InvalidInputError: it cannot be taken as it is (it may be half-written, or this user may not read it).
        StaleMarkerError: it is no longer the marker that was judged.
    """
    from fsdm.model.documents import DataChunk

    text = _read_text(layout.known_marker(chunk_id) if known else layout.want_marker(chunk_id), judged)
    return DataChunk.parse_want(text, chunk_id), text


def _read_text(path: str, judged: Marker) -> bytes:
    try:
        read = read_regular(path, WANT_MAX_BYTES)
    except PermissionError as e:
        hint = f"let the reconciler's user read it, then touch it: chmod a+r {path}"
        raise InvalidInputError("the reconciler may not read it", hint=hint) from e
    if read is None or not marker_of(read[0]).same_as(judged):
        raise StaleMarkerError(path)
    return read[1]


def known_chunk(layout: Layout, chunk_id: str) -> DataChunk | None:
    """Return the chunk that is registered under this id; None where none is, or it cannot be read."""
    path = layout.known_marker(chunk_id)
    while (known := look_at(path, limit=WANT_MAX_BYTES)) is not None and known.fault is None:
        try:
            return read_chunk(layout, chunk_id, known, known=True)[0]
        except InvalidInputError:
            return None
        except StaleMarkerError:  # it has changed since the look
            continue
    return None


def is_known(layout: Layout, chunk_id: str) -> bool:
    """Return whether a registration stands that can be read: any other overrules nothing."""
    return known_chunk(layout, chunk_id) is not None


def registered_since(layout: Layout, chunk_id: str, wanted_ns: int) -> Marker | None:
    """Return the registration that came after a want of that time (the mtime of WANT), if one did.

    What a copy of the whole data directory has made anew (its ctimes) makes nothing a later registration: so its mtime
    has to be later as well.
    """
    known = look_at(layout.known_marker(chunk_id), limit=WANT_MAX_BYTES)
    return known if _came_after(known, wanted_ns) and is_known(layout, chunk_id) else None


def text_registered_since(layout: Layout, chunk_id: str, wanted_ns: int) -> tuple[Marker, bytes] | None:
    """Return such a registration and its text, as it is; None where there is none, or this user may not read it."""
    try:
        read = read_regular(layout.known_marker(chunk_id), WANT_MAX_BYTES)
    except PermissionError:
        return None
    known = None if read is None else marker_of(read[0], limit=WANT_MAX_BYTES)
    return (known, read[1]) if read is not None and known is not None and _came_after(known, wanted_ns) else None


def _came_after(known: Marker | None, wanted_ns: int) -> bool:
    return known is not None and known.fault is None and known.registered_ns > wanted_ns


def is_wanted(layout: Layout, chunk_id: str) -> bool:
    """Return whether a want stands that can be read: any other overrules nothing."""
    path = layout.want_marker(chunk_id)
    while (want := look_at(path, limit=WANT_MAX_BYTES)) is not None and want.fault is None:
        try:
            read_want(layout, chunk_id, want)
        except InvalidInputError:
            return False
        except StaleMarkerError:  # it has changed since the look
            continue
        return True
    return False


@contextmanager
def placing(marker: str) -> Iterator[None]:
    """Raise DataDirectoryError for an OSError of the block that places a marker."""
    try:
        yield
    except OSError as e:
        raise _not_placed(e, marker) from e


def _not_placed(error: OSError, marker: str) -> FsdmError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NoDataDirectoryError(
            f"{os.path.dirname(marker)} does not exist", hint="start the reconciler there first: `fsdm run -d DIR`"
        )
    if error.errno in {errno.EISDIR, errno.ELOOP, errno.ENXIO}:
        return DataDirectoryError(
            f"{marker} is in the way: it is not a file", hint=f"remove it, then ask again: rm -ri {marker}"
        )
    return DataDirectoryError(f"cannot place {marker}: {error.strerror}", hint="check who may write there, and df")
