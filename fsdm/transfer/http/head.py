"""The head of an answer, and what it says of a file (RFC 9110). Pure.

A field that is malformed says nothing: then there is no length, no validator, no range. What is said here is compared
with what is known before anything is joined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fsdm.transfer.host_health import Request

TRANSIENT_STATUS: Final = frozenset({202, 408, 425, 429})  # and 5xx (§15.6); 202: it is being made
BUSY_STATUS: Final = frozenset({429, 503})  # the server's no to all, not one file's
MUST_DIFFER_S: Final = 1.0  # Last-Modified by so much before Date: then it is strong (§8.8.2.2)
ETAG_MAX: Final = 1024

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z", re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"\Z')
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\Z')


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a file that an answer brings, half-open; `total` is of the whole, if said."""

    start: int
    end: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """A status, and fields by lower-case name; values of one name are joined (§5.3).

    `url` has answered, and to `request`, where that is known; `reason` is what its body gives in one word.
    """

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    url: str = field(default="", repr=False)
    request: Request | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, status: int, fields: Iterable[tuple[str, str]]) -> Self:
        """Make a head of the fields as they came."""
        joined: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
        return cls(status, joined)

    @classmethod
    def read(cls, lines: Sequence[bytes]) -> Self:
        """Make a head of its lines, which are known to be those of HTTP."""
        status = lines[0].split(None, 2)[1:2] if lines else []
        fields = (line.decode("latin-1").partition(":") for line in lines[1:])
        number = int(status[0]) if status and status[0].isdigit() else 0
        return cls.of(number, [(name, value.strip()) for name, _, value in fields])

    def get(self, name: str) -> str:
        """The value of a field, given in lower case; "" where it is not there."""
        return self.fields.get(name, "").strip()

    @property
    def length(self) -> int | None:
        """The Content-Length, in bytes (§8.6); a Transfer-Encoding overrides it (RFC 9112 §6.3)."""
        values = {value.strip() for value in self.get("content-length").split(",")}
        value = values.pop()
        is_number = value.isdecimal() and value.isascii() and len(value) < 20
        return int(value) if is_number and not values and not self.is_chunked else None

    @property
    def length_is_malformed(self) -> bool:
        """Tell whether a Content-Length counts and cannot be taken, as one that no file has: §8.6."""
        return "content-length" in self.fields and self.length is None and not self.is_chunked

    @property
    def codings(self) -> list[str]:
        """The transfer codings, as they were applied (RFC 9112 §6.1); identity is none."""
        codings = [coding.strip().lower() for coding in self.get("transfer-encoding").split(",")]
        return [coding for coding in codings if coding not in {"", "identity"}]

    @property
    def is_chunked(self) -> bool:
        """Tell whether the body's own framing tells its end (RFC 9112 §7.1)."""
        return self.codings == ["chunked"]

    @property
    def is_ambiguous(self) -> bool:
        """Tell whether two readers may find another end of the body: by a coding, or a field's name (RFC 9112 §5.1)."""
        is_framed = self.is_chunked or "identity" in self.get("transfer-encoding").lower()
        spaced = any(name.endswith((" ", "\t")) for name in self.fields)
        return spaced or self.codings not in ([], ["chunked"]) or ("transfer-encoding" in self.fields and not is_framed)

    @property
    def is_part(self) -> bool:
        """Tell whether the answer says that it brings a part, by its status or by a Content-Range."""
        return self.status == 206 or "content-range" in self.fields

    @property
    def span(self) -> Span | None:
        """The Content-Range of an answer that brings one range (§14.4) and agrees with its length."""
        found = _CONTENT_RANGE.match(self.get("content-range"))
        if found is None:
            return None
        start, last = int(found[1]), int(found[2])
        total = None if found[3] == "*" else int(found[3])
        whole = start <= last and (total is None or last < total) and self.length in {None, last + 1 - start}
        return Span(start, last + 1, total) if whole else None

    @property
    def total(self) -> int | None:
        """The bytes of the whole file, where the answer says so."""
        span = self.span
        return self.length if not self.is_part else None if span is None else span.total

    @property
    def etag(self) -> str | None:
        """The ETag as it was given, strong or weak (§8.8.3)."""
        value = self.get("etag")
        return value if len(value) <= ETAG_MAX and _ETAG.match(value) else None

    @property
    def validator(self) -> str | None:
        """Return what may stand in If-Range (§13.1.5): a strong ETag or Last-Modified."""
        tag = self.etag
        if tag is not None:
            return tag if _STRONG_ETAG.match(tag) else None
        rested_s = self._rested_s
        return self.get("last-modified") if rested_s is not None and rested_s >= MUST_DIFFER_S else None

    @property
    def is_just_changed(self) -> bool:
        """Another version may come with the same date (§8.8.2.2), and with the same ETag where that is made of it."""
        rested_s = self._rested_s
        return rested_s is not None and rested_s < MUST_DIFFER_S

    @property
    def _rested_s(self) -> float | None:
        """The seconds between Last-Modified and the answer; None where it does not say."""
        changed_at, sent_at = http_date(self.get("last-modified")), http_date(self.get("date"))
        return None if changed_at is None or sent_at is None else sent_at - changed_at

    def is_of(self, validator: str | None) -> bool:
        """Tell whether the answer says that it is of this version (§15.3.7), or none is known."""
        if validator is None:
            return True
        return self.get("etag" if validator.startswith('"') else "last-modified") == validator

    @property
    def encoding(self) -> str:
        """The Content-Encoding, if it is one."""
        value = self.get("content-encoding").lower()
        return "" if value == "identity" else value

    @property
    def takes_ranges(self) -> bool:
        """Tell whether the server offers ranges of bytes (§14.3)."""
        return self.status == 206 or "bytes" in {unit.strip().lower() for unit in self.get("accept-ranges").split(",")}

    @property
    def is_transient(self) -> bool:
        """Tell whether the same request may be answered otherwise later."""
        return self.status in TRANSIENT_STATUS or self.status >= 500

    def retry_after_s(self, now: float) -> float | None:
        """The seconds that a Retry-After asks for (§10.2.3); a date counts from the answer's own."""
        value = self.get("retry-after")
        if value.isdecimal() and value.isascii() and len(value) < 10:
            return float(value)
        until, sent_at = http_date(value), http_date(self.get("date"))
        return None if until is None else max(until - (now if sent_at is None else sent_at), 0.0)


def http_date(value: str) -> float | None:
    """An HTTP date (§5.6.7) as seconds since the epoch."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None
