"""JSON documents on the disk. The values of a plain object are for its caller to check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import MANIFEST_MAX_BYTES, READY, WANT_MAX_BYTES, Layout
from fsdm.store.filesystem import read_regular

if TYPE_CHECKING:
    from fsdm.model.documents import Failure, Manifest
    from fsdm.model.state import ChunkState


def read_object(path: str, limit: int) -> dict[str, Any] | None:
    """Read a JSON object of up to `limit` bytes; None for no file. Else OSError or ValueError."""
    read = read_regular(path, limit)
    if read is None:
        return None
    try:
        document = json.loads(str(read[1], "utf-8"))
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 what a file says, not what a caller passes
    return document


def read_document(path: str, limit: int = MANIFEST_MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object for display; an empty one where it cannot be read."""
    try:
        return read_object(path, limit) or {}
    except (OSError, ValueError):
        return {}


def declared_bytes(files: object) -> int | None:
    """Return the sum of the sizes in the `files` of a want or READY; None where one is missing."""
    if not isinstance(files, dict):
        return None
    total = 0
    for entry in files.values():
        size = entry.get("size") if isinstance(entry, dict) else None
        if not isinstance(size, int):
            return None
        total += size
    return total


def read_manifest(directory: str) -> Manifest | None:
    """Read the READY of a chunk's directory; None where it is missing or malformed."""
    from fsdm.model.documents import Manifest

    read = read_regular(f"{directory}/{READY}", MANIFEST_MAX_BYTES)
    try:
        return None if read is None else Manifest.parse(read[1])
    except InvalidInputError:
        return None


def read_failure(layout: Layout, state: ChunkState) -> Failure | None:
    """Read `failed/ID`; None where it is missing or malformed, as if nothing had been tried."""
    try:
        read = read_regular(layout.failed_of(state.id), WANT_MAX_BYTES) if state.failed else None
        if read is None:
            return None
        from fsdm.model.documents import Failure

        return Failure.parse(read[1])
    except (OSError, InvalidInputError):
        return None
