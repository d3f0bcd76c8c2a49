"""One file from its sources: only what is missing of it, and checked.

An attempt that ended, a stop, a crash or a reboot is followed by the next one from where it ended (see
`resume_record`). There is no total timeout, only one for the connection, one for silence, and a floor under the rate.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fsdm.concurrency.rate_limit import FLOOR_BYTES_PER_S, Meter, Rate
from fsdm.model.errors import TransferError
from fsdm.model.limits import CONNECTIONS, PER_FILE, Transport
from fsdm.model.source_policy import ANY, Policy
from fsdm.transfer.file_transfer import Transfer
from fsdm.transfer.host_health import Hosts
from fsdm.transfer.http.engine import Engine
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import origin_of
from fsdm.transfer.schemes.registry import Schemes
from fsdm.transfer.segments import Helpers
from fsdm.transfer.source_fetch import SourceFetch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import FileEntry, FileSource
    from fsdm.model.limits import HttpVersion, Limits
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.host_health import Request
    from fsdm.transfer.http.exchange import Begin
    from fsdm.transfer.requests_engine import Sessions
    from fsdm.transfer.resume_record import Part
    from fsdm.transfer.scheduler import Scheduler

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
PATIENT: Final = 32  # so many servers may keep us waiting for those timeouts before they answer at all; others …
FIRST_PATIENCE_S: Final = 0.5
LOCAL: Final = "file://"  # how the origin of a file of this machine begins


class HttpEngine(Protocol):
    """An engine that asks for URLs, and answers in the words of HTTP; used by all threads."""

    def get(self, url: str, headers: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """See `Engine.get`."""


class HttpFetcher:
    """Files over HTTP(S), by libcurl or requests; `sources`, or else the environment, say by what way and as whom.

    Those of other schemes come where the policy allows them, but none out of `data_dir`.
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
        require_length: bool = False,
        policy: Policy = ANY,
        sources: Sources | None = None,
        transport: Transport = "libcurl",
        http_version: HttpVersion = "1.1",
        session: Sessions | None = None,
        data_dir: str | None = None,
    ) -> None:
        self.durable = durable
        self._require_length = require_length
        self.floor_bytes_per_s = floor_bytes_per_s
        self.hosts = Hosts()
        self.scheduler: Scheduler | None = None  # whose threads fetch
        self.sources = sources or Sources()
        timeouts_s = connect_timeout_s, idle_timeout_s
        make = partial(Engine, self.hosts, timeouts_s, policy, self.sources, http_version, kept=connections)
        libcurl = make() if transport == "libcurl" else None
        self.engine: HttpEngine = libcurl or _by_requests(self.hosts, timeouts_s, policy, self.sources, session)
        stores = (lambda: libcurl) if libcurl is not None else make  # libcurl asks them, whatever the transport
        self.schemes = Schemes(self.engine, stores, policy, self.sources, data_dir)
        self.rate = Rate(bytes_per_s)
        self.meter = Meter()
        self._per_file = per_file
        self.helpers = Helpers(1 if bytes_per_s else per_file, (per_file - 1) * connections)

    @classmethod
    def within(
        cls, limits: Limits, sources: Sources | None = None, session: Sessions | None = None, *, data_dir: str
    ) -> HttpFetcher:
        """A fetcher that keeps to these limits; the session is for a transport by requests."""
        return cls(
            bytes_per_s=limits.bytes_per_s,
            per_file=limits.per_file,
            connections=limits.connections,
            durable=limits.durable,
            require_length=limits.require_length,
            policy=Policy(limits.allow_hosts, limits.deny_private, limits.allow_sources, limits.allow_dirs),
            sources=sources,
            transport=limits.transport,
            http_version=limits.http_version,
            session=session,
            data_dir=data_dir,
        )

    @property
    def received_bytes(self) -> int:
        """Return the bytes that have come so far, also of attempts that failed."""
        return self.meter.bytes

    def change(self, bytes_per_s: float | None) -> None:
        """From now on this is the cap. Under one, no file comes over several connections."""
        self.rate.change(bytes_per_s)
        self.helpers.per_file = 1 if bytes_per_s else self._per_file

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """See `FileFetcher.fetch`."""
        transfer = Transfer(source, part, fs, durable=self.durable, require_length=self._require_length)
        try:
            if not transfer.take_over(stop.check):
                self._from_any(transfer, stop)
            return transfer.finish()
        finally:
            transfer.close()

    def _from_any(self, transfer: Transfer, stop: Cancellation) -> None:
        """From the first source that has it."""
        errors = []
        for url in self.hosts.order(transfer.source.urls):
            try:
                with self.hosts.enter(url, stop.wait) as request:
                    if origin_of(url).startswith(LOCAL):  # which is no server that may be down
                        request.proven()
                        request.host.answered()
                    self._lend(request, stop)
                    SourceFetch(self, url, transfer, stop, request).bring()
            except TransferError as e:
                errors.append(e)
            else:
                return
        raise _of_all(errors)

    def _lend(self, request: Request, stop: Cancellation) -> None:
        """Lend this thread's slot while a server has not answered lately; where many do not, be less patient."""
        if self.scheduler is None:
            return
        if request.await_answer(stop.wait, self.scheduler.open_to_large):
            self.scheduler.lend()
            request.host.hurry(FIRST_PATIENCE_S if self.scheduler.lent > PATIENT else math.inf)
        else:
            self.scheduler.reclaim(stop)

    def reclaim(self, stop: Cancellation) -> None:
        """Wait for a slot, where this thread's was lent: its server has answered."""
        if self.scheduler is not None:
            self.scheduler.reclaim(stop)


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
        is_postponed=any(e.is_postponed for e in errors),
    )


def _by_requests(
    hosts: Hosts, timeouts_s: tuple[float, float], policy: Policy, sources: Sources, session: Sessions | None
) -> HttpEngine:
    """Import requests only for those who use it: 12 MB."""
    from fsdm.transfer.requests_engine import RequestsEngine

    return RequestsEngine(hosts, timeouts_s, policy, sources, session)
