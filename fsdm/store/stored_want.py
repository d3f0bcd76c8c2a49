"""WANT: the want that a chunk came of, kept beside its READY, so that the chunk can be asked for again.

It has the URLs, which READY has not: they may carry secrets, so it is the owner's alone (mode 0600). It stands wherever
READY stands, but for chunks of before it was kept, and goes before READY where another want takes its place. So a
directory that has it, and no READY, is of a chunk that nobody has asked to go, unless a delete stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.model.documents import DataChunk
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import WANT, WANT_MAX_BYTES
from fsdm.store.filesystem import read_regular

if TYPE_CHECKING:
    from fsdm.store.filesystem import FileSystem


def keep_in_partial(fs: FileSystem, partial: str, want: bytes) -> None:
    """Keep the want of a fetch that has begun; the caller fsyncs the directory before it writes READY.

    Early, while the files are on their way: then nobody waits for the disk because of it.
    """
    path = f"{partial}/{WANT}"
    if _text(partial) != want:
        fs.write(path, want, durable=False, mode=0o600)
    fs.fsync_path(path)


def keep(fs: FileSystem, directory: str, want: bytes, trash: str) -> None:
    """Keep the want by which a complete chunk was asked for last: its URLs may have changed.

    By way of the trash, so that a crash leaves nothing of it beside READY.
    """
    if _text(directory) != want:
        fs.write(f"{directory}/{WANT}", want, durable=True, mode=0o600, temporary_in=trash)


def let_go(fs: FileSystem, directory: str) -> None:
    """Another want has taken its place, or it has been asked for again."""
    path = f"{directory}/{WANT}"
    try:
        fs.unlink(path)
    except IsADirectoryError:
        fs.erase(path)


def is_kept(directory: str, chunk_id: str) -> bool:
    """Whether the chunk in this directory can be asked for again."""
    text = _text(directory)
    try:
        return text is not None and DataChunk.parse_want(text, chunk_id).id == chunk_id
    except InvalidInputError:
        return False


def _text(directory: str) -> bytes | None:
    read = read_regular(f"{directory}/{WANT}", WANT_MAX_BYTES)
    return None if read is None else read[1]
