"""What the head of an answer says of a file (RFC 9110). Pure: headers in, values out.

A header that is malformed says nothing: then there is no length, no validator, no range. Whoever reads on from what is
said here compares it with what it knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

TRANSIENT_STATUS: Final = frozenset({408, 425, 429})  # and 5xx (§15.6)
MUST_DIFFER_S: Final = 1.0  # Last-Modified by so much before Date: then it is strong (§8.8.2.2)
ETAG_MAX: Final = 1024

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"\Z')
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\Z')


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a file that an answer brings: from `start` to before `end`, of `total` in all where it says so."""

    start: int
    end: int
    total: int | None


def length(headers: Mapping[str, str]) -> int | None:
    """The Content-Length, in bytes (§8.6)."""
    value = headers.get("Content-Length", "")
    return int(value) if value.isdecimal() and value.isascii() and len(value) < 20 else None


def content_range(headers: Mapping[str, str]) -> Span | None:
    """The Content-Range of a 206 that brings one range (§14.4); the answer with several has another type."""
    found = _CONTENT_RANGE.match(headers.get("Content-Range", "").strip())
    if found is None:
        return None
    start, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    return Span(start, last + 1, total) if start <= last and (total is None or last < total) else None


def etag(headers: Mapping[str, str]) -> str | None:
    """The ETag as it was given, strong or weak (§8.8.3)."""
    value = headers.get("ETag", "").strip()
    return value if len(value) <= ETAG_MAX and _ETAG.match(value) else None


def validator(headers: Mapping[str, str]) -> str | None:
    """What may stand in If-Range (§13.1.5): a strong ETag, or a Last-Modified that is strong beside its Date."""
    tag = etag(headers)
    if tag is not None and _STRONG_ETAG.match(tag):
        return tag
    modified = headers.get("Last-Modified", "").strip()
    changed_at, sent_at = http_date(modified), http_date(headers.get("Date", ""))
    if tag is None and changed_at is not None and sent_at is not None and sent_at - changed_at >= MUST_DIFFER_S:
        return modified
    return None


def changed(given: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a 206 is of another version than the one with the validator `given`, or does not say so (§15.3.7)."""
    if given is None:
        return False
    now = headers.get("ETag") if given.startswith('"') else headers.get("Last-Modified")
    return now is None or now.strip() != given


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Whether the body tells its own end (RFC 9112 §7.1)."""
    return "chunked" in headers.get("Transfer-Encoding", "").lower()


def takes_ranges(headers: Mapping[str, str]) -> bool:
    """Whether the server offers ranges of bytes (§14.3)."""
    return "bytes" in (unit.strip().lower() for unit in headers.get("Accept-Ranges", "").split(","))


def is_transient(status: int) -> bool:
    """Whether the same request may be answered otherwise later."""
    return status in TRANSIENT_STATUS or status >= 500


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a Retry-After asks for (§10.2.3): so many, or until a date; `now` is seconds since the epoch."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and value.isascii() and len(value) < 10:
        return float(value)
    until = http_date(value)
    return None if until is None else max(until - now, 0.0)


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
