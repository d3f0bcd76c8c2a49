"""The grammar of ids and every name on disk (PROTOCOL.md, "Layout").

Pure. Invariant: no name that passes `file_name_fault` leads out of the directory that it is put in.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT: Final = 1
U64_MAX: Final = 2**64 - 1
WANT_MAX_BYTES: Final = 1 << 20
MANIFEST_MAX_BYTES: Final = 16 << 20
NAME_MAX_BYTES: Final = 255
FILES_MAX: Final = 10_000  # of a chunk: each costs some 30 µs wherever a want is read, and a name in every list

CACHEDIR_TAG: Final = "CACHEDIR.TAG"
# https://bford.info/cachedir/: backup tools skip a directory with this first line
CACHEDIR_TAG_TEXT: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# What is here can be fetched again: see `fsdm protocol`.\n"
)
READY: Final = "READY"
DATA: Final = "data"
PARTS: Final = "PARTS"  # of a partial
WANT: Final = "WANT"  # beside READY: what was asked for, so that it can be asked for again
VERIFIED: Final = "VERIFIED"  # beside READY: its mtime is when the bytes were last compared with READY
INDEX: Final = "index"  # beside data/: an index of the chunk's keys each; in the data directory: those over all chunks
CACHED: Final = "CACHED"  # beside READY: came for who asked; its mtime is the last use
PAUSE: Final = "PAUSE"
RELEASE: Final = ".release"  # in delete/
_FILES: Final = {
    "lock": "LOCK",
    "format_file": "fsdm.json",
    "pause": PAUSE,
    "brake": "BRAKE",
    "config": "config.toml",
    "dataset_names": "datasets.toml",
    "trace": "trace.jsonl",
    "known_names": "known.names",
    "release": f"delete/{RELEASE}",
    "index": INDEX,
    "node_id": "node-id",
    "follow": "follow",
}

_ID = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK_DIR = re.compile(r"[0-9]{20}-[0-9]{20}-[0-9a-f]{64}\Z")
_LAST_END: Final = f"{U64_MAX:020d}"


def is_id(name: str) -> bool:
    """Return whether `name` is 64 lower-case hex digits."""
    return _ID.match(name) is not None


def as_id(value: object, field: str) -> str:
    """Return an id as 64 hex digits, also from 32 bytes; raise InvalidInputError with `field`."""
    if isinstance(value, str) and is_id(value):
        return value
    if isinstance(value, bytes | bytearray) and len(value) == 32:
        return value.hex()
    shown = type(value).__name__
    if isinstance(value, str | bytes | bytearray):
        shown = f"{value[:70]!r}" + "…" * (len(value) > 70)
    raise InvalidInputError(f"must be 64 lower-case hex digits or 32 bytes, not {shown}", field=field)


def file_name_fault(name: str) -> str | None:
    """Return why `name` cannot be a file in a chunk's directory, or None."""
    if not name:
        return "is empty"
    if name in {".", ".."}:
        return "is a name of a directory"
    if "/" in name or "\0" in name:
        return "contains '/' or NUL"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is longer than {NAME_MAX_BYTES} bytes" if size > NAME_MAX_BYTES else None


def is_hidden(name: str) -> bool:
    """Return whether a marker's name is ignored: a dotfile, or an editor's backup."""
    return name.startswith(".") or name.endswith("~")


class Place(NamedTuple):
    """A chunk's directory, `chunks/DATASET/START-END-ID`: START and END have 20 decimal digits."""

    dataset_id: str
    name: str

    @classmethod
    def of(cls, dataset_id: str, block_range: range, chunk_id: str) -> Place:
        return cls(dataset_id, f"{block_range.start:020d}-{block_range.stop:020d}-{chunk_id}")

    @property
    def chunk_id(self) -> str:
        return self.name[42:]

    @property
    def block_range(self) -> range:
        return range(int(self.name[:20]), int(self.name[21:41]))


def is_chunk_dir(name: str) -> bool:
    """Return whether `name` is START-END-ID, with a range that is not empty and within u64."""
    return bool(chunk_dirs((name,)))


def chunk_dirs(names: Iterable[str]) -> list[str]:
    """Return those of the names that are START-END-ID, with a range that is not empty and within u64."""
    return [name for name in filter(_CHUNK_DIR.match, names) if name[:20] < name[21:41] <= _LAST_END]


@dataclass(frozen=True, slots=True, init=False)
class Layout:
    """The absolute paths of one data directory, as strings: they stand on the hot paths.

    Raises:
        InvalidInputError: `data_dir` is empty.
    """

    root: str
    want: str
    delete: str
    verify: str
    known: str
    acquire: str
    evict: str
    partial: str
    chunks: str
    failed: str
    trash: str
    lock: str
    format_file: str
    pause: str
    brake: str
    config: str
    dataset_names: str
    trace: str
    known_names: str
    release: str
    index: str
    node_id: str
    follow: str

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        if not data_dir:  # as of a variable that is not set: nobody means the current directory
            raise InvalidInputError("must not be empty", field="data_dir")
        root = os.path.abspath(os.fspath(data_dir))
        object.__setattr__(self, "root", root)
        for field, name in ({name: name for name in self.directories()} | _FILES).items():
            object.__setattr__(self, field, os.path.join(root, name))

    @staticmethod
    def directories() -> tuple[str, ...]:
        return ("want", "delete", "verify", "known", "acquire", "evict", "partial", "chunks", "failed", "trash")

    def want_marker(self, chunk_id: str) -> str:
        return f"{self.want}/{chunk_id}"

    def delete_marker(self, chunk_id: str) -> str:
        return f"{self.delete}/{chunk_id}"

    def verify_marker(self, chunk_id: str) -> str:
        return f"{self.verify}/{chunk_id}"

    def known_marker(self, chunk_id: str) -> str:
        return f"{self.known}/{chunk_id}"

    def acquire_marker(self, chunk_id: str) -> str:
        return f"{self.acquire}/{chunk_id}"

    def evict_marker(self, chunk_id: str) -> str:
        return f"{self.evict}/{chunk_id}"

    def partial_of(self, chunk_id: str) -> str:
        return f"{self.partial}/{chunk_id}"

    def failed_of(self, chunk_id: str) -> str:
        return f"{self.failed}/{chunk_id}"

    def runs_of(self, index_name: str) -> str:
        return f"{self.index}/{index_name}"

    def dataset(self, dataset_id: str) -> str:
        return f"{self.chunks}/{dataset_id}"

    def path(self, place: Place) -> str:
        return f"{self.chunks}/{place.dataset_id}/{place.name}"


def index_path(directory: str, name: str) -> str:
    """Return the path of an index of the chunk in a directory."""
    return f"{directory}/{INDEX}/{name}"
