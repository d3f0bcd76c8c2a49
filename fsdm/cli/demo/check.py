"""Compare what is on disk at the demo's end with what has to be there, byte by byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fsdm.model.documents import Manifest
from fsdm.model.layout import DATA, READY, WANT, Layout
from fsdm.store.digests import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.client import Client
    from fsdm.model.documents import DataChunk


def read_chunk(directory: str, wanted: DataChunk | None = None) -> tuple[int, list[str]]:
    """Read a chunk; return its size, and how it differs from READY and from what is wanted."""
    read_bytes, faults = 0, []
    try:
        manifest = Manifest.parse(Path(directory, READY).read_bytes())
        names, entries = sorted(os.listdir(f"{directory}/{DATA}")), sorted(os.listdir(directory))
        if names != sorted(manifest.files) or entries != sorted((READY, WANT, DATA)):
            faults.append(f"{directory} has {entries} with the files {names}, READY says {sorted(manifest.files)}")
        if wanted is not None and not manifest.satisfies(wanted):
            faults.append(f"{directory} is not what is wanted: {manifest}")
        for name, entry in manifest.files.items():
            path = f"{directory}/{DATA}/{name}"
            here = os.path.getsize(path), digest_of(path, "blake3"), digest_of(path, "sha256")
            if here != (entry.size, entry.blake3, entry.sha256):
                faults.append(f"{path} is not what READY says: {here}, not {entry}")
            read_bytes += here[0]
    except OSError as e:
        faults.append(f"{directory} cannot be read: {e}")
    return read_bytes, faults


def find_id(client: Client, dataset_id: str, block: int) -> str | None:
    """Find the id of the chunk that is available for the block."""
    ref = client.find_chunk(dataset_id, block)
    if ref is None:
        return None
    with ref:
        return ref.id


def leftovers(layout: Layout) -> list[str]:
    """List markers, partials, failures and trash: there are none once all has converged."""
    directories = [getattr(layout, name) for name in layout.directories() if name != "chunks"]
    return [f"{directory}/{name}" for directory in directories for name in os.listdir(directory)]


def end_state_faults(client: Client, kept: list[DataChunk]) -> Iterator[str]:
    """Find what is wrong where exactly the chunks `kept` are to be here."""
    layout, seen, due = client.layout, client.list_chunks(), {chunk.id for chunk in kept}
    yield from (f"{chunk_id} is available, and was deleted" for chunk_id in seen if chunk_id not in due)
    yield from (f"{chunk_id} is wanted, and not available" for chunk_id in sorted(due.difference(seen)))
    places = {layout.path(chunk.place): chunk for chunk in kept}
    here = {str(path) for path in Path(layout.chunks).glob("*/*")}
    yield from (f"{path} is left over" for path in [*leftovers(layout), *sorted(here - places.keys())])
    for path, chunk in places.items():
        if find_id(client, chunk.dataset_id, chunk.block_range[-1]) != chunk.id:
            yield f"{chunk.id} is not found by its last block"
        else:
            yield from read_chunk(path, chunk)[1]
