"""What must hold in a data directory after a crash (PROTOCOL.md, "Invariants"), and what must come of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from fsdm.model.errors import FsdmError
from fsdm.model.layout import (
    CACHEDIR_TAG,
    CACHEDIR_TAG_TEXT,
    DATA,
    PARTS,
    READY,
    VERIFIED,
    WANT,
    Layout,
    is_chunk_dir,
    is_hidden,
    is_id,
)
from fsdm.store.flock import EXCLUSIVE, try_flock
from fsdm.store.json_files import read_manifest
from tools.crash.life import LATER_S, Life
from tools.crash.source import SPOILT, VERSIONS, Version

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fsdm.store.refs import ChunkRef

HELD_PASSES: Final = 6


class ViolationError(Exception):
    """What PROTOCOL.md promises does not hold."""


def demand(condition: object, what: str) -> None:
    """Raise ViolationError where it does not hold."""
    if not condition:
        raise ViolationError(what)


def check(layout: Layout, *, mended: bool = False) -> dict[str, Version]:
    """What holds at every instant, before anybody recovers anything; the chunks with READY, by their letters.

    A partial with READY counts as well: it needs only a rename to be available. Until it is `mended`, the one chunk
    that is spoilt in some lives may have other bytes.
    """
    ready: dict[str, Version] = {}
    for directory in Path(layout.chunks).glob("*/*"):
        demand(is_id(directory.parent.name) and is_chunk_dir(directory.name), f"{directory}: whose name is that?")
        if (directory / READY).exists():
            version = _version_of(directory, mended=mended)
            demand((directory.parent.name, directory.name) == version.chunk.place, f"{directory} is {version.name}")
            demand(version.letter not in ready, f"{version.letter} is ready in two places")
            ready[version.letter] = version
    for directory in Path(layout.partial).glob("*"):
        if (directory / READY).exists():
            _version_of(directory, mended=True)
    return ready


def _version_of(directory: Path, *, mended: bool) -> Version:
    """Which version is here: its very bytes, no file more and none less, and a manifest that says so."""
    extra = {entry.name for entry in directory.iterdir()} - {READY, DATA, PARTS, WANT, VERIFIED}
    demand(not extra or not is_chunk_dir(directory.name), f"{directory} has {extra}")
    manifest = read_manifest(str(directory))
    demand(manifest is not None, f"{directory}: READY is no manifest: {(directory / READY).read_bytes()[:80]!r}")
    assert manifest is not None
    if manifest.id == SPOILT.id and not mended:
        return VERSIONS["s1"]
    data = directory / DATA
    files = {entry.name: entry.read_bytes() for entry in data.iterdir()} if data.is_dir() else {}
    said = {name: (entry.size, entry.blake3) for name, entry in manifest.files.items()}
    here = {name: (len(content), blake3(content).hexdigest()) for name, content in files.items()}
    demand(said == here, f"{directory}: READY says {said}, here is {here}")
    for version in VERSIONS.values():
        if version.chunk.place == manifest.place and version.files == files:
            return version
    raise ViolationError(f"{directory} has what no source has ever had: {here}")


def converge(life: Life, refs: Sequence[ChunkRef] = ()) -> dict[str, Version]:
    """Restart, and let it come to rest; what is available then. Refs keep what is theirs until they are closed."""
    try:
        life.start()
    except FsdmError as e:
        raise ViolationError(f"it does not start: {e}") from e
    assert life.reconciler is not None
    life.reconciler.loop.manifest_check.check_all()
    check(life.layout)
    life.verify()
    if refs:
        life.run(HELD_PASSES)
        check(life.layout)
        for ref in refs:
            _check_held(ref)
            ref.close()
    life.wait(LATER_S)
    demand(life.run(), "it does not come to rest")
    if torn(life.layout):  # it is to lie still for a while, before it is told of
        life.wait(LATER_S)
        demand(life.run(), "it does not come to rest")
    _check_rest(life.layout)
    return check(life.layout, mended=True)


def _check_held(ref: ChunkRef) -> None:
    """A ref's directory is where it was, untouched, and nobody else can take it away."""
    files = {entry.name: entry.read_bytes() for entry in ref.path.iterdir()} if ref.path.is_dir() else {}
    known = ref.id == SPOILT.id or any(files == version.files for version in VERSIONS.values())
    demand(known, f"{ref.path} is held, and has changed")
    fd = os.open(ref.path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        demand(not try_flock(fd, EXCLUSIVE), f"{ref.path} is held, and may be claimed")
    finally:
        os.close(fd)


def _check_rest(layout: Layout) -> None:
    """Nothing is left over, but for wants that a power failure has torn: they are told of.

    So is a chunk that was damaged, and whose delete has removed its want before it was lost itself.
    """
    tag = Path(layout.root, CACHEDIR_TAG).read_text()
    demand(tag == CACHEDIR_TAG_TEXT, f"CACHEDIR.TAG says {tag!r}: backup tools would not skip the directory")
    torn_ids = torn(layout)
    for directory in (layout.want, layout.delete, layout.verify, layout.partial, layout.trash, layout.failed):
        for name in os.listdir(directory):
            is_told = directory in {layout.want, layout.failed} and name in torn_ids
            is_told |= f"{directory}/{name}" == layout.failed_of(SPOILT.id) and not _is_here(layout)
            demand(is_told or (is_hidden(name) and not name.startswith(".judged-")), f"{directory}/{name} is left over")
    for chunk_id in torn_ids:
        demand(os.path.exists(layout.failed_of(chunk_id)), f"want/{chunk_id} cannot be read, and nothing says so")
    for chunk in Path(layout.chunks).glob("*/*"):
        demand((chunk / READY).exists(), f"{chunk} has no READY, and stays")
        kept = _content(str(chunk / WANT)) if (chunk / WANT).exists() else b""
        demand(any(kept == version.chunk.to_json() for version in VERSIONS.values()), f"{chunk} has no WANT")


def _is_here(layout: Layout) -> bool:
    return os.path.exists(layout.path(SPOILT.place))


def torn(layout: Layout) -> set[str]:
    """The ids of the wants that cannot be read: no client syncs what it writes."""
    known = {version.chunk.to_json() for version in VERSIONS.values()}
    return {name for name in os.listdir(layout.want) if is_id(name) and _content(f"{layout.want}/{name}") not in known}


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def judge(letter: str, came: Version | None, allowed: Collection[str | None]) -> None:
    """What came of a chunk must be what one of these intents asks for."""
    name = None if came is None else came.name
    demand(name in allowed, f"chunk {letter} is {name}, and should be {' or '.join(map(str, allowed))}")
