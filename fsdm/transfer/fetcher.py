"""One file from its sources, over HTTP(S): only what is missing of it, and checked.

A broken connection is followed by another one from where it broke, at once as long as that brings something; an attempt
that ended, a stop, a crash or a reboot is followed so by the next one (see `parts`). Where bytes of several answers do
not have the want's digest, the file is fetched afresh, once, before that is called an error. There is no total timeout,
only one for the connection, one for silence, and a floor under the rate.
"""

from __future__ import annotations

import http.client
import os
import time
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.rate_limit import FLOOR_BYTES_PER_S, Floor, Meter, Rate
from fsdm.model.errors import HostError, TransferError, cause_of_status
from fsdm.model.limits import CONNECTIONS, PER_FILE
from fsdm.model.source_policy import ANY, Policy
from fsdm.transfer.file_transfer import Transfer
from fsdm.transfer.host_health import Hosts, Request, origin_of
from fsdm.transfer.http import answer as head
from fsdm.transfer.http.body import pour
from fsdm.transfer.http.session import Sessions, shown
from fsdm.transfer.segments import LEAST_BYTES, Gains, Helpers, OtherVersionError, Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import HTTPResponse

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import FileEntry, FileSource
    from fsdm.model.limits import Limits
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.http.body import Writer
    from fsdm.transfer.resume_record import Part
    from fsdm.transfer.segments import Pieces

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
WORTH_BYTES: Final = 64 << 10  # a connection that brought as much before it broke is followed by another one at once
TELLING_BYTES: Final = 4 << 20  # a transfer of so much tells how fast its server is


