"""Known faults, to be put in on purpose."""

import os
from collections.abc import Callable
from typing import Any

import pytest

import fsdm.verify.manifest_check
from fsdm.model.documents import DataChunk, FileEntry, Manifest
from fsdm.model.layout import READY, Layout
from fsdm.model.state import Marker
from fsdm.store.filesystem import FileSystem

Mutant = Callable[[pytest.MonkeyPatch], None]


def rename_and_unlink(fs: FileSystem, path: str) -> bool:
    directory, name = os.path.split(path)
    try:
        fs.rename(path, f"{directory}/{fsdm.store.marker_removal.ASIDE}0_0_0_{name}")
    except FileNotFoundError:
        return False
    fs.unlink(f"{directory}/{fsdm.store.marker_removal.ASIDE}0_0_0_{name}")
    return True


def marker_not_judged_aside(put: pytest.MonkeyPatch) -> None:
    """A marker is looked at once more before it is removed, but not once it is out of others' reach."""

    def remove(layout: Layout, fs: FileSystem, path: str, judged: Marker, winner: tuple[str, Marker] | None) -> bool:
        with fsdm.store.markers.intents_lock(layout, 0.0):
            if winner is not None and not winner[1].same_as(fsdm.store.markers.look_at(winner[0])):
                return False
            if not judged.same_as(fsdm.store.markers.look_at(path)):
                return False
            return rename_and_unlink(fs, path)

    put.setattr(fsdm.reconcile.apply, "remove_marker", remove)


def asides_left(put: pytest.MonkeyPatch) -> None:
    """A start does not care for the markers that a crash left aside."""
    put.setattr(fsdm.reconcile.reconciler, "finish_removals", lambda layout, fs: None)


def ready_before_the_files(put: pytest.MonkeyPatch) -> None:
    """READY is written first, from the want, and the files after it, without a look at them."""
    fetch_chunk = fsdm.reconcile.apply.fetch_chunk

    def ready_first(chunk: DataChunk, directory: str, *rest: Any, **named: Any) -> Manifest:
        entries = {
            name: FileEntry(size=file.size, sha256=file.sha256, blake3=file.sha256)
            for name, file in chunk.files.items()
        }
        FileSystem().mkdir(directory)
        FileSystem().write(f"{directory}/{READY}", Manifest.of(chunk, entries).to_json(), durable=False)
        return fetch_chunk(chunk, directory, *rest, **named)

    put.setattr(fsdm.reconcile.apply, "fetch_chunk", ready_first)
    put.setattr(fsdm.reconcile.apply, "missing", lambda *_: None)
