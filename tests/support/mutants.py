"""Known faults, to be put in on purpose: each replaces a function of the package."""

import os
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import fsdm.store.marker_removal
from fsdm.model.documents import DataChunk, FileEntry, Manifest
from fsdm.model.layout import READY, Layout
from fsdm.model.state import Marker
from fsdm.store import markers
from fsdm.store.filesystem import FileSystem

Mutant = Callable[[pytest.MonkeyPatch], None]


def replaced(where: str, by: Any) -> Mutant:
    """Have `by` in place of the function of this name."""
    return lambda put: put.setattr(f"fsdm.{where}", by)


def around(where: str, by: Callable[..., Any]) -> Mutant:
    """Have `by` called in place of the function of this name, with that function before its arguments."""

    def put_in(put: pytest.MonkeyPatch) -> None:
        original = pkgutil.resolve_name(f"fsdm.{where}")
        put.setattr(f"fsdm.{where}", lambda *rest, **named: by(original, *rest, **named))

    return put_in


def rename_and_unlink(fs: FileSystem, path: str) -> bool:
    directory, name = os.path.split(path)
    aside = f"{directory}/{fsdm.store.marker_removal.ASIDE}0_0_0_{name}"
    try:
        fs.rename(path, aside)
    except FileNotFoundError:
        return False
    fs.unlink(aside)
    return True


def judged_in_place(
    layout: Layout, fs: FileSystem, path: str, judged: Marker, winner: tuple[str, Marker] | None
) -> bool:
    """Look at a marker once more before it is removed, but not once it is out of others' reach."""
    with markers.intents_lock(layout, 0.0):
        if winner is not None and not winner[1].same_as(markers.look_at(winner[0])):
            return False
        return judged.same_as(markers.look_at(path)) and rename_and_unlink(fs, path)


def ready_first(fetch_chunk: Any, chunk: DataChunk, directory: str, *rest: Any, **named: Any) -> Manifest:
    """Write READY from the want, and the files after it."""
    entries = {
        name: FileEntry(size=file.size, sha256=file.sha256, blake3=file.sha256) for name, file in chunk.files.items()
    }
    FileSystem().mkdir(directory)
    FileSystem().write(f"{directory}/{READY}", Manifest.of(chunk, entries).to_json(), durable=False)
    made: Manifest = fetch_chunk(chunk, directory, *rest, **named)
    return made


def ready_before_the_files(put: pytest.MonkeyPatch) -> None:
    """READY comes first, and the files are not looked at."""
    around("reconcile.apply.fetch_chunk", ready_first)(put)
    replaced("reconcile.apply.missing", lambda *_: None)(put)


marker_not_judged_aside = replaced("reconcile.apply.remove_marker", judged_in_place)
asides_left = replaced("reconcile.reconciler.finish_removals", lambda layout, fs: None)
