"""One file from its sources, over HTTP(S): only what is missing of it, and checked.

A broken connection is followed by another one from where it broke, at once as long as that brings something; an attempt
that ended, a stop, a crash or a reboot is followed so by the next one (see `parts`). Where bytes of several answers do
not have the want's digest, the file is fetched afresh, once, before that is called an error. There is no total timeout,
only one for the connection and one for silence.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from fsdm import answer as head
from fsdm.body import pour
from fsdm.errors import TransferError
from fsdm.ranges import LEAST_BYTES, Gains, Helpers, OtherVersionError, Pace
from fsdm.session import Sessions, origin_of, shown
from fsdm.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import HTTPResponse

    from fsdm.fs import FileSystem
    from fsdm.model import FileEntry, FileSource
    from fsdm.parts import Part
    from fsdm.ranges import Piece
    from fsdm.stop import Stop

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
CONNECTIONS: Final = 8
RANGES: Final = 4  # connections for one file at most
WORTH_BYTES: Final = 64 << 10  # a connection that brought as much before it broke is followed by another one at once


class HttpFetcher:
    """Files over HTTP(S), by requests: TLS is verified, redirects, proxies and netrc are as requests has them."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        durable: bool = True,
        ranges: int = RANGES,
        connections: int = CONNECTIONS,
    ) -> None:
        self._durable = durable
        self._gains = Gains()
        self._helpers = Helpers(ranges, (ranges - 1) * connections)
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
        try:
            with self._sessions.get(url, headers, stop) as answer:
                _check_status(url, answer, ranged=bool(headers))
                sink = transfer.accept(url, answer, ranged=bool(headers))
                if sink is None:
                    return False
                check = self._watch(url, answer, transfer, stop)
                pour(answer, sink, at_most=transfer.source.size, idle_timeout_s=self._idle_timeout_s, check=check)
                check()  # a cut connection may look like the end of a body without a length
        except _SlowError:
            if not self._in_pieces(url, transfer, stop):
                return False
        transfer.see_that_all_came(url)
        return True

    def _watch(self, url: str, answer: HTTPResponse, transfer: Transfer, stop: Stop) -> Callable[[], None]:
        """What is called between blocks of an answer."""
        origin, pace, seen = origin_of(url), Pace(), transfer.size
        ranged = answer.status == 206 or head.takes_ranges(answer.headers)
        may_split = self._helpers.per_file > 1 and ranged and transfer.can_split(url)

        def check() -> None:
            nonlocal seen
            stop.check()
            transfer.moved(url)
            count, seen = transfer.size - seen, transfer.size
            if not may_split:
                return
            self._gains.took(origin, count)
            worth = (transfer.total or 0) - seen >= LEAST_BYTES
            if pace.is_slow(seen) and worth and self._gains.may_split(origin):
                raise _SlowError

        return check

    # -------------------------------------------------------------------------------------- over several connections

    def _in_pieces(self, url: str, transfer: Transfer, stop: Stop) -> bool:
        """What is missing, over several connections; False where the file is to be asked for afresh."""
        origin, pieces = origin_of(url), transfer.split(self._helpers.per_file)

        def work() -> None:
            while (piece := pieces.take()) is not None:
                self._piece(url, piece, transfer, stop)
                pieces.done(piece)
                transfer.advance(url, pieces)

        def help_out() -> None:
            while self._gains.go_on(origin) and (piece := pieces.take()) is not None:
                self._piece(url, piece, transfer, stop)
                pieces.done(piece)

        try:
            self._helpers.fetch_pieces(pieces, work, help_out)
        except OtherVersionError:
            self._gains.do_not_fit(origin)
            transfer.restart()
            return False
        except BaseException:
            transfer.mend(url, pieces)
            raise
        transfer.mend(url, pieces)
        return True

    def _piece(self, url: str, piece: Piece, transfer: Transfer, stop: Stop) -> None:
        with self._sessions.get(url, transfer.range_headers(url, piece), stop) as answer:
            _check_status(url, answer, ranged=True)
            if not transfer.fits(url, answer, piece):
                raise OtherVersionError
            origin, seen, place = origin_of(url), 0, transfer.open_slice(piece)

            def check() -> None:
                nonlocal seen
                stop.check()
                count, seen = place.size - seen, place.size
                self._gains.took(origin, count)

            try:
                pour(answer, place, at_most=None, idle_timeout_s=self._idle_timeout_s, check=check)
            finally:
                os.close(place.fd)


class _SlowError(Exception):
    """One connection is slower than the disk, and there may be more of them."""


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
