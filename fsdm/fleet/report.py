"""The report of a worker: which of the chunks of its list are here, as READY says it.

Invariant: no chunk is told to be here that is not available with the files of the list. Nodes need no more than this of
a fleet: nothing heavy is imported here.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from pydantic import Field, FiniteFloat

from fsdm.model.documents import Digest, Document, Id
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.follow import NODE_NAME
from fsdm.model.layout import READY, is_id
from fsdm.store.data_dir import unreadable
from fsdm.store.filesystem import FileSystem, exists, read_regular
from fsdm.store.followed import HELD, path_of
from fsdm.store.json_files import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.client import Client
    from fsdm.model.documents import DataChunk
    from fsdm.model.layout import Layout

NODE_ID_MAX_BYTES: Final = 1024

Stamp = tuple[int, int, int]  # inode, ctime in ns, size: tells a READY from another one
Name = Annotated[str, Field(pattern=NODE_NAME)]
Count = Annotated[int, Field(ge=0, strict=True)]


class Report(Document):
    """The report of a worker: `at` (seconds since the epoch) it holds its list, but for what is `missing`.

    `applied` is the sha256 of that list, as the pointer names it; None where it has applied none. `extra`: the chunks
    that it holds besides. `bytes` on its disk; `braked`: deletes or a list are held back; `failing`: the chunks that
    cannot be fetched. `zone` and `capacity` (in bytes) are what the node says of itself, where it does.
    """

    at: FiniteFloat
    applied: Digest | None = None
    missing: tuple[Id, ...] = ()
    extra: tuple[Id, ...] = ()
    bytes: Count = 0
    braked: Annotated[bool, Field(strict=True)] = False
    failing: tuple[Id, ...] = ()
    zone: str | None = None
    capacity: Count | None = None


class Listed(Protocol):
    """The chunks of a list, by id."""

    def ids(self) -> Iterator[str]: ...

    def chunk(self, chunk_id: str) -> DataChunk: ...


class Reporter:
    """Reports of one data directory. A chunk whose READY was compared with the same list is not read again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sha256 = ""
        self._seen: dict[str, tuple[Stamp, int, bool]] = {}  # by id: which READY, its bytes, whether it is as listed

    def report(self, wanted: Listed, sha256: str, now: float) -> Report:
        """Look which chunks of a list are here; `sha256` names the list, `now` is in seconds since the epoch.

        Raises:
            DataDirectoryError: the data directory cannot be read.
        """
        layout = self._client.layout
        paths = {place.chunk_id: layout.path(place) for place in self._client.available_places()}
        before, self._seen, failed = self._seen if sha256 == self._sha256 else {}, {}, _failed(layout)
        self._sha256 = sha256
        missing, failing = [], []
        for chunk_id in wanted.ids():
            path = paths.pop(chunk_id, None)
            if path is None or not self._is_as_listed(path, chunk_id, wanted, before):
                missing.append(chunk_id)
            if chunk_id in failed:
                failing.append(chunk_id)
        for chunk_id, path in paths.items():
            self._is_as_listed(path, chunk_id, None, before)
        return Report(
            at=now,
            applied=sha256,
            missing=tuple(missing),
            extra=tuple(sorted(paths)),
            bytes=sum(size_bytes for _, size_bytes, _ in self._seen.values()),
            braked=exists(layout.brake) or exists(path_of(layout, HELD)),
            failing=tuple(failing),
        )

    def _is_as_listed(
        self, path: str, chunk_id: str, wanted: Listed | None, before: dict[str, tuple[Stamp, int, bool]]
    ) -> bool:
        stamp, known = _stamp(f"{path}/{READY}"), before.get(chunk_id)
        if stamp is None:
            return False
        if known is None or known[0] != stamp:
            manifest = read_manifest(path)
            if manifest is None:
                return False
            known = stamp, manifest.size_bytes, wanted is not None and manifest.satisfies(wanted.chunk(chunk_id))
        self._seen[chunk_id] = known
        return known[2]


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size


def _failed(layout: Layout) -> set[str]:
    try:
        return set(filter(is_id, os.listdir(layout.failed)))
    except OSError as e:
        raise unreadable(layout, e) from e


def name_of(layout: Layout, given: str | None, *, make: bool = False) -> str:
    """Return the name of this node: what `node-id` says, or the one that is given first, which is then kept there.

    `make`: one is made where there is none. Of several processes that come first at once all get the same.

    Raises:
        InvalidInputError: it is the directory of another node, has no name yet, or that is none.
        DataDirectoryError: it cannot be read, or written.
    """
    try:
        kept = _kept(layout)
        if kept is None and (given is not None or make):
            _keep(layout, _checked(_made() if given is None else given))
            kept = _kept(layout)
    except OSError as e:
        hint = "check who may write there"
        raise DataDirectoryError(f"{layout.node_id}: {e.strerror}", hint=hint) from e
    if kept is None:
        raise InvalidInputError("this node has no name yet", field="--name", hint="give it one: --name a1")
    if given not in {None, kept}:
        hint = f"leave it out; to give the directory to another node, remove {layout.node_id}"
        raise InvalidInputError(f"this directory is that of {kept!r:.140}", field="--name", hint=hint)
    return _checked(kept)


def _kept(layout: Layout) -> str | None:
    found = read_regular(layout.node_id, NODE_ID_MAX_BYTES)
    return None if found is None else found[1].decode(errors="replace").strip()


def _keep(layout: Layout, name: str) -> None:
    """Write the name, unless another process has."""
    fs, temporary = FileSystem(), f"{layout.node_id}.{secrets.token_hex(4)}"
    fs.write(temporary, f"{name}\n".encode(), durable=True)
    try:
        with suppress(FileExistsError):
            os.link(temporary, layout.node_id)
    finally:
        fs.unlink(temporary)
    fs.fsync_dir(layout.root)


def _made() -> str:
    """Make a name that no other node has, and that tells people where it is."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0]).strip("-")[:64]
    return f"{host or 'node'}-{secrets.token_hex(4)}"


def _checked(name: str) -> str:
    if not re.fullmatch(NODE_NAME, name):
        hint = "up to 128 letters, digits, dots, dashes and underscores, and neither of the last three at its beginning"
        raise InvalidInputError(f"{name!r:.140} is no name of a node", field="--name", hint=hint)
    return name
