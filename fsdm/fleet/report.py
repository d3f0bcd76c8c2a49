"""The report of a worker: which of the chunks of its list are here, as READY says it.

Invariant: no chunk is told to be here that is not available with the files of the list. Nodes need no more than this of
a fleet: nothing heavy is imported here.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, FiniteFloat

from fsdm.model.documents import Digest, Document, Id
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.layout import is_id
from fsdm.store.data_dir import unreadable
from fsdm.store.filesystem import FileSystem, exists, read_regular
from fsdm.store.json_files import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.client import Client
    from fsdm.model.documents import DataChunk
    from fsdm.model.layout import Layout

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"  # it is a part of file names and of URLs
NODE_ID_MAX_BYTES: Final = 1024

Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=0, strict=True)]


class Report(Document):
    """The report of a worker: `at` (seconds since the epoch) it holds its list, but for what is `missing`.

    `applied` is the sha256 of that list, as the pointer names it; None where it has applied none. `extra`: the chunks
    that it holds besides. `bytes` on its disk; `braked`: deletes are held back; `failing`: the chunks that cannot be
    fetched.
    """

    at: FiniteFloat
    applied: Digest | None = None
    missing: tuple[Id, ...] = ()
    extra: tuple[Id, ...] = ()
    bytes: Count = 0
    braked: Annotated[bool, Field(strict=True)] = False
    failing: tuple[Id, ...] = ()


def report(client: Client, wanted: Iterable[DataChunk], sha256: str, now: float) -> Report:
    """Look which chunks of a list are here; `sha256` names the list, `now` is in seconds since the epoch.

    Raises:
        DataDirectoryError: the data directory cannot be read.
    """
    layout = client.layout
    paths = {place.chunk_id: layout.path(place) for place in client.available_places()}
    failed = _failed(layout)
    missing, failing, size_bytes = [], [], 0
    for chunk in wanted:
        manifest = read_manifest(path) if (path := paths.pop(chunk.id, None)) is not None else None
        size_bytes += manifest.size_bytes if manifest is not None else 0
        if manifest is None or not manifest.satisfies(chunk):
            missing.append(chunk.id)
        if chunk.id in failed:
            failing.append(chunk.id)
    size_bytes += sum(manifest.size_bytes for manifest in map(read_manifest, paths.values()) if manifest is not None)
    return Report(
        at=now,
        applied=sha256,
        missing=tuple(missing),
        extra=tuple(sorted(paths)),
        bytes=size_bytes,
        braked=exists(layout.brake),
        failing=tuple(failing),
    )


def _failed(layout: Layout) -> set[str]:
    try:
        return set(filter(is_id, os.listdir(layout.failed)))
    except OSError as e:
        raise unreadable(layout, e) from e


def name_of(layout: Layout, given: str | None) -> str:
    """Return the name of this node: what `node-id` says, or the one that is given first, which is then kept there.

    Raises:
        InvalidInputError: it is the directory of another node, has no name yet, or that is none.
        DataDirectoryError: it cannot be read, or written.
    """
    try:
        found = read_regular(layout.node_id, NODE_ID_MAX_BYTES)
        kept = None if found is None else found[1].decode(errors="replace").strip()
        if kept is None and given is not None:
            FileSystem().write(layout.node_id, f"{_checked(given)}\n".encode(), durable=True)
            return given
    except OSError as e:
        hint = "check who may write there"
        raise DataDirectoryError(f"{layout.node_id}: {e.strerror}", hint=hint) from e
    if kept is None:
        raise InvalidInputError("this node has no name yet", field="--name", hint="give it one: --name a1")
    if given not in {None, kept}:
        hint = f"leave it out; to give the directory to another node, remove {layout.node_id}"
        raise InvalidInputError(f"this directory is that of {kept!r:.140}", field="--name", hint=hint)
    return _checked(kept)


def _checked(name: str) -> str:
    if not re.fullmatch(NAME, name):
        hint = "up to 128 letters, digits, dots, dashes and underscores, and neither of the last three at its beginning"
        raise InvalidInputError(f"{name!r:.140} is no name of a node", field="--name", hint=hint)
    return name
