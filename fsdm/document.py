"""JSON documents on the disk, as they stand there: objects, whatever they say.

Nothing is promised of a value: who uses one looks first whether it is what it should be. What a document has to be
where something is done by it stands in `model`.
"""

from __future__ import annotations

import json
from typing import Any

from fsdm.fs import read_regular
from fsdm.layout import MANIFEST_MAX_BYTES


def read_object(path: str, limit: int) -> dict[str, Any] | None:
    """The JSON object that a regular file of at most `limit` bytes is; None where there is no such file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON object.
    """
    read = read_regular(path, limit)
    if read is None:
        return None
    try:
        document = json.loads(read[1])
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 what a file says, not what a caller passes
    return document


def read_document(path: str, limit: int = MANIFEST_MAX_BYTES) -> dict[str, Any]:
    """What a JSON file says, or nothing: this is for showing, and what is wrong with it is told elsewhere."""
    try:
        return read_object(path, limit) or {}
    except (OSError, ValueError):
        return {}


def declared_bytes(files: object) -> int | None:
    """The bytes of all files of a want or of READY, where each one's size is given."""
    if not isinstance(files, dict):
        return None
    sizes = [
        entry["size"] for entry in files.values() if isinstance(entry, dict) and isinstance(entry.get("size"), int)
    ]
    return sum(sizes) if len(sizes) == len(files) else None
