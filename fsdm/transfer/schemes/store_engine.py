"""Objects of a store: each a request over HTTP, by the engine of libcurl, signed at the moment of sending.

What a store says of a request that it refuses is read, and mended once: another region, a token that has expired, a
clock that is wrong. Invariants: a signature goes to the endpoint of its source alone, and no redirect is followed; a
secret is in no error, and a URL that is shown is the one of the store.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import TransferError
from fsdm.transfer.http.engine import about, read
from fsdm.transfer.http.head import http_date
from fsdm.transfer.http.target import Place, Signature
from fsdm.transfer.schemes.aws_credentials import Keys
from fsdm.transfer.schemes.stores import REGION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.file_range import FileRange
    from fsdm.transfer.http.engine import Engine
    from fsdm.transfer.http.exchange import Begin, Body
    from fsdm.transfer.http.head import Head
    from fsdm.transfer.http.route import Access, Settings
    from fsdm.transfer.http.source_settings import Sources
    from fsdm.transfer.http.target import Target, Upload
    from fsdm.transfer.schemes.aws_credentials import Chain
    from fsdm.transfer.schemes.stores import Store

ARCHIVED_S: Final = 900.0  # a restoration takes minutes to days
SAID_MAX_BYTES: Final = 64 << 10  # of a refusal
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_REGION: Final = re.compile(rb"<Region>([a-z0-9-]{1,32})</Region>")
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed", "IncorrectEndpoint", ""}
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidAccessKeyId"})

_ARCHIVED: Final = frozenset({"InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"})


class StoreEngine:
    """Asks one kind of store; used by all threads."""

    def __init__(self, store: Store, engine: Engine, sources: Sources, chain: Chain) -> None:
        self._store = store
        self._engine = engine
        self._sources = sources
        self._chain = chain
        self._regions: dict[str, str] = {}  # by bucket, where a store has said so
        self._ahead_s: dict[str, float] = {}  # by server: its clock, against ours

    def get(self, url: str, headers: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """See `Engine.get`."""
        self.send(url, None, headers, stop, begin)

    def send(
        self, url: str, upload: Upload | None, headers: Mapping[str, str], stop: Cancellation, begin: Begin
    ) -> None:
        """Put an object there, or have it deleted; see `Engine.get`."""
        self._ask(url, partial(self._store.find, url), upload, headers, stop, begin)

    def list(self, url: str, query: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """List the bucket of a URL, as the query says; see `Engine.get`."""
        bucket = url.partition("://")[2].partition("/")[0]
        find = partial(self._store.find_listing, bucket, query)
        self._ask(url, find, None, {}, stop, begin)

    def _ask(
        self,
        url: str,
        find: Callable[[Access, str], str],
        upload: Upload | None,
        headers: Mapping[str, str],
        stop: Cancellation,
        begin: Begin,
    ) -> None:
        with about(url):
            place, mended = Place.of(url), set[str]()
            while True:
                settings = self._sources.of(place)
                keys = self._keys(settings, stop)
                target = replace(self._target(find, place, settings.access, keys), upload=upload)
                answer = _Answer(begin, url)
                self._engine.get_target(target, {**self._store.headers, **headers}, stop, answer.begin)
                if answer.refused is None:
                    return
                mend = self._mend(answer, target, keys, stop)
                if answer.code in _ARCHIVED:
                    what, hint = f"it is archived ({answer.code})", "have it restored: then it comes by itself"
                    raise TransferError(
                        what,
                        transient=True,
                        hint=hint,
                        retry_after_s=ARCHIVED_S,
                        cause="not_ready",
                        is_postponed=True,
                    )
                if not mend or mend in mended:
                    begin(replace(answer.refused, url=url, reason=answer.code))
                    return
                mended.add(mend)

    def _target(self, find: Callable[[Access, str], str], place: Place, access: Access, keys: Keys | None) -> Target:
        region = self._regions.get(place.origin) or access.region or self._store.region
        found = read(find(access, region))
        return replace(
            found,
            origin=place.origin,
            path=place.path,
            credentials=None,
            signature=None if keys is None else self._sign(keys, region, found.server),
        )

    def _sign(self, keys: Keys, region: str, server: str) -> Signature:
        headers = {}
        if keys.token:
            headers["X-Amz-Security-Token"] = keys.token
        if ahead_s := self._ahead_s.get(server):
            headers["X-Amz-Date"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + ahead_s))
        return Signature(f"aws:amz:{region}:s3", keys.key_id, keys.secret, headers)

    def _keys(self, settings: Settings, stop: Cancellation) -> Keys | None:
        """Return what to sign with; None where the source says that it is done otherwise, or not at all."""
        access = settings.access
        if access.is_unsigned or access.sas or "Authorization" in settings.headers:
            return None
        if access.key_id:
            return Keys(access.key_id, access.secret, access.token)
        if not self._store.signs:
            hint = "give its source sas-file, headers-file with a token, or unsigned = true"
            raise TransferError("there is nothing to ask with", transient=True, hint=hint, cause="settings")
        return self._chain.keys(stop)

    def _mend(self, answer: _Answer, target: Target, keys: Keys | None, stop: Cancellation) -> str:
        """Take in why a request was refused; a word for what is otherwise now, "" for nothing."""
        if answer.refused is None or keys is None or target.signature is None:
            return ""
        code, region = answer.code, answer.region
        if region and code in _ELSEWHERE and f":{region}:" not in target.signature.kind:
            self._regions[target.origin] = region
            return "region"
        if code in _EXPIRED:
            self._chain.forget(keys)
            return "keys" if self._keys(self._sources.of(target), stop) != keys else ""
        sent_at = http_date(answer.refused.get("date"))
        if code == "RequestTimeTooSkewed" and sent_at is not None:
            self._ahead_s[target.server] = sent_at - time.time()
            return "clock"
        return ""


class _Answer:
    """An answer, of which a refusal is kept back, to be read."""

    def __init__(self, begin: Begin, url: str) -> None:
        self._begin = begin
        self._url = url
        self._said = bytearray()
        self.refused: Head | None = None

    def begin(self, head: Head) -> Body | None:
        if not (300 <= head.status < 416 or 416 < head.status < 500):
            return self._begin(replace(head, url=self._url))
        self.refused = head
        is_short = head.length is not None and 0 < head.length <= SAID_MAX_BYTES
        return self._take if is_short or head.is_chunked else None

    def _take(self, data: memoryview | FileRange) -> None:
        if isinstance(data, memoryview):
            self._said += data[: SAID_MAX_BYTES - len(self._said)]

    @property
    def code(self) -> str:
        """The word that it gives, "" for none."""
        found = _CODE.search(self._said)
        return found[1].decode() if found else ""

    @property
    def region(self) -> str:
        """The region where it would be answered, "" for none."""
        if self.refused is not None and REGION.match(told := self.refused.get("x-amz-bucket-region")):
            return told
        found = _REGION.search(self._said)
        return found[1].decode() if found else ""
