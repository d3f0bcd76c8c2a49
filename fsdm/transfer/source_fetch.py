"""One file from one source: the requests, and what becomes of the answers.

A broken connection is followed by another one from where it broke, at once as long as that brings something. Where
bytes of several answers do not have the want's digest, the file is fetched afresh, once, before that is an error. A
server that refuses a part of the file is asked for all of it before its refusal counts.
"""

from __future__ import annotations

import math
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.rate_limit import Floor
from fsdm.concurrency.turn import in_turn, out_of_turn
from fsdm.model.errors import HostError, TransferError, cause_of_status
from fsdm.transfer.http.head import BUSY_STATUS
from fsdm.transfer.http.source_settings import UNBOUND
from fsdm.transfer.http.target import shown
from fsdm.transfer.segments import LEAST_BYTES, OtherVersionError, Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.fetcher import HttpFetcher
    from fsdm.transfer.file_range import FileRange
    from fsdm.transfer.file_transfer import Transfer
    from fsdm.transfer.host_health import Request
    from fsdm.transfer.http.exchange import Body
    from fsdm.transfer.http.head import Head
    from fsdm.transfer.segments import Piece, Pieces, Slice
    from fsdm.transfer.sink import Sink

WORTH_BYTES: Final = 64 << 10  # a connection that brought as much before it broke is followed by another one at once
TELLING_BYTES: Final = 4 << 20  # a transfer of so much tells how fast its server is
LINGER_S: Final = 1.0  # a server may count a connection for so long after its end
ANSWER_BYTES: Final = 16 << 10  # so much of an answer, or all of it: then its server has answered
CHECK_URL: Final = "check the URL in the want"
CREDENTIALS: Final = "see whether the source wants credentials, other ones, or a new signed URL (fsdm docs credentials)"
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
NOT_THERE_STATUS: Final = frozenset({404, 410})  # of these, the whole file is no more there than a part


