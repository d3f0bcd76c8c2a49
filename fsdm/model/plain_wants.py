"""Wants that are seen to be right at a glance, as nearly all lines of a long list are. Pure.

A line that is plain is a want that `DataChunk` takes, with these values; one that is not may be a want as well, and
`DataChunk` says so, or what is wrong with it. It costs a tenth of that.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from fsdm.model.documents import MIRRORS_MAX
from fsdm.model.layout import WANT_MAX_BYTES

BYTES_MAX: Final = WANT_MAX_BYTES // 2  # as it is written, it is no longer than twice its line
NUMBER_MAX: Final = 1 << 53
_KEYS: Final = {"id", "dataset_id", "block_range", "files"}
_BLOCKS: Final = {"start", "end"}
_is_id: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_is_name: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,200}").fullmatch
_is_url: Final = re.compile(
    r"https?://[0-9a-z][0-9a-z.-]{0,200}(?::[0-9]{1,4})?(?:/[!#-\[\]-~]*)?|(?:s3|gs|az)://[!#-\[\]-~]+"
).fullmatch


class PlainWant(NamedTuple):
    """A want: the blocks from `start` to before `end`, and the bytes of all files, which declare their sizes."""

    id: str
    dataset_id: str
    start: int
    end: int
    size_bytes: int


def plain(line: bytes) -> PlainWant | None:
    """Return the want of a line that is plain, or None."""
    if len(line) > BYTES_MAX:
        return None
    try:
        document = from_json(line)
        if document.keys() != _KEYS:
            return None
        chunk_id, dataset_id, blocks, files = (document[key] for key in ("id", "dataset_id", "block_range", "files"))
        start, end = blocks["start"], blocks["end"]
        if not (blocks.keys() == _BLOCKS and _is_id(chunk_id) and _is_id(dataset_id) and files):
            return None
        if not (type(start) is int and type(end) is int and 0 <= start < end <= NUMBER_MAX and len(files) < 1000):
            return None
        size_bytes = 0
        for name, file in files.items():
            size = file["size"]
            if not (_is_name(name) and type(size) is int and 0 <= size < NUMBER_MAX and _is_url(file["url"])):
                return None
            if len(file) > 2 and not _has_plain_rest(file):
                return None
            size_bytes += size
    except (ValueError, TypeError, KeyError, AttributeError):  # it is not of this shape
        return None
    return PlainWant(chunk_id, dataset_id, start, end, size_bytes) if size_bytes < NUMBER_MAX else None


def _has_plain_rest(file: dict[str, Any]) -> bool:
    for key, value in file.items():
        match key:
            case "url" | "size":
                pass
            case "sha256" | "blake3" if _is_id(value):
                pass
            case "mirrors" if type(value) is list and len(value) <= MIRRORS_MAX and all(map(_is_url, value)):
                pass
            case _:
                return False
    return True
