"""Indexes in the lives: a key is every four bytes of a chunk's files, and look-ups equal a search of all of them.

What an indexer's process does is done in this one, and what it writes is written by calls that the tap sees.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import fsdm.index.building
import fsdm.index.gathering
from fsdm.client import Client
from fsdm.index.merging import MergeJob, merge
from fsdm.index.writing import write_chunk_index
from fsdm.model.errors import InvalidInputError
from fsdm.model.index_format import NO_ROW_GROUP
from fsdm.model.indexes import Index
from fsdm.store.filesystem import write_all
from tools.crash.source import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.model.layout import Layout
    from tools.support.versions import Version

INDEX: Final = Index(name="four", command="four")
KEY_BYTES: Final = 4


def keys_of(data: bytes) -> list[bytes]:
    """Return the keys in a file."""
    return [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]


ASKED: Final = sorted(
    {key for one in VERSIONS.values() for file, data in one.files.items() if file != "large" for key in keys_of(data)}
)


@contextmanager
def indexers_inline() -> Iterator[None]:
    """Have no process begun for an index, and all runs merged each time."""
    with ExitStack() as patches:
        for module in (fsdm.index.building, fsdm.index.gathering):
            patches.enter_context(mock.patch.object(module, "run", _carried_out))
        patches.enter_context(mock.patch.object(fsdm.index.gathering, "RUNS_MAX", 1))
        yield


def _carried_out(module: str, job: bytes, _timeout_s: float, go_on: Callable[[], None]) -> dict[str, Any]:
    go_on()
    given = json.loads(job)
    if module == "fsdm.index.worker":
        file, names = io.BytesIO(), given["names"]
        entries = [
            (key, number, NO_ROW_GROUP, at * KEY_BYTES, KEY_BYTES)
            for number, name in enumerate(names)
            for at, key in enumerate(keys_of(Path(given["directory"], name).read_bytes()))
        ]
        identity, definition = map(bytes.fromhex, (given["identity"], given["definition"]))
        write_chunk_index(file, entries, names, identity=identity, definition=definition)
        _put(given["target"], file.getvalue())
        return {}
    with tempfile.TemporaryDirectory() as beside:
        places = [tuple(place) for place in given["places"]]
        report = merge(MergeJob(**{**given, "places": places, "target": f"{beside}/run"}))
        if report["run"] is not None:
            _put(given["target"], Path(f"{beside}/run").read_bytes())
    return report


def _put(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def wrong_look_ups(layout: Layout, ready: Mapping[str, Version], found_at_least: set[str]) -> list[str]:
    """Look keys up; return what is wrong: a chunk without the key, or one of these letters that is not found."""
    wrong = []
    with Client(layout.root) as client:
        for key in ASKED:
            held = {
                letter
                for letter, version in ready.items()
                if any(key in keys_of(data) for data in version.files.values())
            }
            ids = {version.chunk.id: letter for letter, version in ready.items()}
            found = {ids.get(chunk_id, chunk_id) for chunk_id in _found(client, key)}
            if not held >= found >= held & found_at_least:
                wrong.append(f"key {key.hex()} is in {sorted(held)}, and found in {sorted(found)}")
    return wrong


def _found(client: Client, key: bytes) -> set[str]:
    try:
        refs = client.find_key(INDEX.name, key)
    except InvalidInputError:  # there is none over all chunks
        return set()
    found = set()
    for ref in refs:
        with ref:
            found.add(ref.id)
    return found
