"""The names that registered chunks would have in `chunks/`, in one file, `known.names`: derived from `known/`.

It is mapped, so that a block is found among a million registrations without reading them. Its first line is JSON that
says when it was made, and of which datasets. For each of these follow a line START-END-ID of each registration, in
order, and a line with the greatest end of each BUCKET of them. Invariants: it appears whole, by a rename; and it only
says where to look: what is registered under an id is told by `known/ID` alone. So it may be removed at any time.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fsdm.model.layout import U64_MAX, WANT_MAX_BYTES, Layout, Place, is_id
from fsdm.model.state import granule_ns
from fsdm.store.block_index import BUCKET, END, BlockIndex
from fsdm.store.filesystem import CREATE, SAFE, FileSystem, open_regular, opened, write_all
from fsdm.store.markers import known_chunk, marker_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 1
LINE: Final = 107  # START-END-ID and a newline
ID: Final = 42  # where ID begins in it
REACH: Final = 21  # an END and a newline
NEVER_NS: Final = -1
SETTLED_NS: Final = 5_000_000_000  # what has not changed for so long before it was read is not read again


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The file, mapped. It names all that stood in `known/` when that had `mtime_ns`; NEVER_NS: at no such time.

    What has changed since `read_ns` may have been read before that. A path that takes its place has another `identity`.
    """

    mtime_ns: int
    read_ns: int
    identity: tuple[int, int]
    _mapped: mmap.mmap
    _datasets: dict[str, tuple[int, int]]  # where its lines begin, and how many there are

    @classmethod
    def open(cls, path: str) -> KnownNames | None:
        """Map the file; None where there is none, or it is not whole. May raise OSError."""
        it = open_regular(path)
        if it is None:
            return None
        with it as fd:
            found = os.fstat(fd)
            if not found.st_size:
                return None
            mapped = mmap.mmap(fd, found.st_size, access=mmap.ACCESS_READ)
        head, datasets = mapped.readline(), dict[str, tuple[int, int]]()
        at = len(head)
        try:
            said = json.loads(head)
            for dataset_id, count in said["datasets"].items():
                datasets[dataset_id] = (at, count)
                at += count * LINE + len(range(0, count, BUCKET)) * REACH
            is_whole = said["known_names"] == VERSION and at == found.st_size
            times = int(said["mtime_ns"]), int(said["read_ns"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return cls(*times, identity_of(found), mapped, datasets) if is_whole else None

    def index(self, dataset_id: str) -> BlockIndex:
        """Make the index of a dataset, which reads names where it is asked for them. It is not to be changed."""
        start, count = self._datasets.get(dataset_id, (0, 0))
        places, at = range(start, start + count * LINE, BUCKET * LINE), start + count * LINE
        ends = self._mapped[at : at + len(places) * REACH].decode().split("\n")
        buckets = [
            _Bucket(self._mapped, place, min(BUCKET * LINE, at - place), end)
            for place, end in zip(places, ends, strict=False)
        ]
        return BlockIndex.of_buckets(buckets, [self._mapped[place : place + LINE - 1].decode() for place in places])

    def each(self) -> Iterator[Place]:
        """Iterate over the places of all registrations."""
        for dataset_id, (start, count) in self._datasets.items():
            for at in range(start, start + count * LINE, LINE):
                yield Place(dataset_id, self._mapped[at : at + LINE - 1].decode())


class _Bucket(NamedTuple):
    """Some lines of the file, which are held in memory only while they are used."""

    mapped: mmap.mmap
    start: int
    size: int
    end: str  # the greatest one

    @property
    def names(self) -> list[str]:
        return self.mapped[self.start : self.start + self.size - 1].decode().split("\n")

    def measured(self) -> str:
        return self.end


def identity_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns


def place_in(layout: Layout, chunk_id: str) -> Place | None:
    """Return where a registered chunk is to be, by a glance at its document; None where it cannot be taken.

    Only the keys that say so are checked, where they have their usual form: else it is read in full.
    """
    try:
        with opened(layout.known_marker(chunk_id), os.O_RDONLY | SAFE) as fd:
            document = json.loads(os.read(fd, WANT_MAX_BYTES))
        start, end = document["block_range"]["start"], document["block_range"]["end"]
        dataset_id = document["dataset_id"]
        if is_id(dataset_id) and type(start) is type(end) is int and 0 <= start < end <= U64_MAX:
            return Place(dataset_id, f"{start:020d}-{end:020d}-{chunk_id}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    chunk = known_chunk(layout, chunk_id)
    return None if chunk is None else chunk.place


def listed(layout: Layout) -> tuple[int, set[str]]:
    """List `known/`; return its mtime too, or NEVER_NS where what comes after the listing may give the same one."""
    try:
        mtime_ns, before_ns = os.stat(layout.known).st_mtime_ns, time.time_ns()
        ids = marker_ids(layout.known)
    except FileNotFoundError:
        return NEVER_NS, set()
    return mtime_ns if before_ns - mtime_ns > granule_ns(mtime_ns) else NEVER_NS, ids


def write_names(layout: Layout) -> int:
    """Make the file anew, of what the last one says and of what has come or changed since; return its lines.

    May raise OSError.
    """
    read_ns = time.time_ns()
    mtime_ns, ids = listed(layout)
    names: dict[str, list[str]] = {}
    before = KnownNames.open(layout.known_names)
    if before is not None:
        for place in before.each():
            if place.chunk_id in ids and _is_older(layout.known_marker(place.chunk_id), before.read_ns):
                ids.discard(place.chunk_id)
                names.setdefault(place.dataset_id, []).append(place.name)
    for chunk_id in ids:
        if (found := place_in(layout, chunk_id)) is not None:
            names.setdefault(found.dataset_id, []).append(found.name)
    for of_dataset in names.values():
        of_dataset.sort()
    _write(layout, {"mtime_ns": mtime_ns, "read_ns": read_ns}, names)
    return sum(map(len, names.values()))


def _is_older(path: str, time_ns: int) -> bool:
    try:
        return os.lstat(path).st_ctime_ns < time_ns - SETTLED_NS
    except FileNotFoundError:
        return False


def _write(layout: Layout, times: dict[str, int], names: dict[str, list[str]]) -> None:
    fs, path = FileSystem(), layout.known_names
    temporary = f"{layout.trash}/.known.names.{secrets.token_hex(4)}"
    counts = {dataset_id: len(of_dataset) for dataset_id, of_dataset in names.items()}
    try:
        with opened(temporary, CREATE) as fd:
            write_all(fd, json.dumps({"known_names": VERSION, **times, "datasets": counts}).encode() + b"\n")
            for of_dataset in names.values():
                ends = []
                for at in range(0, len(of_dataset), BUCKET):
                    bucket = of_dataset[at : at + BUCKET]
                    ends.append(max(name[END] for name in bucket))
                    write_all(fd, ("\n".join(bucket) + "\n").encode())
                write_all(fd, "".join(f"{end}\n" for end in ends).encode())
            fs.fsync_file(fd, temporary)
        fs.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            fs.unlink(temporary)
        raise
