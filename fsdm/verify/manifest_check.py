"""Comparing chunks with their manifests by names and sizes, not by digests.

Each chunk is held by a ref while it is looked at, so that a delete does not look like damage.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.model.layout import DATA, READY, Layout, Place
from fsdm.store.digests import with_digests
from fsdm.store.filesystem import exists, is_directory
from fsdm.store.json_files import read_manifest
from fsdm.store.refs import Refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.model.documents import DataChunk, Manifest
    from fsdm.store.catalog import Catalog

EVERY_S: Final = 3600.0
REST: Final = 4.0  # so many times as long as a look took, it rests

logger = Log(__name__)


def damage(layout: Layout, place: Place) -> str | None:
    """Say why the chunk at `place` is not what its READY says; None where it agrees."""
    path = layout.path(place)
    manifest = read_manifest(path)
    if manifest is None:
        return "READY is not a manifest"
    if manifest.place != place:
        return f"READY speaks of {manifest.place.dataset_id}/{manifest.place.name}"
    return missing(path, manifest)


def missing(path: str, manifest: Manifest) -> str | None:
    """Say what of a manifest is not in the directory at `path`; None where all is."""
    if not is_directory(f"{path}/{DATA}"):
        return f"{DATA}/ is missing, or is no directory"
    for name, entry in manifest.files.items():
        try:
            found = os.lstat(f"{path}/{DATA}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return f"{DATA}/{name} is missing"
        if not stat.S_ISREG(found.st_mode):
            return f"{DATA}/{name} is not a file"
        if found.st_size != entry.size:
            return f"{DATA}/{name} has {found.st_size} bytes, READY says {entry.size}"
    return None


def satisfies(path: str, place: Place, chunk: DataChunk) -> bool:
    """Tell whether the chunk in this directory has the files that are wanted, or registered."""
    manifest = read_manifest(path)
    return (
        manifest is not None
        and manifest.place == place
        and missing(path, manifest) is None
        and with_digests(manifest, chunk, path).satisfies(chunk)
    )


class ManifestCheck:
    """The walk over all of `chunks/`, at the start and slowly from then on, in its own thread.

    `wake` is called for damage, of which `suspects` yields; `notify(id)` where READY is missing.
    """

    def __init__(
        self, layout: Layout, catalog: Catalog, *, wake: Callable[[], None], notify: Callable[[str], None]
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._wake = wake
        self._notify = notify
        self._refs = Refs(layout)
        self._suspects: deque[Place] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fsdm-manifest-check", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def suspects(self) -> Iterator[Place]:
        """Yield the chunks that were found damaged since the last call."""
        while self._suspects:
            yield self._suspects.popleft()

    def check_all(self) -> None:
        """Look at every chunk now, in this thread."""
        for place in self._catalog.all_places():
            self.check(place)

    def check(self, place: Place) -> None:
        ref = self._refs.take(place)
        if ref is None:
            if self._catalog.is_stray(place) or not exists(f"{self._layout.path(place)}/{READY}"):
                self._notify(place.chunk_id)
            return
        with ref:
            if damage(self._layout, place) is not None:
                self._suspects.append(place)
                self._wake()

    def _run(self) -> None:
        while True:
            for place in self._catalog.all_places():
                began = time.monotonic()
                try:
                    self.check(place)
                except OSError as e:  # one that cannot be read now is looked at in the next round
                    logger.warning("cannot look at %s: %s", self._layout.path(place), e)
                if self._stop.wait((time.monotonic() - began) * REST):
                    return
            if self._stop.wait(EVERY_S):
                return
