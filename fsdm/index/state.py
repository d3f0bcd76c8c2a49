"""The state of the indexes, read from the files alone; and having one made again."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsdm.model.errors import DataDirectoryError
from fsdm.model.index_format import IndexedChunk, is_index_name
from fsdm.model.layout import INDEX, index_path
from fsdm.store.filesystem import FileSystem, is_directory
from fsdm.store.index_failures import SUFFIX, remove_index_failure
from fsdm.store.index_file import open_chunk_index
from fsdm.store.index_runs import open_run, run_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.model.layout import Layout, Place


@dataclass(slots=True)
class IndexState:
    """One index of so many available `chunks`: `indexed` have it, `failing` cannot, `gathered` are in the runs.

    `keys` and `size_bytes` are of the chunks' own, `runs`, `run_records` and `run_bytes` of those over all chunks.
    """

    name: str
    chunks: int = 0
    indexed: int = 0
    failing: int = 0
    gathered: int = 0
    keys: int = 0
    size_bytes: int = 0
    runs: int = 0
    run_records: int = 0
    run_bytes: int = 0


def read_index_states(layout: Layout, places: Iterable[Place]) -> list[IndexState]:
    """Read how each index stands, over the chunks at these places: some 50 µs a chunk. May raise OSError."""
    states: dict[str, IndexState] = {}
    gathered: dict[str, set[IndexedChunk]] = {}
    with suppress(FileNotFoundError):
        for name in filter(is_index_name, os.listdir(layout.index)):
            states[name], gathered[name] = _read_runs(layout, name)
    places = list(places)
    for place in places:
        directory = layout.path(place)
        for entry in _names_in(directory):
            name = entry.removesuffix(SUFFIX)
            if not is_index_name(name):
                continue
            state = states.setdefault(name, IndexState(name))
            if name != entry:
                state.failing += 1
                continue
            index = open_chunk_index(directory, name)
            if index is not None:
                with index:
                    state.indexed += 1
                    state.keys += len(index)
                    state.size_bytes += index.header.size
                    state.gathered += IndexedChunk(place, index.header.identity) in gathered.get(name, ())
    for state in states.values():
        state.chunks = len(places)
    return sorted(states.values(), key=lambda state: state.name)


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(f"{directory}/{INDEX}")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_runs(layout: Layout, name: str) -> tuple[IndexState, set[IndexedChunk]]:
    state = IndexState(name)
    chunks: set[IndexedChunk] = set()
    for run_name in run_names(layout.runs_of(name)):
        run = open_run(f"{layout.runs_of(name)}/{run_name}")
        if run is not None:
            with run:
                state.runs += 1
                state.run_records += run.header.count
                state.run_bytes += run.header.size
                chunks.update(chunk for chunk in run.chunks() if chunk is not None)
    return state, chunks


def remove_index(layout: Layout, name: str, places: Iterable[Place]) -> None:
    """Remove an index over all chunks, and first those of the chunks at `places`: the reconciler makes them again.

    Raises:
        DataDirectoryError: this user may not.
    """
    fs = FileSystem(durable=False)
    try:
        for place in places:
            if not is_directory(f"{layout.path(place)}/{INDEX}"):  # nor a symlink that leads elsewhere
                continue
            fs.unlink(index_path(layout.path(place), name))
            remove_index_failure(fs, layout.path(place), name)
        for run in run_names(layout.runs_of(name)):
            fs.unlink(f"{layout.runs_of(name)}/{run}")
    except OSError as e:
        hint = "do it as the user that reconciles"
        raise DataDirectoryError(f"{e.filename} cannot be removed: {e.strerror}", hint=hint) from e
