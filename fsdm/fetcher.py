"""One file from its sources, over HTTP(S): only what is missing of it, and checked.

A broken connection is followed by another one from where it broke, at once as long as that brings something; an attempt
that ended, a stop, a crash or a reboot is followed so by the next one (see `parts`). Where bytes of several answers do
not have the want's digest, the file is fetched afresh, once, before that is called an error. There is no total timeout,
only one for the connection and one for silence.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fsdm import answer as head
from fsdm.body import pour
from fsdm.errors import TransferError
from fsdm.session import Sessions, shown
from fsdm.transfer import Transfer

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

    from fsdm.fs import FileSystem
    from fsdm.model import FileEntry, FileSource
    from fsdm.parts import Part
    from fsdm.stop import Stop

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
WORTH_BYTES: Final = 64 << 10  # a connection that brought as much before it broke is followed by another one at once


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

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Stop) -> FileEntry:
        """See `Fetcher.fetch`."""
        transfer = Transfer(source, part, fs, durable=self._durable)
        try:
            if not transfer.take_over(stop.check):
                self._from_any(transfer, stop)
            return transfer.finish()
        finally:
            transfer.close()

    def _from_any(self, transfer: Transfer, stop: Stop) -> None:
        """From the first source that has it."""
        errors = []
        for url in transfer.source.urls:
            try:
                self._from(url, transfer, stop)
            except TransferError as e:
                errors.append(e)
            else:
                return
        raise _of_all(errors)

    def _from(self, url: str, transfer: Transfer, stop: Stop) -> None:
        """The whole file from one source, with the digest that is wanted."""
        self._ask_until_whole(url, transfer, stop)
        if transfer.joined and transfer.mismatch() is not None:
            transfer.restart()
            self._ask_until_whole(url, transfer, stop)
        wrong = transfer.mismatch()
        if wrong is not None:
            transfer.restart()  # another source's copy is another one
            raise TransferError(
                f"{shown(url)}: {wrong}", transient=False, hint="the server has other bytes than the want describes"
            )

    def _ask_until_whole(self, url: str, transfer: Transfer, stop: Stop) -> None:
        furthest = transfer.size
        while True:
            try:
                if self._ask(url, transfer, stop):
                    return
            except TransferError as e:
                if not e.transient or transfer.size < furthest + WORTH_BYTES:
                    raise
            furthest = max(furthest, transfer.size)  # one that always begins afresh comes to an end

    def _ask(self, url: str, transfer: Transfer, stop: Stop) -> bool:
        """Ask for what is missing, and take it; False where the file is to be asked for afresh."""
        headers = transfer.range_headers(url)
        with self._sessions.get(url, headers, stop) as answer:
            _check_status(url, answer, ranged=bool(headers))
            sink = transfer.accept(url, answer, ranged=bool(headers))
            if sink is None:
                return False

            def check() -> None:
                stop.check()
                transfer.moved(url)

            pour(answer, sink, at_most=transfer.source.size, idle_timeout_s=self._idle_timeout_s, check=check)
            check()  # a cut connection may look like the end of a body without a length
        transfer.see_that_all_came(url)
        return True


def _check_status(url: str, answer: HTTPResponse, *, ranged: bool) -> None:
    status, headers = answer.status, answer.headers
    if status not in {200, 206} and not (ranged and status == 416):
        transient = head.is_transient(status)
        raise TransferError(
            f"{shown(url)}: HTTP {status} {answer.reason}",
            transient=transient,
            hint="" if transient else "check the URL in the want; `touch want/ID` tries again at once",
            retry_after_s=head.retry_after_s(headers, time.time()) if transient else None,
        )
    encoding = headers.get("Content-Encoding", "identity")
    if status != 416 and encoding.strip().lower() not in {"", "identity"}:
        raise TransferError(f"{shown(url)}: the body comes with Content-Encoding {encoding}, unasked", transient=False)


def _of_all(errors: list[TransferError]) -> TransferError:
    """One error for those of all sources: it may pass where one of them may."""
    if len(errors) == 1:
        return errors[0]
    waits = [e.retry_after_s for e in errors if e.transient]
    return TransferError(
        "; ".join(map(str, errors)),
        transient=any(e.transient for e in errors),
        hint=next((e.hint for e in errors if e.hint), ""),
        retry_after_s=None if None in waits else min((s for s in waits if s is not None), default=None),
    )
