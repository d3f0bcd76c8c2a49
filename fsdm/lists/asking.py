"""Asking for the list of a node: a list at a URL or in a file, or the one that the pointer of a fleet names.

A pointer is what `fsdm place` publishes (`placement.json`): it names the list of each node by its sha256, and the lists
stand beside it. Invariant: a list that a pointer names is taken only where its text has that sha256.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from fsdm.lists.fetching import Answer, Version, checked_url, sha256_of
from fsdm.model.errors import InvalidInputError, TransferError
from fsdm.transfer.http.target import shown
from fsdm.transfer.schemes.local import read_path

if TYPE_CHECKING:
    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.lists.fetching import Fetching

POINTER: Final = "placement.json"
POINTER_MAX_BYTES: Final = 1 << 28
KEEPS: Final = "what is here stays as it is, until there is one"


class Asking:
    """Asks for the list of a node that has this name; used by one thread."""

    def __init__(self, where: str, node: str | None, fetching: Fetching) -> None:
        if where.lower().startswith("file://"):
            where = read_path(where)
        self._is_file = "://" not in where
        self._where = os.path.abspath(where) if self._is_file else checked_url(where)
        self._node = node
        self._fetching = fetching
        path = where if self._is_file else urlsplit(where).path
        self.is_pointer = path.rpartition("/")[2] == POINTER
        if self.is_pointer and node is None:
            raise InvalidInputError("a placement has a list for each node", hint="say which this is: --node-id a1")

    @property
    def shown(self) -> str:
        """The URL that is asked, without its secrets."""
        return self._where if self._is_file else shown(self._where)

    def ask(self, into: IO[bytes], known: Version | None, applied: str | None, stop: Cancellation) -> Answer | None:
        """Write the list into a file; None where it is the version that is known, or the list that is applied.

        Raises:
            TransferError, InvalidInputError: it could not be had, or is not whole.
            StoppedError: `stop` was set.
        """
        if not self.is_pointer:
            return self._read(self._where, into, known, stop)
        with tempfile.TemporaryFile(prefix="fsdm-follow-") as file:
            answer = self._read(self._where, file, known, stop)
            if answer is None:
                return None
            sha256 = self._list_of(file)
        if sha256 == applied:
            return Answer(answer.version, "", tells_its_end=True, is_applied=True)
        name = f"lists/{sha256}.jsonl.gz"
        beside = os.path.join(os.path.dirname(self._where), name) if self._is_file else urljoin(self._where, name)
        found = self._read(beside, into, None, stop)
        if found is None or _sha256_of_text(into) != sha256:
            raise TransferError(f"{self.shown}: {name} has another text than its name says", transient=True)
        return Answer(answer.version, found.sha256, found.tells_its_end)

    def _list_of(self, file: IO[bytes]) -> str:
        try:
            lists = json.loads(file.read(POINTER_MAX_BYTES))["lists"]
            found = None if self._node not in lists else str(lists[self._node]["sha256"])
        except (ValueError, TypeError, KeyError, RecursionError) as e:
            raise InvalidInputError(f"{self.shown} is no placement", hint=KEEPS) from e
        if found is None:
            raise InvalidInputError(f"{self.shown} has no list for {self._node}", hint=KEEPS)
        if len(found) != 64 or not found.isalnum():
            raise InvalidInputError(f"{self.shown} is no placement", hint=KEEPS)
        return found

    def _read(self, where: str, into: IO[bytes], known: Version | None, stop: Cancellation) -> Answer | None:
        if not self._is_file:
            return self._fetching.fetch(where, into, known, stop)
        try:
            with open(where, "rb") as file:
                found = os.fstat(file.fileno())
                version = Version(etag=f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}")
                if version == known:
                    return None
                shutil.copyfileobj(file, into)
        except OSError as e:
            raise InvalidInputError(f"{where} cannot be read: {e.strerror}", hint=KEEPS) from e
        return Answer(version, sha256_of(into), tells_its_end=True)


def _sha256_of_text(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as text:
            return hashlib.file_digest(text, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""
    finally:
        file.seek(0)
