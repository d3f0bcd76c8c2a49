"""A shelf in an object store (S3, and what speaks as it does), by requests that libcurl signs, as the sources do.

Replacing is a conditional PUT: If-None-Match where there was none, If-Match with the ETag of what was read. So the
store itself decides between two that replace at once. What is put is there before what names it: `replace` waits for
all of it. A file counts as there only while it is younger than half of what may be pruned: so none goes that is just
taken.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from fsdm.concurrency.cancellation import Cancellation
from fsdm.fleet.shelf import KEPT_S, meanwhile
from fsdm.model.errors import DataDirectoryError, InvalidInputError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.transfer.host_health import Hosts
from fsdm.transfer.http.engine import Engine
from fsdm.transfer.http.target import Upload
from fsdm.transfer.schemes.aws_credentials import Chain
from fsdm.transfer.schemes.store_engine import StoreEngine
from fsdm.transfer.schemes.stores import STORES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from fsdm.transfer.file_range import FileRange
    from fsdm.transfer.http.exchange import Begin, Body
    from fsdm.transfer.http.head import Head
    from fsdm.transfer.http.source_settings import Sources

SCHEME: Final = "s3://"
AT_ONCE: Final = 16
WAITING_MAX: Final = 64  # files that are in memory until they have been put
TIMEOUTS_S: Final = (10.0, 30.0)  # for a connection, and of silence
PROBE: Final = "conditions"
TAKEN: Final = frozenset({409, 412})  # another one was faster, or is writing just now


class ObjectShelf:
    """The files below a URL `s3://BUCKET/PREFIX`; used by one thread."""

    def __init__(self, url: str, sources: Sources) -> None:
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise InvalidInputError(f"{url} names no bucket", field="--to", hint="as in s3://BUCKET/PREFIX")
        self.path = url.rstrip("/")
        self._prefix = prefix.rstrip("/") + "/" * bool(prefix.rstrip("/"))
        engine = Engine(Hosts(), TIMEOUTS_S, Policy(sources=(f"{SCHEME}*",)), sources, "1.1", kept=AT_ONCE)
        self._engine = StoreEngine(STORES["s3"], engine, sources, Chain())
        self._pool = ThreadPoolExecutor(AT_ONCE, "fsdm-shelf")
        self._putting: deque[Future[None]] = deque()
        self._tags: dict[str, str] = {}
        self._listed: dict[str, dict[str, float]] = {}

    def read(self, name: str) -> bytes | None:
        """See `Shelf`."""
        head, data = self._answer(name, partial(self._engine.get, self._url(name), {}))
        if head.status == 404:
            return None
        self._check(name, head, 200)
        self._tags[name] = head.get("etag")
        return data

    def renew(self, name: str) -> bool:
        """See `Shelf`."""
        directory, _, file = name.rpartition("/")
        if directory not in self._listed:
            self._listed[directory] = self._list(directory)
        return self._listed[directory].get(file, 0.0) > time.time() - KEPT_S / 2

    def put(self, name: str, data: bytes) -> None:
        """See `Shelf`; it is there once `replace` has returned."""
        while len(self._putting) >= WAITING_MAX:
            self._putting.popleft().result()
        self._putting.append(self._pool.submit(self._put, name, data))

    def replace(self, name: str, data: bytes, *, instead_of: bytes | None) -> None:
        """See `Shelf`."""
        while self._putting:
            self._putting.popleft().result()
        if instead_of is None:
            self._check_conditions()
        condition = {"If-None-Match": "*"} if instead_of is None else {"If-Match": self._tags[name]}
        head = self._send(name, Upload("PUT", data), condition)
        if head.status in TAKEN or (head.status == 404 and instead_of is not None):
            raise meanwhile(self.path)
        self._check(name, head, 200)

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, in the place of any other; it is there when this returns."""
        self._put(name, data)

    def read_all(self, suffix: str) -> dict[str, bytes]:
        """Return the files that have no slash in their names, and end so."""
        names = [name for name in self._list("") if name.endswith(suffix) and "/" not in name]
        found = zip(names, self._pool.map(self.read, names), strict=True)
        return {name: data for name, data in found if data is not None}

    def prune(self, directory: str, keep: Collection[str], before: float) -> int:
        """See `Shelf`."""
        old = [file for file, at in self._list(directory).items() if file not in keep and at < before]
        for head in self._pool.map(lambda file: self._send(f"{directory}/{file}", Upload("DELETE"), {}), old):
            self._check(directory, head, 200, 204, 404)
        return len(old)

    # ----------------------------------------------------------------------------------------------------- requests

    def _put(self, name: str, data: bytes) -> None:
        self._check(name, self._send(name, Upload("PUT", data), {}), 200)

    def _check_conditions(self) -> None:
        """See that the store keeps to conditions: one that does not would let two placers fight.

        Raises:
            DataDirectoryError: it does not.
        """
        self._put(PROBE, b"")
        head = self._send(PROBE, Upload("PUT", b""), {"If-None-Match": "*"})
        if head.status not in TAKEN:
            what = f"{self.path}: the store does not keep to If-None-Match (HTTP {head.status})"
            hint = "nothing was published: use a store that does, or a directory"
            raise DataDirectoryError(what, hint=hint)

    def _list(self, directory: str) -> dict[str, float]:
        """Return the files of a directory: when each was put there, in seconds since the epoch."""
        prefix, found = f"{self._prefix}{directory}" + "/" * bool(directory), dict[str, float]()
        query = {"list-type": "2"}
        while True:
            asked = {**query, "prefix": prefix}
            head, data = self._answer(directory, partial(self._engine.list, self._url(directory), asked))
            self._check(directory, head, 200)
            try:
                page = ET.fromstring(data)  # noqa: S314 expat expands nothing from elsewhere, and bounds the rest
                for one in page.iterfind("{*}Contents"):
                    at = datetime.fromisoformat(one.findtext("{*}LastModified", ""))
                    found[one.findtext("{*}Key", "").removeprefix(prefix)] = at.timestamp()
            except (ET.ParseError, ValueError) as e:
                raise TransferError(f"{self._url(directory)}: what lists it cannot be read: {e}") from e
            token = page.findtext("{*}NextContinuationToken")
            if page.findtext("{*}IsTruncated") != "true" or not token:
                return found
            query = {"list-type": "2", "continuation-token": token}

    def _send(self, name: str, upload: Upload, headers: Mapping[str, str]) -> Head:
        fields = {"Content-Type": "application/octet-stream", "Expect": "", **headers}
        return self._answer(name, partial(self._engine.send, self._url(name), upload, fields))[0]

    def _answer(self, name: str, ask: Callable[[Cancellation, Begin], None]) -> tuple[Head, bytes]:
        heads: list[Head] = []
        parts: list[bytes] = []

        def take(data: memoryview | FileRange) -> None:
            if isinstance(data, memoryview):
                parts.append(bytes(data))

        def begin(head: Head) -> Body | None:
            heads.append(head)
            return take if head.status == 200 else None

        ask(Cancellation(), begin)
        if not heads:
            raise TransferError(f"{self._url(name)}: there was no answer", transient=True)
        return heads[0], b"".join(parts)

    def _check(self, name: str, head: Head, *expected: int) -> None:
        if head.status not in expected:
            said = f"HTTP {head.status} {head.reason}".rstrip()
            hint = "see that the key may read, write, list and delete there"
            raise TransferError(f"{self._url(name)}: {said}", transient=head.is_transient, hint=hint)

    def _url(self, name: str) -> str:
        return f"{self.path}/{name}"
