"""`index/NAME.failed` of a chunk: why an index of it could not be made, and when that is tried again.

It leaves with its chunk, and is of no interest once there is the index. Whatever stands in it is taken or left: it is
for people, and for the next attempt.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.layout import INDEX, WANT_MAX_BYTES, index_path
from fsdm.store.json_files import read_document

if TYPE_CHECKING:
    from fsdm.store.filesystem import FileSystem

SUFFIX: Final = ".failed"  # no name of an index has a dot


@dataclass(frozen=True, slots=True)
class IndexFailure:
    """The failure of one index of a chunk. Times are seconds since the epoch; `definition` is by what it was made."""

    name: str
    error: str
    hint: str
    attempts: int
    last_at: float
    next_attempt_at: float
    definition: str


def read_index_failure(directory: str, name: str) -> IndexFailure | None:
    """Read why an index of the chunk in a directory failed; None where it has not, or nothing of it can be read."""
    match read_document(f"{index_path(directory, name)}{SUFFIX}", WANT_MAX_BYTES):
        case {
            "error": str(error),
            "hint": str(hint),
            "attempts": int(attempts),
            "last_at": int() | float() as last,
            "next_attempt_at": int() | float() as following,
            "definition": str(definition),
        }:
            return IndexFailure(name, error, hint, attempts, last, following, definition)
    return None


def read_index_failures(directory: str) -> list[IndexFailure]:
    """Read the failures of all indexes of the chunk in a directory, by name."""
    try:
        names = sorted(os.listdir(f"{directory}/{INDEX}"))
    except OSError:  # it has none, mostly
        return []
    found = (read_index_failure(directory, name.removesuffix(SUFFIX)) for name in names if name.endswith(SUFFIX))
    return [failure for failure in found if failure is not None]


def write_index_failure(fs: FileSystem, directory: str, failure: IndexFailure, trash: str) -> None:
    """Write it; a crash loses no more than that. What that leaves stands in the trash."""
    document: dict[str, Any] = asdict(failure)
    path = f"{index_path(directory, failure.name)}{SUFFIX}"
    fs.write(path, json.dumps(document).encode() + b"\n", durable=False, temporary_in=trash)


def remove_index_failure(fs: FileSystem, directory: str, name: str) -> None:
    """Remove it, where it is."""
    fs.unlink(f"{index_path(directory, name)}{SUFFIX}")
