"""WANT: the want of a chunk, stored beside its READY, so that it can be fetched again.

Its URLs may carry secrets: mode 0600. Invariant: a directory with WANT and without READY is of a chunk that was lost,
unless a delete stands.
"""

from __future__ import annotations

from fsdm.model.documents import DataChunk
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import WANT, WANT_MAX_BYTES
from fsdm.store.filesystem import FileSystem, can_rename, read_regular


def save_in_partial(fs: FileSystem, partial: str, want: bytes) -> None:
    """Store the want of a running fetch; the caller fsyncs the directory before it writes READY."""
    path = f"{partial}/{WANT}"
    if _text(partial) != want:
        fs.write(path, want, durable=False, mode=0o600)
    if fs.durable:
        fs.fsync_path(path)


def save(fs: FileSystem, directory: str, want: bytes, trash: str) -> None:
    """Store a complete chunk's latest want; what a crash leaves of it stands in the trash."""
    if _text(directory) != want:
        aside = trash if can_rename(trash, directory) else None
        fs.write(f"{directory}/{WANT}", want, durable=True, mode=0o600, temporary_in=aside)


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


def _text(directory: str) -> bytes | None:
    read = read_regular(f"{directory}/{WANT}", WANT_MAX_BYTES)
    return None if read is None else read[1]
