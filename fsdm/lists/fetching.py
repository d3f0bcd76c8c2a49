"""Fetching a list or a document: by http(s) or another scheme, with the settings that sources have.

Invariants: nothing is taken of an answer that is no whole one; what a URL carries as a secret is in no error. The owner
has named the URL: so the schemes of other sources need no leave here.
"""

from __future__ import annotations

import hashlib
import http.client
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import FsdmError, InvalidInputError, TransferError, cause_of_status
from fsdm.model.source_policy import SCHEMES, Policy
from fsdm.transfer.file_range import append
from fsdm.transfer.host_health import Hosts
from fsdm.transfer.http.engine import Engine
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import shown
from fsdm.transfer.schemes.registry import Schemes
from fsdm.transfer.source_fetch import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.transfer.file_range import FileRange
    from fsdm.transfer.http.exchange import Body
    from fsdm.transfer.http.head import Head

CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
UNCHANGED: Final = "nothing was changed: ask again when it answers"


@dataclass(frozen=True, slots=True)
class Version:
    """The version of what an answer brought, as the server names it; "" for what it does not say.

    None is known of what was changed in the second of the answer: what comes next may be called the same.
    """

    etag: str = ""
    last_modified: str = ""

    @property
    def conditions(self) -> Mapping[str, str]:
        """The headers that ask for another version alone (RFC 9110 §13.1.2, §13.1.3)."""
        said = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its version, the SHA-256 of its bytes, and whether an early end would have been noticed.

    `is_applied`: nothing came but the word that the list is the one that is applied.
    """

    version: Version
    sha256: str
    tells_its_end: bool
    is_applied: bool = False


class Fetching:
    """Fetches the lists and documents of a data directory, over connections that are kept; used by one thread."""

    def __init__(self, sources: Sources | None = None) -> None:
        self._sources = sources or Sources()
        self._hosts = Hosts()
        self._made: dict[str, Schemes] = {}

    def fetch(
        self, url: str, into: IO[bytes], known: Version | None = None, stop: Cancellation | None = None
    ) -> Answer | None:
        """Write what is at a URL into a file; None where it still is the version that is known.

        Raises:
            TransferError: it could not be had, or not to its end.
            StoppedError: `stop` was set.
            FsdmError: the file cannot be written.
        """
        receiver = _Receiver(into, is_conditional=known is not None)
        conditions = {} if known is None else known.conditions
        try:
            self._schemes(url).get(url, conditions, stop or Cancellation(), receiver.begin)
        except TransferError as e:
            e.hint = e.hint or UNCHANGED
            raise
        return receiver.answer

    def _schemes(self, url: str) -> Schemes:
        scheme, _, rest = url.partition("://")
        authority = rest.partition("/")[0]
        key = scheme.lower() if scheme.lower() in SCHEMES else f"{scheme.lower()}://{authority}"
        if key not in self._made:
            policy = Policy(sources=() if key in SCHEMES else (f"{key}/*",))
            timeouts_s = CONNECT_TIMEOUT_S, IDLE_TIMEOUT_S
            engine = Engine(self._hosts, timeouts_s, policy, self._sources, "1.1", kept=1)
            self._made[key] = Schemes(engine, lambda: engine, policy, self._sources, None)
        return self._made[key]


class _Receiver:
    """Takes one answer."""

    def __init__(self, into: IO[bytes], *, is_conditional: bool) -> None:
        self._into, self._is_conditional = into, is_conditional
        self._head: Head | None = None

    def begin(self, head: Head) -> Body | None:
        if head.status == 304 and self._is_conditional:
            return None
        if head.status != 200 or head.is_part:
            raise _refusal(head)
        if head.is_ambiguous:
            raise TransferError("the answer is not clear about the end of its body", transient=True)
        if head.encoding not in {"", "gzip", "x-gzip"}:  # gzip is taken off with that of the list itself
            raise TransferError(f"the body comes with Content-Encoding {head.encoding[:40]!r}, unasked")
        self._head = head
        return self._take

    def _take(self, data: memoryview | FileRange) -> None:
        try:
            append(self._into.fileno(), data)
        except OSError as e:
            hint = "set TMPDIR to a directory with room for the list; nothing was changed"
            raise FsdmError(f"the temporary file cannot be written: {e.strerror}", hint=hint) from e

    @property
    def answer(self) -> Answer | None:
        """Return the answer; None where it is the one that is known."""
        head = self._head
        if head is None:
            return None
        version = Version() if head.is_just_changed else Version(head.etag or "", head.get("last-modified"))
        return Answer(version, sha256_of(self._into), head.length is not None or head.is_chunked)


def sha256_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of all bytes of a file; then it stands at its beginning."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typeshed asks for more
    file.seek(0)
    return found


def _refusal(head: Head) -> TransferError:
    status = head.status
    what = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    what += f" ({head.reason})" * bool(head.reason) + ", a part" * head.is_part
    hint = "nothing was changed: check the URL"
    if status in {401, 403}:
        hint = f"nothing was changed; {CREDENTIALS}"
    elif head.is_transient:
        hint = UNCHANGED
    return TransferError(
        what,
        transient=head.is_transient,
        hint=hint,
        retry_after_s=head.retry_after_s(time.time()),
        cause=cause_of_status(status),
    )


def checked_url(url: str) -> str:
    """Return a URL that can be asked for; raise InvalidInputError where it is none."""
    if "://" not in url or shown(url) == "(no URL)":
        raise InvalidInputError(f"{url!r:.80} is no URL", hint="as https://example.org/list.jsonl, or s3://BUCKET/KEY")
    return url
