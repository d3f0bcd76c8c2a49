"""Publishing a placement, and reading it again: lists, routes, and the pointer that names them.

    placement.json           the pointer: which list each worker is to apply, and which routes hold
    lists/SHA256.jsonl.gz    a list, as `fsdm sync` takes it, with its last line {"end": N}
    routes/SHA256.jsonl.gz   a line a chunk: which workers hold it

A file's name is the sha256 of its text, before gzip: so one that is there is never written again. Invariant: the
pointer is replaced last, and only while it is the one that the placement began with.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from array import array
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from pydantic_core import from_json

from fsdm.fleet.documents import Pointer, PublishedList
from fsdm.fleet.inventory import Copies, Presence, is_in
from fsdm.fleet.peers import Peers
from fsdm.model.errors import DataDirectoryError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fsdm.fleet.inventory import Chunks, Ints, Workers
    from fsdm.fleet.placing import Placement
    from fsdm.fleet.report import Report
    from fsdm.fleet.shelf import Shelf
    from fsdm.fleet.wants import Wants

POINTER: Final = "placement.json"
LISTS: Final = "lists"
ROUTES: Final = "routes"
GZIP_LEVEL: Final = 3  # 6 costs four times as much, for a tenth
SLOW_S: Final = 900.0  # a list that has not changed for so long, and is not applied, is not waited for
COUNTED_S: Final = 900.0  # a worker's own brake counts for 600 s, of what it may learn of minutes later
LINES: Final = 4096  # of routes, compressed at once


class Documents(Protocol):
    """The wants of all chunks; `sha256` is that of the list that they stand in."""

    @property
    def sha256(self) -> str: ...

    def documents(self, chunk_ids: Iterable[str]) -> Iterator[bytes]:
        """Yield the want of each chunk, as a line with its newline."""


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """The pointer as it was read, and its bytes, which tell whether it has been replaced."""

    pointer: Pointer | None
    text: bytes | None

    @property
    def lists(self) -> Mapping[str, PublishedList]:
        return self.pointer.lists if self.pointer else {}


def blob(directory: str, sha256: str) -> str:
    """Return the name of a list or of routes."""
    return f"{directory}/{sha256}.jsonl.gz"


def read_pointer(shelf: Shelf) -> Published:
    """Read what is published.

    Raises:
        DataDirectoryError: there is a pointer that cannot be taken.
    """
    text = shelf.read(POINTER)
    try:
        return Published(None if text is None else Pointer.parse(text), text)
    except InvalidInputError as e:
        raise _broken(POINTER, str(e)) from e


def read_copies(
    shelf: Shelf, published: Published, chunks: Chunks, workers: Workers, reports: Mapping[str, Report], now: float
) -> Copies:
    """Read what was placed, and what the reports say of it. Chunks and workers that are not known are left out.

    `now` is in seconds since the epoch.

    Raises:
        DataDirectoryError: the routes that the pointer names are missing, or cannot be taken.
    """
    names = workers.names
    planned, leaving, doubted = _Pairs(names), _Pairs(names), _Pairs(names)
    sure = {name for name, said in published.lists.items() if _is_of(reports.get(name), said)}
    ids = []
    if published.pointer is not None:
        name = blob(ROUTES, published.pointer.routes)
        if (data := shelf.read(name)) is None:
            raise _broken(name, "it is missing, and the pointer names it")
        try:
            for row, route in enumerate(_lines(name, data)):
                ids.append(bytes.fromhex(route["id"]))
                planned.add(row, (*route["workers"], *route.get("coming", ())))
                if "leaving" in route:
                    leaving.add(row, route["leaving"])
                if "doubted" in route:
                    doubted.add(row, set(route["doubted"]) - sure)
        except (KeyError, TypeError, ValueError) as e:
            raise _broken(name, f"a line is no route: {e!r}") from e
    numbers = chunks.numbers(ids)
    was, some, doubts = (pairs.found(numbers, len(workers)) for pairs in (planned, leaving, doubted))
    held = _held(shelf, published, chunks, workers, reports, was)
    listed = np.array([worker.name in published.lists for worker in workers.all], np.bool_)
    lately, slow = np.zeros(len(workers), np.int64), np.zeros(len(workers), np.bool_)
    for number, worker in enumerate(workers.all):
        if (said := published.lists.get(worker.name)) is not None:
            lately[number] = sum(copies for _, copies in said.dropped_since(now - COUNTED_S))
            slow[number] = said.changed < now - SLOW_S
    return Copies(was, some, held, listed, planned.unknown(numbers, len(workers)), doubts, lately, slow)


def _is_of(report: Report | None, said: PublishedList) -> bool:
    """Tell whether a report was made after its worker had applied the list that it has now."""
    return report is not None and report.applied == said.sha256 and report.at >= said.changed


class _Pairs:
    """Rows of chunks, each with workers by name, as copies of those that are known."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self._names = names
        self._rows, self._workers = array("q"), array("q")

    def add(self, row: int, workers: Iterable[str]) -> None:
        found = [number for name in workers if (number := self._names.get(name)) is not None]
        self._rows.extend(repeat(row, len(found)))
        self._workers.extend(found)

    def found(self, numbers: Ints, count: int) -> Ints:
        """Return them as copies of the chunks with these numbers, by row; -1 is none."""
        chunk, worker = self._of(numbers)
        known = chunk >= 0
        return np.unique(chunk[known] * count + worker[known])

    def unknown(self, numbers: Ints, count: int) -> Ints:
        """Return how many each worker has of chunks that are none."""
        chunk, worker = self._of(numbers)
        return np.bincount(worker[chunk < 0], minlength=count).astype(np.int64)

    def _of(self, numbers: Ints) -> tuple[Ints, Ints]:
        rows, worker = np.array(self._rows, np.int64), np.array(self._workers, np.int64)
        return (numbers[rows] if rows.size else rows), worker


