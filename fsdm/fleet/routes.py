"""The routes of a fleet, as they are published: which nodes hold a chunk, and the chunks that answer for a range.

Invariants: only nodes that have confirmed a chunk are its holders. Each block of a range is answered for by one chunk,
or it is an error that names it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from functools import partial
from sys import intern
from typing import TYPE_CHECKING, Final, Self

from fsdm.model.errors import DataDirectoryError, InvalidInputError, NotHeldError, TransferError, cause_of_status
from fsdm.model.layout import U64_MAX, Place, as_id
from fsdm.store.block_index import BlockIndex
from fsdm.transfer.http.target import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Reading = Callable[[str], bytes | None]  # of a published file, by its name; None where there is none

SHOWN: Final = 3
TIMEOUTS_S: Final = (10.0, 30.0)  # for the connection, and between the bytes of an answer


@dataclass(frozen=True, slots=True)
class Holders:
    """The nodes that have confirmed a chunk: those that keep it, and those that are to lose it soon."""

    keeping: tuple[str, ...]
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk of a query, and the blocks that it answers for in it: half-open, not empty."""

    place: Place
    blocks: range

    def __str__(self) -> str:
        first, last = self.blocks.start, self.blocks.stop
        return f"blocks [{first}, {last}) of {self.place.dataset_id[:12]}… (chunk {self.place.chunk_id})"