class HttpFetcher:
    """Files over HTTP(S), by requests: TLS is verified, redirects, proxies and netrc are as requests has them.

    All connections together bring at most `bytes_per_s`. A large file may come over up to `per_file` of them, where
    that gains something; of those there are at most `connections` times as many.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        floor_bytes_per_s: float = FLOOR_BYTES_PER_S,
        bytes_per_s: float | None = None,
        per_file: int = PER_FILE,
        connections: int = CONNECTIONS,
        durable: bool = True,
        policy: Policy = ANY,
    ) -> None:
        self.durable = durable
        self.idle_timeout_s = idle_timeout_s
        self.floor_bytes_per_s = floor_bytes_per_s
        self.sessions = Sessions(connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s, policy=policy)
        self.rate = Rate(bytes_per_s)
        self.meter = Meter()
        self._per_file = per_file
        self.gains = Gains()
        self.helpers = Helpers(1 if bytes_per_s else per_file, (per_file - 1) * connections)
        self._hosts = Hosts()

    @classmethod
    def within(cls, limits: Limits) -> HttpFetcher:
        """A fetcher that keeps to these limits."""
        return cls(
            bytes_per_s=limits.bytes_per_s,
            per_file=limits.per_file,
            connections=limits.connections,
            durable=limits.durable,
            policy=Policy(limits.allow_hosts, limits.deny_private),
        )

    @property
    def received_bytes(self) -> int:
        """What has come of files so far, also of attempts that failed."""
        return self.meter.bytes

    def change(self, bytes_per_s: float | None) -> None:
        """From now on this is the cap. Under one, no file comes over several connections."""
        self.rate.change(bytes_per_s)
        self.helpers.per_file = 1 if bytes_per_s else self._per_file

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """See `Fetcher.fetch`."""
        transfer = Transfer(source, part, fs, durable=self.durable)
        try:
            if not transfer.take_over(stop.check):
                self._from_any(transfer, stop)
            return transfer.finish()
        finally:
            transfer.close()

    def _from_any(self, transfer: Transfer, stop: Cancellation) -> None:
        """From the first source that has it."""
        errors = []
        for url in self._hosts.order(transfer.source.urls):
            try:
                with self._hosts.enter(url, stop.wait) as request:
                    _Conversation(self, url, transfer, stop, request).bring()
            except TransferError as e:
                errors.append(e)
            else:
                return
        raise _of_all(errors)


class _Conversation:
    """What is asked of one source, for one file, and what becomes of the answers."""

    def __init__(
        self, fetcher: HttpFetcher, url: str, transfer: Transfer, stop: Cancellation, request: Request
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._transfer = transfer
        self._stop = stop
        self._request = request
        self._origin = origin_of(url)
        self._may_split = fetcher.helpers.per_file > 1

    def bring(self) -> None:
        """The whole file, with the digest that is wanted."""
        transfer = self._transfer
        self._ask_until_whole()
        if transfer.joined and transfer.mismatch() is not None:
            self._may_split = False
            transfer.restart()
            self._ask_until_whole()
        wrong = transfer.mismatch()
        if wrong is not None:
            transfer.restart()  # another source's copy is another one
            raise TransferError(
                f"{shown(self._url)}: {wrong}",
                transient=False,
                hint="the server has other bytes than the want describes",
                cause="digest",
            )

    def _ask_until_whole(self) -> None:
        furthest = self._transfer.size
        while True:
            try:
                if self._ask():
                    return
            except TransferError as e:
                if isinstance(e, HostError):
                    self._request.failed(e.what)
                is_over = not e.transient or e.retry_after_s is not None or isinstance(e, _DripError)
                if is_over or self._transfer.size < furthest + WORTH_BYTES:
                    raise
            furthest = max(furthest, self._transfer.size)  # one that always begins afresh comes to an end

    def _ask(self) -> bool:
        """Ask for what is missing, and take it; False where the file is to be asked for afresh."""
        transfer = self._transfer
        headers = transfer.range_headers(self._url)
        began = time.monotonic()
        try:
            with self._fetcher.sessions.get(self._url, headers, self._stop) as answer:
                self._check_head(answer, ranged=bool(headers))
                sink = transfer.accept(self._url, answer, ranged=bool(headers))
                if sink is None:
                    return False
                size = sink.size
                self._pour(answer, sink, transfer.total, self._on_its_own(answer))
        except _SlowError:
            if not self._in_pieces():
                return False
        transfer.see_that_all_came(self._url)
        if transfer.size - size >= TELLING_BYTES and not self._fetcher.rate.is_capped:
            self._request.rate((transfer.size - size) / (time.monotonic() - began))
        return True

    def _check_head(self, answer: HTTPResponse, *, ranged: bool) -> None:
        """See that an answer brings (a part of) the file, as it is."""
        status, headers, url = answer.status, answer.headers, shown(self._url)
        transient = head.is_transient(status)
        if not transient:
            self._request.proven()
        if status not in {200, 206} and not (ranged and status == 416):
            what = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()  # the server's words may be any
            retry_after_s = head.retry_after_s(headers, time.time()) if transient else None
            if retry_after_s is not None:
                self._request.failed(what, retry_after_s)
            hint = "" if transient else "check the URL in the want; `touch want/ID` tries again at once"
            raise TransferError(
                f"{url}: {what}",
                transient=transient,
                hint=hint,
                retry_after_s=retry_after_s,
                cause=cause_of_status(status),
            )
        encoding = headers.get("Content-Encoding", "identity")
        if status != 416 and encoding.strip().lower() not in {"", "identity"}:
            what = f"the body comes with Content-Encoding {encoding[:40]!r}, unasked"
            raise TransferError(f"{url}: {what}", transient=False)

    def _pour(self, answer: HTTPResponse, vessel: Writer, at_most: int | None, then: Callable[[], None]) -> None:
        """Take a body; between blocks, count what came, keep to the cap, see that it goes on, and call `then`."""
        fetcher, stop, seen = self._fetcher, self._stop, vessel.size
        floor = Floor(fetcher.floor_bytes_per_s)

        def check() -> None:
            nonlocal seen
            stop.check()
            count, seen = vessel.size - seen, vessel.size
            if count:
                self._request.proven()
                fetcher.meter.took(count)
                if fetcher.helpers.per_file > 1:
                    fetcher.gains.took(self._origin, count)
                floor.paused(fetcher.rate.took(count, stop.wait))
            if not floor.took(count):
                what = f"less than {fetcher.floor_bytes_per_s:g} bytes a second"
                raise _DripError(f"{shown(self._url)}: {what}", what=what, cause="slow")
            then()

        pour(
            answer,
            vessel,
            at_most=at_most,
            idle_timeout_s=fetcher.idle_timeout_s,
            check=check,
            block=fetcher.rate.block,
        )
        check()  # a cut connection may look like the end of a body without a length

    # -------------------------------------------------------------------------------------- over several connections

    def _on_its_own(self, answer: HTTPResponse) -> Callable[[], None]:
        """What is looked at while one connection brings all: that it is not too much, and not too slow."""
        fetcher, transfer, pace = self._fetcher, self._transfer, Pace()

        def look() -> None:
            transfer.moved(self._url)
            if self._may_split and pace.is_slow(transfer.size):
                enough = (transfer.total or 0) - transfer.size >= LEAST_BYTES
                ranged = answer.status == 206 or head.takes_ranges(answer.headers)
                fits = enough and ranged and transfer.can_split(self._url)
                if fits and fetcher.gains.may_split(self._origin):
                    raise _SlowError

        return look

    def _in_pieces(self) -> bool:
        """Bring what is missing over several connections; False where the file is to be asked for afresh."""
        fetcher, transfer = self._fetcher, self._transfer
        pieces = transfer.split(fetcher.helpers.per_file)

        def work() -> None:
            while self._bring_one(pieces):
                transfer.advance(self._url, pieces)

        def help_out() -> None:
            while self._bring_one(pieces) and fetcher.gains.go_on(self._origin):
                pass

        try:
            fetcher.helpers.fetch_pieces(pieces, work, help_out)
        except OtherVersionError:
            fetcher.gains.do_not_fit(self._origin)
            self._may_split = False  # also when that is forgotten: or it would begin afresh again and again
            transfer.restart()
            return False
        except BaseException as e:
            if isinstance(e, TransferError):
                fetcher.gains.broke(self._origin)
            transfer.mend(self._url, pieces)
            raise
        transfer.mend(self._url, pieces)
        return True

    def _bring_one(self, pieces: Pieces) -> bool:
        """One piece, if there is one left."""
        piece = pieces.take()
        if piece is None:
            return False
        headers, size = self._transfer.range_headers(self._url, piece), piece[1] - piece[0]
        with self._fetcher.sessions.get(self._url, headers, self._stop) as answer:
            self._check_head(answer, ranged=True)
            if not self._transfer.fits(self._url, answer, piece):
                raise OtherVersionError
            place = self._transfer.open_slice(piece)
            try:
                self._pour(answer, place, size, lambda: None)
            finally:
                os.close(place.fd)
            if place.size != size:  # a chunked body may have any length
                raise OtherVersionError
        pieces.done(piece)
        return True


class _DripError(HostError):
    """What comes is below the floor."""


class _SlowError(Exception):
    """One connection is slower than the disk, and there may be more of them."""


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
        cause=errors[0].cause,
    )