def _held(
    shelf: Shelf, published: Published, chunks: Chunks, workers: Workers, reports: Mapping[str, Report], planned: Ints
) -> Ints:
    """Return the copies that the reports tell of: those of the list that is applied, but for what is missing."""
    found = [np.empty(0, np.int64)]
    by_worker = planned[np.argsort(planned % len(workers), kind="stable")]
    first = np.searchsorted(by_worker % len(workers), np.arange(len(workers) + 1))
    for number, worker in enumerate(workers.all):
        report = reports.get(worker.name)
        if report is None:
            continue
        current = published.lists.get(worker.name)
        if current is not None and report.applied == current.sha256:
            mine = by_worker[first[number] : first[number + 1]] // len(workers)
        else:
            mine = _numbers(chunks, _ids_of_list(shelf, report.applied))
        mine = np.setdiff1d(mine, _numbers(chunks, map(bytes.fromhex, report.missing)))
        mine = np.union1d(mine, _numbers(chunks, map(bytes.fromhex, report.extra)))
        found.append(mine * len(workers) + number)
    return np.sort(np.concatenate(found))


def _numbers(chunks: Chunks, ids: Iterable[bytes]) -> Ints:
    numbers = chunks.numbers(list(ids))
    return numbers[numbers >= 0]


def _ids_of_list(shelf: Shelf, sha256: str | None) -> list[bytes]:
    """Return the chunks of a list that was published once; none where it is no longer there."""
    return [] if sha256 is None else [bytes.fromhex(line["id"]) for line in _list(shelf, sha256) if "id" in line]


def _list(shelf: Shelf, sha256: str) -> Iterator[dict[str, Any]]:
    """Read the lines of a list that was published once; none where it is no longer there."""
    name = blob(LISTS, sha256)
    data = shelf.read(name)
    return iter(()) if data is None else _lines(name, data)


