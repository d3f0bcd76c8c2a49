"""WANT: the want of a chunk, stored beside its READY, so that it can be fetched again.

Its URLs may carry secrets: mode 0600. Its mtime is the ctime that its want had as a marker: so it is told whether a
registration came later. Invariants: a directory with WANT and without READY is of a chunk that was lost, unless a
delete or a later registration stands; WANT is never older than the last want of the chunk.
"""

from __future__ import annotations

from fsdm.model.documents import DataChunk
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import WANT, WANT_MAX_BYTES
from fsdm.model.state import granule_ns
from fsdm.store.filesystem import FileSystem, can_rename, read_regular
from fsdm.store.markers import look_at


def save_in_partial(fs: FileSystem, partial: str, want: bytes, wanted_ns: int) -> None:
    """Store the want of a running fetch; the caller fsyncs the directory before it writes READY."""
    path = f"{partial}/{WANT}"
    if not _is_stored(partial, want, wanted_ns):
        fs.write(path, want, durable=False, mode=0o600, mtime_ns=wanted_ns)
    if fs.durable:
        fs.fsync_path(path)


def save(fs: FileSystem, directory: str, want: bytes, wanted_ns: int, trash: str) -> None:
    """Store a complete chunk's latest want; what a crash leaves of it stands in the trash."""
    if not _is_stored(directory, want, wanted_ns):
        aside = trash if can_rename(trash, directory) else None
        fs.write(f"{directory}/{WANT}", want, durable=True, mode=0o600, temporary_in=aside, mtime_ns=wanted_ns)


def remove(fs: FileSystem, directory: str) -> None:
    """Remove WANT, whatever stands there: another want replaces it."""
    path = f"{directory}/{WANT}"
    try:
        fs.unlink(path)
    except IsADirectoryError:
        fs.erase(path)


def is_saved(directory: str, chunk_id: str) -> bool:
    """Return whether the chunk in this directory can be fetched again by its WANT."""
    text = _text(directory)
    try:
        return text is not None and DataChunk.parse_want(text, chunk_id).id == chunk_id
    except InvalidInputError:
        return False


def _is_stored(directory: str, want: bytes, wanted_ns: int) -> bool:
    """Tell whether this want is stored, with its time: rounded down, where times are coarse."""
    found = look_at(f"{directory}/{WANT}")
    if found is None or not 0 <= wanted_ns - found.mtime_ns < granule_ns(found.mtime_ns):
        return False
    return _text(directory) == want


def _text(directory: str) -> bytes | None:
    read = read_regular(f"{directory}/{WANT}", WANT_MAX_BYTES)
    return None if read is None else read[1]
