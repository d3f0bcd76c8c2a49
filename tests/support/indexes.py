"""Index files of chunks, made without a reconciler."""

import os
from collections.abc import Iterable, Sequence

from fsdm.index.merging import MergeJob, merge
from fsdm.index.writing import write_chunk_index
from fsdm.model.index_format import NO_ROW_GROUP
from fsdm.model.layout import Layout, Place, index_path
from fsdm.store.index_file import ChunkIndex, identity_of, open_chunk_index

DEFINITION = b"d" * 32
NAMES = ("a.bin", "b.bin")


def put_index(
    layout: Layout,
    place: Place,
    keys: Iterable[bytes],
    *,
    name: str = "tx",
    identity: bytes | None = None,
    definition: bytes = DEFINITION,
    names: Sequence[str] = NAMES,
) -> str:
    """Write the index of a chunk: each key stands at its number among `keys`; return its path."""
    directory = layout.path(place)
    path = index_path(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    entries = [(key, 0, NO_ROW_GROUP, number, 7) for number, key in enumerate(keys)]
    of = identity or identity_of(directory)
    assert of is not None
    with open(path, "wb") as file:
        write_chunk_index(file, entries, names, identity=of, definition=definition)
    return path


def put_run(layout: Layout, *places: Place, name: str = "tx", definition: bytes = DEFINITION) -> str:
    """Merge the indexes of chunks into a run over all chunks, in this process; return its path."""
    target, directory = f"{layout.trash}/.run", layout.runs_of(name)
    chunks = [(place.dataset_id, place.name) for place in places]
    job = MergeJob(os.getpid(), layout.root, name, definition.hex(), [], chunks, target)
    report = merge(job)
    assert (report["untaken"], report["damaged"]) == ([], [])
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/{report['run']}"
    os.rename(target, path)
    return path


def opened_index(layout: Layout, place: Place, name: str = "tx") -> ChunkIndex:
    index = open_chunk_index(layout.path(place), name)
    assert index is not None
    return index
