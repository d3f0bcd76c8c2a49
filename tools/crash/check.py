"""Checks of a data directory after a crash, and after recovery (PROTOCOL.md, "Invariants")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from fsdm.model.errors import FsdmError
from fsdm.model.layout import (
    CACHED,
    CACHEDIR_TAG,
    CACHEDIR_TAG_TEXT,
    DATA,
    INDEX,
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
from tools.crash.indexing import wrong_look_ups
from tools.crash.life import LATER_S, Life
from tools.crash.source import SPOILT, VERSIONS
from tools.support.versions import files_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fsdm.store.refs import ChunkRef
    from tools.support.versions import Version

HELD_PASSES: Final = 6
WANTS: Final = {version.chunk.to_json() for version in VERSIONS.values()}


class ViolationError(Exception):
    """A promise of PROTOCOL.md is broken."""


def demand(condition: object, what: str) -> None:
    """Raise ViolationError where a condition does not hold."""
    if not condition:
        raise ViolationError(what)


def check(layout: Layout, *, mended: bool = False) -> dict[str, Version]:
    """Check what holds at every instant; return the chunks with READY, by their letters.

    A partial with READY counts as well: it needs only a rename to be available. Until it is `mended`, the one chunk
    that is spoilt in some lives may have other bytes.
    """
    ready: dict[str, Version] = {}
    for directory in Path(layout.chunks).glob("*/*"):
        demand(
            is_id(directory.parent.name) and is_chunk_dir(directory.name),
            f"{directory} does not have the name of a chunk",
        )
        if (directory / READY).exists():
            version = _version_of(directory, mended=mended)
            demand((directory.parent.name, directory.name) == version.chunk.place, f"{directory} is {version.name}")
            demand(version.name[0] not in ready, f"{version.name[0]} is ready in two places")
            ready[version.name[0]] = version
    for directory in Path(layout.partial).glob("*"):
        if (directory / READY).exists():
            _version_of(directory, mended=True)
    return ready


def _version_of(directory: Path, *, mended: bool) -> Version:
    """Find the version that is here: its very bytes, no file more, and a manifest that says so."""
    extra = {entry.name for entry in directory.iterdir()} - {READY, DATA, PARTS, WANT, VERIFIED, CACHED, INDEX}
    demand(not extra or not is_chunk_dir(directory.name), f"{directory} has {extra}")
    manifest = read_manifest(str(directory))
    demand(manifest is not None, f"{directory}: READY is no manifest: {(directory / READY).read_bytes()[:80]!r}")
    assert manifest is not None
    if manifest.id == SPOILT.id and not mended:
        return VERSIONS["s1"]
    files = files_in(directory / DATA)
    said = {name: (entry.size, entry.blake3) for name, entry in manifest.files.items()}
    here = {name: (len(content), blake3(content).hexdigest()) for name, content in files.items()}
    demand(said == here, f"{directory}: READY says {said}, here is {here}")
    for version in VERSIONS.values():
        if version.chunk.place == manifest.place and version.files == files:
            return version
    raise ViolationError(f"{directory} has what no source has ever had: {here}")


def converge(life: Life, refs: Sequence[ChunkRef] = ()) -> dict[str, Version]:
    """Restart and let all come to rest; return what is available. Refs keep theirs until closed."""
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
    demand(life.run(after_s=LATER_S), "it does not come to rest")
    # what is torn is to lie still for a while, before it is judged; an acquire stands for a minute after its chunk came
    for _ in range(2):  # a registration, and then the want that it would overrule
        if torn(life.layout) or os.listdir(life.layout.acquire) or set(files_in(life.layout.known).values()) - WANTS:
            demand(life.run(after_s=LATER_S), "it does not come to rest")
    _check_rest(life.layout)
    ready = check(life.layout, mended=True)
    if life.indexes:
        life.index()
        check_look_ups(life.layout, ready, set(ready))
        _check_rest(life.layout)
    return ready


def check_look_ups(layout: Layout, ready: Mapping[str, Version], found_at_least: set[str]) -> None:
    """Check that keys are found in no chunk without them, and in all those of these letters that hold them."""
    wrong = wrong_look_ups(layout, ready, found_at_least)
    demand(not wrong, "; ".join(wrong[:3]))


def _check_held(ref: ChunkRef) -> None:
    """Check that a ref's directory is where it was, untouched, and cannot be claimed."""
    files = files_in(ref.path)
    known = ref.id == SPOILT.id or any(files == version.files for version in VERSIONS.values())
    demand(known, f"{ref.path} is held, and has changed")
    fd = os.open(ref.path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        demand(not try_flock(fd, EXCLUSIVE), f"{ref.path} is held, and may be claimed")
    finally:
        os.close(fd)


def _check_rest(layout: Layout) -> None:
    """Check that nothing is left but wants that a power failure has torn, with their failure.

    So is a chunk that was damaged, and whose delete has removed its want before it was lost itself.
    """
    tag = Path(layout.root, CACHEDIR_TAG).read_text()
    demand(tag == CACHEDIR_TAG_TEXT, f"CACHEDIR.TAG says {tag!r}: backup tools would not skip the directory")
    torn_ids, spoilt_is_here = torn(layout), os.path.exists(layout.path(SPOILT.place))
    requests = (layout.verify, layout.acquire, layout.evict)
    for directory in (layout.want, layout.delete, *requests, layout.partial, layout.trash, layout.failed):
        for name in os.listdir(directory):
            is_told = directory in {layout.want, layout.acquire, layout.failed} and name in torn_ids
            is_told |= f"{directory}/{name}" == layout.failed_of(SPOILT.id) and not spoilt_is_here
            demand(is_told or (is_hidden(name) and not name.startswith(".judged-")), f"{directory}/{name} is left over")
    for chunk_id in torn_ids:
        demand(os.path.exists(layout.failed_of(chunk_id)), f"want/{chunk_id} cannot be read, and nothing says so")
    for chunk in Path(layout.chunks).glob("*/*"):
        demand((chunk / READY).exists(), f"{chunk} has no READY, and stays")
        demand((chunk / WANT).exists() and (chunk / WANT).read_bytes() in WANTS, f"{chunk} has no WANT")


def torn(layout: Layout) -> set[str]:
    """Return the ids whose want, or asked for registration, cannot be read: no client syncs what it writes."""
    texts = list(files_in(layout.want).items())
    texts += [(name, text) for name, text in files_in(layout.known).items() if name in os.listdir(layout.acquire)]
    return {name for name, text in texts if is_id(name) and text not in WANTS}


def judge(letter: str, came: Version | None, allowed: Collection[str | None]) -> None:
    """Check that what came of a chunk is what one of these intents asks for."""
    name = None if came is None else came.name
    demand(name in allowed, f"chunk {letter} is {name}, and should be {' or '.join(map(str, allowed))}")