class SourceFetch:
    """One file from one source; `bring` is all that is asked of it."""

    def __init__(
        self, fetcher: HttpFetcher, url: str, transfer: Transfer, stop: Cancellation, request: Request
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._transfer = transfer
        self._stop = stop
        self._request = request
        self._floor = Floor(fetcher.floor_bytes_per_s)  # over all answers: one byte in each is slow as well
        self._may_split = fetcher.helpers.per_file > 1
        self._may_range = True
        self._was_split = False
        self._furthest = 0
        self._began_at: int | None = None  # of the last answer whose body was wanted
        self._is_part = False

    def bring(self) -> None:
        """Bring the whole file, with the digest that is wanted.

        Raises:
            TransferError, StoppedError, OSError: see `FileFetcher.fetch`.
        """
        transfer = self._transfer
        self._ask_until_whole()
        self._request.host.answered()
        if transfer.joined and transfer.mismatch() is not None:
            self._may_split = False
            transfer.restart()
            self._ask_until_whole()
        wrong = transfer.mismatch()
        if wrong is not None:
            transfer.restart()  # another source's copy is another one
            hint = "the server has other bytes than the want describes"
            raise TransferError(f"{shown(self._url)}: {wrong}", hint=hint, cause="digest")

    def _ask_until_whole(self) -> None:
        self._furthest = self._transfer.here
        while True:
            try:
                if self._ask():
                    return
            except TransferError as e:
                if isinstance(e, HostError) and e.is_charged:
                    self._request.failed(e.what)
                else:
                    if isinstance(e, HostError) or e.cause in {
                        "answer",
                        "redirect",
                        "not_ready",
                    }:  # it has answered somehow
                        self._request.proven()
                    self._request.host.answered()
                is_over = not e.transient or e.retry_after_s is not None or e.cause == "slow"
                if is_over or self._transfer.here < self._furthest + WORTH_BYTES:
                    raise
                self._transfer.absorb(self._stop.check)
            self._furthest = max(self._furthest, self._transfer.here)  # one that always begins afresh comes to an end

    def _ask(self) -> bool:
        """Ask for what is missing, and take it; False where more is to be asked for."""
        transfer, began, self._began_at = self._transfer, time.monotonic(), None
        headers = transfer.range_headers(self._url) if self._may_range else {}
        try:
            self._fetcher.schemes.get(self._url, headers, self._stop, partial(self._begin, ranged=bool(headers)))
        except _SlowError:
            if not self._in_pieces():
                return False
        except _RefusedError:
            self._may_range = False
            return False
        if self._began_at is None:
            return False
        transfer.absorb(self._stop.check)
        if self._goes_on():
            return False
        transfer.see_that_all_came(self._url)
        came = transfer.here - self._began_at
        is_capped = self._fetcher.rate.is_capped or self._fetcher.sources.bounds_of(self._url).rate.is_capped
        if came >= TELLING_BYTES and not is_capped:
            self._request.host.rate(came / (time.monotonic() - began))
        return True

    def _begin(self, head: Head, *, ranged: bool) -> Body | None:
        """Take the head of the answer that is to bring all that is missing; where its body goes."""
        self._check_head(head, ranged=ranged)
        sink = self._transfer.accept(self._url, head, ranged=ranged)
        if sink is None:
            return None
        self._began_at, self._is_part = self._transfer.here, head.is_part
        flow = self._flow(self._asked(head), sink, self._transfer.total, self._floor, self._look(head))
        return self._paced(head, flow, self._floor)

    def _goes_on(self) -> bool:
        """Tell whether a part came as announced and is not all: then the next is asked for."""
        transfer = self._transfer
        is_short = self._is_part and transfer.total is not None and transfer.size < transfer.total
        return is_short and transfer.here > self._furthest and bool(transfer.range_headers(self._url))

    def _check_head(self, head: Head, *, ranged: bool) -> None:
        """See that an answer brings (a part of) the file, as it is."""
        if head.request is not None:
            self._request.proven()  # it has redirected
        if not head.is_transient:
            self._asked(head).proven()
        if head.status not in {200, 206} and not (ranged and head.status == 416):
            self._refuse(head, ranged=ranged)
        if head.is_ambiguous:
            raise TransferError("the answer is not clear about the end of its body", transient=True)
        if head.status != 416 and head.encoding:
            raise TransferError(f"the body comes with Content-Encoding {head.encoding[:40]!r}, unasked")

    def _asked(self, head: Head) -> Request:
        """Return the request that an answer belongs to."""
        return head.request or self._request

    def _refuse(self, head: Head, *, ranged: bool) -> None:
        status, transient = head.status, head.is_transient or self._was_split  # it may be for those that have ended
        what = f"HTTP {status} {PHRASES.get(status, '')}".rstrip()  # the server's words may be any
        what += f" ({head.reason})" * bool(head.reason)
        retry_after_s = head.retry_after_s(time.time())
        if retry_after_s is not None or status in BUSY_STATUS:
            self._asked(head).failed(what, retry_after_s)
            transient = True
        elif ranged and (status == 501 or not transient) and status not in NOT_THERE_STATUS:
            raise _RefusedError
        hint = "" if transient else CREDENTIALS if status in {401, 403} else CHECK_URL
        cause = cause_of_status(status)
        raise TransferError(what, transient=transient, hint=hint, retry_after_s=retry_after_s, cause=cause)

    def _flow(
        self, asked: Request, writer: Sink | Slice, at_most: int | None, floor: Floor, then: Callable[[], None]
    ) -> Body:
        """Make the taker of a body: it writes, counts, keeps to cap and floor, and calls `then`.

        No more than `at_most` bytes and one are written; then `then` is to raise.
        """
        fetcher, stop, host = self._fetcher, self._stop, self._request.host
        expected, asked_at = ANSWER_BYTES, time.monotonic()

        def take(data: memoryview | FileRange) -> None:
            nonlocal expected
            if expected > 0 and (expected := expected - len(data)) <= 0:
                host.answered()
                fetcher.reclaim(stop)
            elif expected > 0 and time.monotonic() - asked_at > host.within(math.inf):
                what = "little came, and other servers wait"
                raise HostError(what, what=what, cause="slow")
            while data:
                room = len(data) if at_most is None else min(len(data), at_most - writer.size + 1)
                count = fetcher.rate.block(room)
                writer.put(data[:count])
                data = data[count:]
                stop.check()
                asked.proven()
                host.gain.took(count)
                fetcher.meter.took(count)
                floor.paused(fetcher.rate.took(count, stop.wait))
                if not floor.took(count):
                    what = f"less than {fetcher.floor_bytes_per_s:g} bytes a second"
                    raise HostError(what, what=what, cause="slow")
                then()

        return take

    def _paced(self, head: Head, body: Body, floor: Floor) -> Body:
        """Keep a body to the rate of the source that has answered, too."""
        bounds, stop = self._fetcher.sources.bounds_of(head.url or self._url), self._stop
        self._may_split &= not bounds.rate.is_capped and bounds.connections != 1

        def take(data: memoryview | FileRange) -> None:
            while data:
                count = bounds.rate.block(len(data))
                body(data[:count])
                floor.paused(bounds.rate.took(count, stop.wait))
                data = data[count:]

        return body if bounds is UNBOUND else take

    def _look(self, head: Head) -> Callable[[], None]:
        """Make the check between blocks of one connection: not too much, and not too slow."""
        transfer, pace, gain = self._transfer, Pace(), self._request.host.gain

        def look() -> None:
            transfer.moved()
            if self._may_split and pace.is_slow(transfer.size):
                enough = (transfer.total or 0) - transfer.here >= LEAST_BYTES
                if enough and head.takes_ranges and transfer.can_split(self._url) and gain.may_split():
                    raise _SlowError

        return look

    def _in_pieces(self) -> bool:
        """Bring the rest over several connections; False where more is to be asked for over one."""
        helpers, transfer, gain = self._fetcher.helpers, self._transfer, self._request.host.gain
        pieces = transfer.split(helpers.per_file)
        try:
            with out_of_turn():
                helpers.fetch_pieces(pieces, partial(self._work, pieces), partial(self._help_out, pieces))
        except (OtherVersionError, _RefusedError) as e:
            gain.do_not_fit()
            self._may_split, self._was_split = False, True  # also when that is forgotten: or it would never end
            if isinstance(e, OtherVersionError):
                transfer.restart()
            else:
                transfer.mend(pieces)
                self._stop.wait(LINGER_S)  # else what was refused is refused again
            return False
        except BaseException as e:
            if isinstance(e, TransferError):
                gain.broke()
            transfer.mend(pieces)
            raise
        transfer.mend(pieces)
        return transfer.size == transfer.total  # a helper may have given back the last one

    def _work(self, pieces: Pieces) -> None:
        while (piece := pieces.take()) is not None:
            self._bring_one(pieces, piece)

    def _help_out(self, pieces: Pieces) -> None:
        gain = self._request.host.gain
        while gain.go_on() and (piece := pieces.take()) is not None:
            try:
                self._bring_one(pieces, piece)
            except (TransferError, _RefusedError) as e:
                if isinstance(e, HostError):
                    raise
                gain.do_not_fit()  # it may allow one connection a client: that is no failure of the file
                pieces.give_back(piece)

    @in_turn()
    def _bring_one(self, pieces: Pieces, piece: Piece) -> None:
        size = piece[1] - piece[0]

        def begin(head: Head) -> Body:
            self._check_head(head, ranged=True)
            if not self._transfer.fits(self._url, head, piece):
                raise OtherVersionError
            floor = Floor(self._fetcher.floor_bytes_per_s)
            return self._paced(head, self._flow(self._asked(head), place, size, floor, look), floor)

        def look() -> None:
            if place.size > size:
                raise OtherVersionError
            pieces.came(place.here)
            self._transfer.advance(pieces)

        with self._transfer.open_slice(piece) as place:
            headers = self._transfer.range_headers(self._url, piece)
            self._fetcher.schemes.get(self._url, headers, self._stop, begin)
            if place.size != size:  # a chunked body may have any length
                raise OtherVersionError


class _RefusedError(Exception):
    """The server has refused to give a part."""


class _SlowError(Exception):
    """One connection is slower than the disk, and there may be more of them."""