class Routes:
    """The chunks of a fleet, by dataset and blocks, with the nodes that hold each."""

    def __init__(self, held: Mapping[str, Mapping[str, Holders]], unheld: Mapping[str, Iterable[str]]) -> None:
        """Take the chunks by dataset and by the names of their directories; `unheld` are those without a holder."""
        self._held = held
        self._index = {dataset: BlockIndex.of(names) for dataset, names in held.items()}
        self._unheld = {dataset: BlockIndex.of(names) for dataset, names in unheld.items()}

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take the text of routes: JSON Lines.

        Raises:
            DataDirectoryError: a line is no route.
        """
        held: dict[str, dict[str, Holders]] = {}
        unheld: dict[str, list[str]] = {}
        try:
            for line in data.splitlines():
                route = json.loads(line)
                place = Place.of(as_id(route["dataset_id"], ""), range(route["start"], route["end"]), route["id"])
                dataset, workers, leaving = intern(place.dataset_id), route["workers"], set(route.get("leaving", ()))
                if workers:
                    keeping = tuple(intern(name) for name in workers if name not in leaving)
                    going = tuple(intern(name) for name in workers if name in leaving)
                    held.setdefault(dataset, {})[place.name] = Holders(keeping, going)
                else:
                    unheld.setdefault(dataset, []).append(place.name)
        except (KeyError, TypeError, ValueError) as e:
            raise DataDirectoryError(f"the routes cannot be taken: {e!r:.200}", hint="have them published again") from e
        return cls(held, unheld)

    def __len__(self) -> int:
        return sum(map(len, self._held.values())) + sum(map(len, self._unheld.values()))

    def holders(self, place: Place) -> Holders:
        """Return the nodes that hold a chunk: none where it is not known, or nobody has confirmed it."""
        return self._held.get(place.dataset_id, {}).get(place.name) or Holders(())

    def cover(self, dataset_id: str | bytes, start: int, end: int) -> list[Part]:
        """Return the chunks that hold the blocks `[start, end)` of a dataset, in order; each block is in one part.

        Where the ranges of chunks overlap, the same one is responsible as in a data directory.

        Raises:
            NotHeldError: nobody has confirmed a chunk with some of the blocks; the message names them.
            InvalidInputError: the range is empty, or not within u64.
        """
        dataset = as_id(dataset_id, "dataset_id")
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= U64_MAX):
            what = f"must be a range within 0 … 2^64-1, not [{start!r:.80}, {end!r:.80})"
            raise InvalidInputError(what, field="start")
        index = self._index.get(dataset) or BlockIndex()
        parts: list[Part] = []
        gaps: list[range] = []
        at = start
        while at < end:
            name = index.find(at)
            if name is None:
                following = index.following(at)
                until = end if following is None else min(int(following[:20]), end)
                gaps.append(range(at, until))
            else:
                until = min(int(name[21:41]), end)
                parts.append(Part(Place(dataset, name), range(at, until)))
            at = until
        if gaps:
            raise self._nobody(dataset, gaps)
        return parts

    def every(self, dataset_id: str | bytes | None = None) -> list[Part]:
        """Return all chunks, of one dataset or of all, each for all of its blocks; in order of dataset and block.

        Raises:
            NotHeldError: nobody has confirmed one of them.
        """
        wanted = None if dataset_id is None else as_id(dataset_id, "dataset_id")
        for dataset, unheld in self._unheld.items():
            if wanted in {None, dataset} and len(unheld):
                raise self._nobody(dataset, [Place(dataset, name).block_range for name in unheld])
        datasets = sorted(dataset for dataset in self._index if wanted in {None, dataset})
        places = (Place(dataset, name) for dataset in datasets for name in self._index[dataset])
        return [Part(place, place.block_range) for place in places]

    def _nobody(self, dataset: str, gaps: list[range]) -> NotHeldError:
        told = ", ".join(f"[{gap.start}, {gap.stop})" for gap in gaps[:SHOWN]) + " …" * (len(gaps) > SHOWN)
        unheld = self._unheld.get(dataset) or BlockIndex()
        name = next(filter(None, (unheld.find(gap.start) for gap in gaps)), None)
        why = "no chunk of the fleet has them" if name is None else f"chunk {name[42:]} is not confirmed yet"
        what = f"nobody holds blocks {told} of {dataset}: {why}"
        return NotHeldError(what, hint="`fsdm place … --explain CHUNK` says where a chunk is to be")


def reading(where: str | os.PathLike[str] | Reading) -> Reading:
    """Return what reads the published files of a directory, or below a URL."""
    if callable(where):
        return where
    text = os.fspath(where)
    if text.startswith(("http://", "https://")):
        return partial(_fetched, text.rstrip("/"))
    from fsdm.fleet.shelf import Directory

    return Directory(text).read


def _fetched(url: str, name: str) -> bytes | None:
    """Fetch a published file; None where the server has none."""
    import requests

    try:
        headers = {"Accept-Encoding": "identity", "User-Agent": "fsdm"}
        with requests.get(f"{url}/{name}", timeout=TIMEOUTS_S, headers=headers) as response:
            if response.status_code == 404:
                return None
            if response.status_code != 200:
                what = f"{shown(url)}/{name}: HTTP {response.status_code}"
                raise TransferError(
                    what, transient=True, hint="check the URL", cause=cause_of_status(response.status_code)
                )
            return response.content
    except requests.RequestException as e:  # not its words: they may show a URL's secrets
        what = f"{shown(url)}/{name}: the connection broke ({type(e).__name__})"
        raise TransferError(what, transient=True, cause="connection") from e


class RoutesReader:
    """The routes that are published, read again where it has changed. Not thread-safe."""

    def __init__(self, read: Reading) -> None:
        self._read = read
        self._sha256 = ""
        self._routes: Routes | None = None

    def current(self) -> Routes:
        """Return the routes that the pointer names now.

        Raises:
            DataDirectoryError: there are none, they cannot be read, or are not what the pointer names.
        """
        from fsdm.fleet.documents import Pointer

        text = self._read("placement.json")
        if text is None:
            raise DataDirectoryError("nothing is published there: no placement.json", hint="`fsdm place` publishes it")
        try:
            sha256 = Pointer.parse(text).routes
        except InvalidInputError as e:
            raise DataDirectoryError(f"placement.json cannot be taken: {e}", hint="have it published again") from e
        if self._routes is None or sha256 != self._sha256:
            self._routes, self._sha256 = Routes.parse(self._text(f"routes/{sha256}.jsonl.gz", sha256)), sha256
        return self._routes

    def _text(self, name: str, sha256: str) -> bytes:
        data = self._read(name)
        try:
            text = b"" if data is None else gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as e:
            raise DataDirectoryError(
                f"{name} cannot be taken: {e}", hint="ask again, or have it published again"
            ) from e
        if data is None or hashlib.sha256(text).hexdigest() != sha256:
            why = "it is missing, and the pointer names it" if data is None else "it is not what the pointer names"
            raise DataDirectoryError(f"{name} cannot be taken: {why}", hint="ask again, or have it published again")
        return text
