"""Whether the end state of the demo is right: looked at from outside, on the disk, against the source's own bytes.

Each function gives the faults that it finds, as sentences; none is asked of the reconciler, and nothing is repaired.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fsdm.cli.demo.source import sha256_of
from fsdm.model.layout import DATA, READY, WANT, Layout
from fsdm.transfer.sink import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.client import Client
    from fsdm.model.documents import DataChunk, FileSource


def end_state_faults(data_dir: str, client: Client, kept: Iterable[DataChunk]) -> list[str]:
    """What is not as it has to be when exactly the chunks `kept` are to be here."""
    layout, kept = Layout(data_dir), list(kept)
    faults = [*_listed(client, kept), *_left_over(layout), *_places(layout, kept)]
    for chunk in kept:
        faults += _files(layout, chunk)
    return faults


def leftovers(layout: Layout) -> list[str]:
    """What stands where nothing is to stand once everything has converged: markers, partials, failures, trash."""
    return [
        f"{directory}/{name}"
        for directory in (layout.want, layout.delete, layout.partial, layout.failed, layout.trash)
        for name in os.listdir(directory)
    ]


def _listed(client: Client, kept: list[DataChunk]) -> Iterator[str]:
    seen, due = client.list_chunks(), {chunk.id for chunk in kept}
    yield from (f"{chunk_id} is available, and was deleted" for chunk_id in seen if chunk_id not in due)
    yield from (f"{chunk_id} is wanted, and not available" for chunk_id in sorted(due.difference(seen)))
    for chunk in kept:
        ref = client.find_chunk(chunk.dataset_id, chunk.block_range[-1])
        if ref is None or ref.id != chunk.id:
            yield f"{chunk.id} is not found by its last block"
        if ref is not None:
            ref.close()


def _left_over(layout: Layout) -> Iterator[str]:
    return (f"{path} is left over" for path in leftovers(layout))


def _places(layout: Layout, kept: list[DataChunk]) -> Iterator[str]:
    """Nothing stands in `chunks/` but what is kept."""
    due = {layout.path(chunk.place) for chunk in kept}
    for dataset in os.scandir(layout.chunks):
        yield from (f"{entry.path} is left over" for entry in os.scandir(dataset.path) if entry.path not in due)


def _files(layout: Layout, chunk: DataChunk) -> Iterator[str]:
    """The chunk's files are the wanted ones, and READY says of each what the source has."""
    directory = layout.path(chunk.place)
    try:
        with open(f"{directory}/{READY}", "rb") as file:
            manifest = json.load(file)["files"]
        names = set(os.listdir(f"{directory}/{DATA}"))
        if {READY, WANT, DATA} != set(os.listdir(directory)):
            yield f"{directory} holds other than {READY}, {WANT} and {DATA}: {sorted(os.listdir(directory))}"
        if not names == set(manifest) == set(chunk.files):
            yield f"{directory} has the files {sorted(names)}, READY {sorted(manifest)}"
            return
        for name, source in chunk.files.items():
            yield from _file(f"{directory}/{DATA}/{name}", source, manifest[name])
    except (OSError, ValueError, KeyError) as e:
        yield f"{directory} cannot be read: {e!r}"


def _file(path: str, source: FileSource, entry: dict[str, object]) -> Iterator[str]:
    with open(path, "rb") as file:
        here = {"size": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    due = {"size": source.size, "sha256": sha256_of(urlsplit(source.url).path, source.size or 0)}
    if here != due:
        yield f"{path} has not the bytes of its source: {here}, not {due}"
    if (entry.get("size"), entry.get("blake3")) != (due["size"], digest_of(path, "blake3")):
        yield f"READY says of {path}: {entry}, not {due}"
