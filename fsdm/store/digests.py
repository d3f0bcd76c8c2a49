"""The digests of a file's bytes: BLAKE3 always, sha256 where one is wanted."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Final, Literal

from blake3 import blake3

from fsdm.model.layout import DATA

if TYPE_CHECKING:
    from fsdm.model.documents import DataChunk, FileEntry, Manifest

BUFFER_BYTES: Final = 1 << 20
_threads = threading.local()


class Digests:
    """The digests in hex of the bytes put in so far; `sha256` is None where it is not computed."""

    def __init__(self, *, sha256: bool) -> None:
        self._blake3 = blake3()
        self._sha256 = hashlib.sha256() if sha256 else None

    def update(self, data: bytes | memoryview) -> None:
        self._blake3.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def blake3(self) -> str:
        return self._blake3.hexdigest()

    @property
    def sha256(self) -> str | None:
        return None if self._sha256 is None else self._sha256.hexdigest()

    def difference(self, entry: FileEntry) -> str | None:
        """Say which digest is not the one that READY says; None where all are."""
        for kind, here, said in (("blake3", self.blake3, entry.blake3), ("sha256", self.sha256, entry.sha256)):
            if said is not None and here != said:
                return f"has the {kind} {here}, READY says {said}"
        return None


def digest_of(path: str, name: Literal["blake3", "sha256"]) -> str:
    """Compute one digest of a file, in hex; raise OSError where it is a symlink."""
    digest = blake3() if name == "blake3" else hashlib.sha256()
    buffer = thread_buffer(BUFFER_BYTES)
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def thread_buffer(size: int) -> memoryview:
    """Return so many bytes of this thread's buffer, which is kept for the next time."""
    buffer: memoryview | None = getattr(_threads, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _threads.buffer = memoryview(bytearray(size))
    return buffer[:size]


def with_digests(manifest: Manifest, chunk: DataChunk, path: str) -> Manifest:
    """Add the sha256 of the files for which this want gives one, and the earlier did not."""
    entries = dict(manifest.files)
    for name in entries.keys() & chunk.files.keys():
        if chunk.files[name].sha256 is not None and entries[name].sha256 is None:
            sha256 = digest_of(f"{path}/{DATA}/{name}", "sha256")
            entries[name] = entries[name].model_copy(update={"sha256": sha256})
    return manifest.model_copy(update={"files": entries})
