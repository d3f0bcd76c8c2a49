"""The peers that a list names: nodes that have confirmed a chunk and serve it, before the lake. Pure.

A copy that is still to come names them, one that is there names none. A digest decides what is taken: so a file without
one is named at the lake alone. A list that is published is written anew for its peers only where a copy that is to come
names none of those that hold it: not each time that somebody confirms a copy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np
from pydantic_core import from_json

from fsdm.fleet.inventory import is_in
from fsdm.model.documents import MIRRORS_MAX
from fsdm.model.layout import Place
from fsdm.model.plain_wants import BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fsdm.fleet.inventory import Workers
    from fsdm.fleet.placing import Placement

PEERS_MAX: Final = 4

Bases = tuple[str, ...]  # the URLs of peers, as `url` in the list of workers has them


@dataclass(frozen=True, slots=True)
class Peers:
    """The peers of each copy that is still to come: by worker and chunk, by their numbers."""

    by_worker: Mapping[int, Mapping[int, Bases]]

    @classmethod
    def of(cls, placement: Placement, workers: Workers) -> Peers:
        """Find them: up to PEERS_MAX of those that serve, each worker's in an order of its own."""
        count, urls = len(workers), [worker.url.rstrip("/") for worker in workers.all]
        serves = np.array([bool(url) for url in urls], np.bool_)
        held = placement.confirmed[serves[placement.confirmed % count]] if serves.any() else placement.confirmed[:0]
        coming = placement.listed[~is_in(placement.listed, placement.confirmed)] if held.size else held
        first = np.searchsorted(held // count, coming // count)
        last = np.searchsorted(held // count, coming // count, side="right")
        found: dict[int, dict[int, Bases]] = {}
        for copy, begin, end in zip(coming.tolist(), first.tolist(), last.tolist(), strict=True):
            if begin < end:
                chunk, worker = divmod(copy, count)
                turn = begin + worker % (end - begin)
                mine = (*range(turn, end), *range(begin, turn))[:PEERS_MAX]
                found.setdefault(worker, {})[chunk] = tuple(urls[int(held[at]) % count] for at in mine)
        return cls(found)

    def named(self, worker: int, numbers: Iterable[int], documents: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the wants of the chunks of a worker, with their peers."""
        mine = self.by_worker.get(worker, {})
        for number, document in zip(numbers, documents, strict=True):
            yield with_peers(document, mine[number]) if number in mine else document

    def are_named(self, worker: int, ids: Mapping[str, int], lines: Iterable[Mapping[str, Any]]) -> bool:
        """Tell whether a list names one of the peers of each copy that is to come; `ids` are the chunks of these."""
        mine = self.by_worker.get(worker, {})
        for line in lines:
            if (number := ids.get(line.get("id", ""))) is not None:
                bases = tuple(f"{base}/chunks/" for base in mine[number])
                files = [file for file in line["files"].values() if _is_proven(file)]
                if not all(any(url.startswith(bases) for url in _urls(file)) for file in files):
                    return False
        return True


def with_peers(document: bytes, bases: Bases) -> bytes:
    """Name peers in a want, before its own URLs; as many as there is room for."""
    want = from_json(document)
    blocks = want["block_range"]
    start, end = (blocks["start"], blocks["end"]) if isinstance(blocks, dict) else blocks
    place = Place.of(want["dataset_id"], range(start, end), want["id"])
    for name, file in want["files"].items():
        if _is_proven(file):
            old = _urls(file)
            path = f"chunks/{place.dataset_id}/{place.name}/data/{quote(name, safe='')}"
            url, *mirrors = [*(f"{base}/{path}" for base in bases[: MIRRORS_MAX + 1 - len(old)]), *old]
            want["files"][name] = {**file, "url": url, "mirrors": mirrors}
    line = json.dumps(want, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return line if len(line) <= BYTES_MAX else document


def _is_proven(file: object) -> bool:
    return isinstance(file, dict) and bool(file.get("sha256") or file.get("blake3"))


def _urls(file: Mapping[str, Any]) -> list[str]:
    return [file["url"], *(file.get("mirrors") or ())]
