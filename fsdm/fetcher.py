"""One file from its source, over HTTP(S), checked: status, length, and the size and digests that the want gives.

requests is the HTTP layer: TLS is verified; redirects, proxies and netrc are as requests has them. There is no total
timeout, only one for the connection and one for silence. What an error says never shows the secrets of a URL.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fsdm.body import pour
from fsdm.errors import TransferError
from fsdm.session import Sessions, shown
from fsdm.sink import open_sink

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

    from fsdm.fs import FileSystem
    from fsdm.model import FileEntry, FileSource
    from fsdm.sink import Sink
    from fsdm.stop import Stop

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
TRANSIENT_STATUS: Final = frozenset({408, 425, 429})  # and 5xx (RFC 9110 §15.6)


class HttpFetcher:
    """Files over HTTP(S), by requests: TLS is verified, redirects, proxies and netrc are as requests has them."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        durable: bool = True,
    ) -> None:
        self._durable = durable
        self._idle_timeout_s = idle_timeout_s
        self._sessions = Sessions(connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s)

    def fetch(self, source: FileSource, path: str, fs: FileSystem, stop: Stop) -> FileEntry:
        """See `Fetcher.fetch`."""
        with self._sessions.get(source.url, {}, stop) as answer:
            _check_head(source, answer)
            fs.step("create", path)
            sink = open_sink(path, sha256=source.sha256 is not None, writeback=self._durable)
            try:
                sink.expect(_length(answer))
                _receive(source, answer, sink, stop, self._idle_timeout_s)
                entry = sink.entry()
                _check_digests(source, entry)
                if self._durable:
                    fs.fsync_file(sink.fd, path)
            finally:
                os.close(sink.fd)
        return entry


def _length(answer: HTTPResponse) -> int | None:
    """The Content-Length, where the head has one that can be taken."""
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and length.isascii() and len(length) < 20 else None


def _check_head(source: FileSource, answer: HTTPResponse) -> None:
    url, status = shown(source.url), answer.status
    if status != 200:
        transient = status in TRANSIENT_STATUS or status >= 500
        hint = "" if transient else "check the URL in the want; `touch want/ID` tries again at once"
        raise TransferError(f"{url}: HTTP {status} {answer.reason}", transient=transient, hint=hint)
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        raise TransferError(f"{url}: the body comes with Content-Encoding {encoding}, unasked", transient=False)
    length = _length(answer)
    if None not in {source.size, length} and length != source.size:
        raise TransferError(f"{url}: {length} bytes are offered, {source.size} are wanted", transient=False)


def _receive(source: FileSource, answer: HTTPResponse, sink: Sink, stop: Stop, idle_timeout_s: float) -> None:
    url = shown(source.url)

    def check() -> None:
        stop.check()
        if source.size is not None and sink.size > source.size:
            raise TransferError(f"{url}: more than the {source.size} bytes that are wanted", transient=False)

    pour(answer, sink, at_most=source.size, idle_timeout_s=idle_timeout_s, check=check)
    check()  # a cut connection may look like the end of a body without a length
    if source.size is not None and sink.size != source.size:
        raise TransferError(f"{url}: {sink.size} bytes came, {source.size} are wanted", transient=True)


def _check_digests(source: FileSource, entry: FileEntry) -> None:
    for name in ("sha256", "blake3"):
        wanted, came = getattr(source, name), getattr(entry, name)
        if wanted is not None and wanted != came:
            raise TransferError(
                f"{shown(source.url)}: the {name} is {came}, wanted is {wanted}",
                transient=False,
                hint="the server has other bytes than the want describes",
            )
