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
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fsdm.fleet.documents import Pointer, PublishedList
from fsdm.fleet.inventory import Copies, Presence, is_in
from fsdm.model.errors import DataDirectoryError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fsdm.fleet.inventory import Chunks, Ints, Workers
    from fsdm.fleet.placing import Placement
    from fsdm.fleet.report import Report
    from fsdm.fleet.shelf import Shelf
    from fsdm.fleet.wants import Wants

POINTER: Final = "placement.json"
LISTS: Final = "lists"
ROUTES: Final = "routes"
GZIP_LEVEL: Final = 6


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
    shelf: Shelf, published: Published, chunks: Chunks, workers: Workers, reports: Mapping[str, Report]
) -> Copies:
    """Read what was placed, and what the reports say of it. Chunks and workers that are not known are left out.

    Raises:
        DataDirectoryError: the routes that the pointer names are missing, or cannot be taken.
    """
    names = workers.names
    planned, leaving, doubted = _Pairs(names), _Pairs(names), _Pairs(names)
    sure = {name for name, said in published.lists.items() if _is_of(reports.get(name), said)}
    if published.pointer is not None:
        name = blob(ROUTES, published.pointer.routes)
        if (data := shelf.read(name)) is None:
            raise _broken(name, "it is missing, and the pointer names it")
        try:
            for route in _lines(name, data):
                raw = bytes.fromhex(route["id"])
                planned.add(raw, (*route["workers"], *route.get("coming", ())))
                leaving.add(raw, route.get("leaving", ()))
                doubted.add(raw, set(route.get("doubted", ())) - sure)
        except (KeyError, TypeError, ValueError) as e:
            raise _broken(name, f"a line is no route: {e!r}") from e
    was, gone = planned.found(chunks, len(workers)), planned.unknown
    held = _held(shelf, published, chunks, workers, reports, was)
    listed = np.array([worker.name in published.lists for worker in workers.all], np.bool_)
    some, doubts = (pairs.found(chunks, len(workers)) for pairs in (leaving, doubted))
    return Copies(was, some, held, listed, gone, doubts)


def _is_of(report: Report | None, said: PublishedList) -> bool:
    """Tell whether a report was made after its worker had applied the list that it has now."""
    return report is not None and report.applied == said.sha256 and report.at >= said.changed


class _Pairs:
    """Chunks and workers by name, as copies of those that are known."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self._names = names
        self._ids: list[bytes] = []
        self._workers: list[int] = []
        self.unknown: Ints = np.zeros(len(names), np.int64)

    def add(self, raw: bytes, workers: Iterable[str]) -> None:
        for name in workers:
            if (number := self._names.get(name)) is not None:
                self._ids.append(raw)
                self._workers.append(number)

    def found(self, chunks: Chunks, count: int) -> Ints:
        numbers, worker = chunks.numbers(self._ids), np.array(self._workers, np.int64)
        known = numbers >= 0
        self.unknown = np.bincount(worker[~known], minlength=count).astype(np.int64)
        return np.unique(numbers[known] * count + worker[known])


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
    data = None if sha256 is None else shelf.read(blob(LISTS, sha256))
    if data is None:
        return []
    lines = _lines(blob(LISTS, sha256 or ""), data)
    return [bytes.fromhex(document["id"]) for document in lines if "id" in document]


def _lines(name: str, data: bytes) -> Iterator[dict[str, Any]]:
    """Read what this module has written."""
    try:
        for line in gzip.decompress(data).splitlines():
            yield json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError) as e:
        raise _broken(name, str(e)) from e


def _broken(name: str, why: str) -> DataDirectoryError:
    hint = f"nothing was changed. Put it there again; without {POINTER}, what workers hold is found by their reports"
    return DataDirectoryError(f"{name} cannot be taken: {why}", hint=hint)


def publish(
    shelf: Shelf,
    published: Published,
    placement: Placement,
    workers: Workers,
    wants: Wants,
    document: Callable[[str], bytes],
    now: float,
) -> Pointer | None:
    """Publish a placement in the place of what was `published`; return the pointer, or None where nothing changes.

    `document` gives the want of a chunk, as a line. `now` is in seconds since the epoch.

    Raises:
        PublishedMeanwhileError: another process was faster; its placement holds.
        DataDirectoryError: it cannot be written.
    """
    lists = {}
    for worker, numbers in _by_worker(placement.listed, workers):
        documents = [document(wants.id(number)).strip() for number in numbers]
        text = b"\n".join([*documents, b'{"end": %d}\n' % len(documents)])
        was, sha256 = published.lists.get(worker), _put(shelf, LISTS, text)
        lists[worker] = PublishedList(
            sha256=sha256,
            chunks=len(documents),
            bytes=int(wants.sizes[numbers].sum()),
            since=was.since if was else now,
            changed=was.changed if was and was.sha256 == sha256 else now,
        )
    routes = _put(shelf, ROUTES, b"".join(_route_lines(placement, workers, wants)))
    last = published.pointer
    if last is not None and (last.lists, last.routes) == (lists, routes):
        return None
    pointer = Pointer(number=last.number + 1 if last else 1, at=now, routes=routes, lists=lists)
    shelf.replace(POINTER, pointer.to_json(), instead_of=published.text)
    return pointer


def _put(shelf: Shelf, directory: str, text: bytes) -> str:
    sha256 = hashlib.sha256(text).hexdigest()
    if not shelf.renew(blob(directory, sha256)):
        shelf.put(blob(directory, sha256), gzip.compress(text, GZIP_LEVEL, mtime=0))
    return sha256


def _by_worker(copies: Ints, workers: Workers) -> Iterator[tuple[str, Ints]]:
    """Return the chunks of each worker that is to have a list, in the order of their ids."""
    chunk, worker = np.divmod(copies, len(workers))
    order = np.argsort(worker, kind="stable")
    first = np.searchsorted(worker[order], np.arange(len(workers) + 1))
    for number, one in enumerate(workers.all):
        if one.presence != Presence.GONE:
            yield one.name, chunk[order[first[number] : first[number + 1]]]


def _route_lines(placement: Placement, workers: Workers, wants: Wants) -> Iterator[bytes]:
    """Write the routes, by dataset and blocks."""
    count, names = len(workers), [json.dumps(worker.name) for worker in workers.all]
    confirmed = is_in(placement.listed, placement.confirmed).tolist()
    leaving = is_in(placement.listed, placement.leaving).tolist()
    doubted = is_in(placement.listed, placement.doubted).tolist()
    worker = (placement.listed % count).tolist()
    first = np.searchsorted(placement.listed // count, np.arange(len(wants) + 1)).tolist()
    for number in wants.by_blocks().tolist():
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
