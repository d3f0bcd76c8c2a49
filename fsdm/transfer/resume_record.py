"""The record of an unfinished download, for the next attempt: `partial/ID/PARTS`.

A record says which version of a file the bytes in `data/NAME` are of (by a validator, at one URL), how many it has in
all, and a BLAKE3 of the first so many. It is written before the first byte of a version, so bytes never stand under the
record of another one; then now and then, and where an attempt ends. Nothing of it is fsynced. What came in pieces has
extents behind a hole, each with a BLAKE3 of its own. Invariant: bytes are taken over only where their record is of the
same boot (then the page cache has what was written) and knows of no hole, or where a digest proves them: the record's,
or the want's. A record that is lost or cannot be read costs a transfer, never a wrong byte.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import PARTS, WANT_MAX_BYTES
from fsdm.model.parts import PartRecord, PartsDocument
from fsdm.model.source_policy import SCHEMES
from fsdm.store.filesystem import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsdm.model.parts import Extent
    from fsdm.store.filesystem import FileSystem

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


@dataclass(slots=True)
class Part:
    """One file on its way: where it is written, and what is known of the bytes that are there.

    `same_boot` tells whether the record was written since the machine has started.
    """

    path: str
    record: PartRecord | None = None
    same_boot: bool = False
    save: Callable[[], None] = field(default=lambda: None)

    def begin(self, record: PartRecord, *, lasting: bool) -> None:
        """Begin another version, of which no byte is there; `lasting`: it is worth a record."""
        known, self.record, self.same_boot = self.record, record, True
        if lasting or known is not None:
            self.save()

    def doubt(self) -> None:
        """Forget the validator: bytes of another version may come, and only a digest tells."""
        if self.record is not None and self.record.validator is not None:
            self.record = replace(self.record, validator=None)
            self.save()

    def reach(
        self, size: int, digest: str, extents: tuple[Extent, ...], *, complete: bool, holes: bool, save: bool
    ) -> None:
        """The first `size` bytes are there, and have this BLAKE3; `complete`: that is all of it."""
        if self.record is not None:
            complete = complete or (self.record.complete and self.record.size == size)
            self.record = replace(
                self.record, size=size, blake3=digest, extents=extents, complete=complete, holes=holes
            )
            if save:
                self.save()


class Parts:
    """The parts of one chunk, in `directory`; used by the threads that fetch its files."""

    def __init__(self, directory: str, names: Iterable[str], fs: FileSystem) -> None:
        self._path = f"{directory}/{PARTS}"
        self._fs = fs
        self._mutex = threading.Lock()
        document = _read(self._path)
        same_boot = document is not None and document.boot_id is not None and document.boot_id == boot_id()
        self._parts = {name: Part(f"{directory}/data/{name}", None, same_boot, self.save) for name in names}
        for name, record in document.files.items() if document is not None else ():
            if name in self._parts:
                self._parts[name].record = record

    def of(self, name: str) -> Part:
        """The part of one file."""
        return self._parts[name]

    def save(self) -> None:
        """Write down what is known now; not fsynced."""
        with self._mutex:
            records = {name: part.record for name, part in self._parts.items() if part.record is not None}
            document = PartsDocument(boot_id=boot_id(), files=records)
            self._fs.write(self._path, document.to_json(), durable=False)


def _read(path: str) -> PartsDocument | None:
    try:
        read = read_regular(path, 16 * WANT_MAX_BYTES)
        return None if read is None else PartsDocument.parse(read[1])
    except (OSError, InvalidInputError):
        return None


def url_mark(url: str) -> str:
    """Return a mark that tells URLs apart in a record: a URL itself may carry secrets."""
    is_http = url.partition(":")[0].lower() in SCHEMES  # a key of another scheme may have a # in it
    return str(blake3((url.partition("#")[0] if is_http else url).encode()).hexdigest())


@cache
def boot_id() -> str | None:
    """Return the id of this boot (proc(5)), where the system says it."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