def _lines(name: str, data: bytes) -> Iterator[dict[str, Any]]:
    """Read what this module has written."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as lines:
            yield from map(from_json, lines)
    except (OSError, EOFError, zlib.error, ValueError) as e:
        raise _broken(name, str(e)) from e


def _broken(name: str, why: str) -> DataDirectoryError:
    hint = f"nothing was changed. Put it there again; without {POINTER}, what workers hold is found by their reports"
    return DataDirectoryError(f"{name} cannot be taken: {why}", hint=hint)


def publish(
    shelf: Shelf,
    published: Published,
    earlier: Copies,
    placement: Placement,
    workers: Workers,
    wants: Wants,
    documents: Documents,
    now: float,
) -> Pointer | None:
    """Publish a placement in the place of what was `published`; return the pointer, or None where nothing changes.

    `now` is in seconds since the epoch.

    Raises:
        PublishedMeanwhileError: another process was faster; its placement holds.
        DataDirectoryError: it cannot be written.
    """
    last, lists = published.pointer, {}
    same_documents = last is not None and last.chunks == documents.sha256
    changed = placement.changed % len(workers)
    stays = np.bincount(changed, minlength=len(workers)) == 0
    lost = np.bincount(placement.dropped % len(workers), minlength=len(workers)) + earlier.forgotten
    peers = Peers.of(placement, workers)
    for worker, numbers in _by_worker(placement.listed, workers):
        name = workers.all[worker].name
        was = published.lists.get(name)
        is_same = same_documents and bool(stays[worker])
        if was is not None and is_same and _names_peers(shelf, was.sha256, peers, worker, wants):
            lists[name] = was
            continue
        chunks = numbers.tolist()
        lines = b"".join(peers.named(worker, chunks, documents.documents(map(wants.id, chunks))))
        just = ((now, int(lost[worker])),) if lost[worker] else ()
        sha256 = _put(shelf, lines + b'{"end": %d}\n' % numbers.size)
        lists[name] = PublishedList(
            sha256=sha256,
            chunks=numbers.size,
            bytes=int(wants.sizes[numbers].sum()),
            since=was.since if was else now,
            changed=was.changed if was and was.sha256 == sha256 else now,
            dropped=(*(was.dropped_since(now - COUNTED_S) if was else ()), *just),
        )
    routes = _put_routes(shelf, placement, workers, wants)
    if last is not None and (last.lists, last.routes, last.chunks) == (lists, routes, documents.sha256):
        return None
    number = last.number + 1 if last else 1
    pointer = Pointer(number=number, at=now, routes=routes, chunks=documents.sha256, lists=lists)
    shelf.replace(POINTER, pointer.to_json(), instead_of=published.text)
    return pointer


def _names_peers(shelf: Shelf, sha256: str, peers: Peers, worker: int, wants: Wants) -> bool:
    """Tell whether a list is still there, and as good as a new one would be for what its worker lacks."""
    if not shelf.renew(blob(LISTS, sha256)):
        return False
    ids = {wants.id(number): number for number in peers.by_worker.get(worker, ())}
    return not ids or peers.are_named(worker, ids, _list(shelf, sha256))


def _put(shelf: Shelf, text: bytes) -> str:
    sha256 = hashlib.sha256(text).hexdigest()
    if not shelf.renew(blob(LISTS, sha256)):
        shelf.put(blob(LISTS, sha256), gzip.compress(text, GZIP_LEVEL, mtime=0))
    return sha256


def _put_routes(shelf: Shelf, placement: Placement, workers: Workers, wants: Wants) -> str:
    """Put the routes there; of their text no more than a part is in memory at once."""
    digest, data = hashlib.sha256(), io.BytesIO()
    lines = _route_lines(placement, workers, wants)
    with gzip.GzipFile("", "wb", GZIP_LEVEL, data, mtime=0) as file:
        while some := b"".join(islice(lines, LINES)):
            digest.update(some)
            file.write(some)
    sha256 = digest.hexdigest()
    if not shelf.renew(blob(ROUTES, sha256)):
        shelf.put(blob(ROUTES, sha256), data.getvalue())
    return sha256


def _by_worker(copies: Ints, workers: Workers) -> Iterator[tuple[int, Ints]]:
    """Return the number of each worker that is to have a list, and its chunks in the order of their ids."""
    chunk, worker = np.divmod(copies, len(workers))
    order = np.argsort(worker, kind="stable")
    first = np.searchsorted(worker[order], np.arange(len(workers) + 1))
    for number, one in enumerate(workers.all):
        if one.presence != Presence.GONE:
            yield number, chunk[order[first[number] : first[number + 1]]]


def _route_lines(placement: Placement, workers: Workers, wants: Wants) -> Iterator[bytes]:
    """Write the routes, by dataset and blocks."""
    count, names = len(workers), [json.dumps(worker.name) for worker in workers.all]
    # as arrays that are cheap to index, and small
    confirmed = is_in(placement.listed, placement.confirmed).tobytes()
    leaving = is_in(placement.listed, placement.leaving).tobytes()
    doubted = is_in(placement.listed, placement.doubted).tobytes()
    worker = array("q", (placement.listed % count).tobytes())
    first = array("q", np.searchsorted(placement.listed // count, np.arange(len(wants) + 1)).tobytes())
    for number in array("q", wants.by_blocks().tobytes()):
        mine = range(first[number], first[number + 1])
        parts = {
            "workers": [names[worker[at]] for at in mine if confirmed[at]],
            "coming": [names[worker[at]] for at in mine if not confirmed[at]],
            "leaving": [names[worker[at]] for at in mine if leaving[at]],
            "doubted": [names[worker[at]] for at in mine if doubted[at]],
        }
        said = "".join(f', "{part}": [{", ".join(some)}]' for part, some in parts.items() if some or part == "workers")
        start, end = wants.blocks(number)
        head = f'{{"dataset_id": "{wants.dataset(number)}", "start": {start}, "end": {end}, "id": "{wants.id(number)}"'
        yield f"{head}{said}}}\n".encode()
