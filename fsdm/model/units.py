"""Sizes, counts, durations and times as people read them. Pure: `now` is an argument."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

NEAR_S: Final = 600.0  # a time so close to now is shown with its seconds

_UNITS: Final = {unit: 1000**power for power, unit in enumerate(("", "K", "M", "G", "T"))} | {
    f"{unit}i": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), 1)
}
_SIZE: Final = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?([KMGT]i?)?B?\Z")


def parse_size(text: str) -> int:
    """Parse a size in bytes: `4096`, `900G` (powers of 1000), `1.5Ti` (of 1024).

    Raises:
        InvalidInputError: the text is no size, or is less than one byte.
    """
    found = _SIZE.match(text)
    size_bytes = 0
    if found is not None:
        unit = _UNITS[found[3] or ""]
        # an int stays exact beyond 2^53
        size_bytes = int(float(found[1] + found[2]) * unit) if found[2] else int(found[1]) * unit
    if size_bytes < 1:
        raise InvalidInputError(f"{text!r} is no size", hint="a number above 0 and K, M, G, T, Ki, Mi, Gi or Ti: 900G")
    return size_bytes


_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|m|min|h|d)?\Z")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> float:
    """Parse a duration in seconds: `60`, `60s`, `5m`, `1.5h`, `1d`.

    Raises:
        InvalidInputError: the text is none.
    """
    found = _DURATION.match(text)
    if found is None:
        raise InvalidInputError(f"{text!r:.80} is no duration", hint="a number of seconds, or with s, m, h or d: 5m")
    return float(found[1]) * _SECONDS[found[2] or ""]


def readable(size_bytes: int) -> str:
    """Format a size in powers of 1000: `950.0 MB`."""
    if size_bytes < 100_000:
        return f"{size_bytes} bytes"
    if size_bytes < 10**6:
        return f"{size_bytes / 1000:.1f} kB"
    for unit, bytes_each in (("MB", 10**6), ("GB", 10**9)):
        if size_bytes < 10_000 * bytes_each:
            return f"{size_bytes / bytes_each:.1f} {unit}"
    return f"{size_bytes / 1e12:.1f} TB"


def how_far(size_bytes: int, total_bytes: int | None, least_bytes: int = 0) -> str:
    """Format how far something is: `1.0 MB of 5.0 MB`, or `of at least` as much where not all of it is known."""
    if total_bytes is not None:
        return f"{readable(size_bytes)} of {readable(total_bytes)}"
    return f"{readable(size_bytes)}{f' of at least {readable(least_bytes)}' if least_bytes > size_bytes else ''}"


def per_second(bytes_per_s: float) -> str:
    """Format a rate: `12.5 MB/s`."""
    return f"{readable(round(bytes_per_s))}/s" if bytes_per_s >= 100_000 else f"{bytes_per_s / 1000:.1f} kB/s"


def count(number: int, noun: str) -> str:
    """Format a number of things: `1 gap`, `1,200 gaps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def lasting(seconds: float) -> str:
    """Format a duration in one or two units: `12 s`, `7 min`, `3 h 20 min`, `4 days`."""
    seconds = max(seconds, 0.0)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{round(minutes / 1440)} days"


def moment(at: float, now: float) -> str:
    """Format a local time: `10:02`, with seconds where it is near, with a date on another day."""
    try:
        then, today = datetime.fromtimestamp(at).astimezone(), datetime.fromtimestamp(now).astimezone()
    except (OverflowError, ValueError, OSError):  # a document may say anything
        return "at an impossible time"
    form = "%H:%M:%S" if abs(at - now) < NEAR_S else "%H:%M"
    return then.strftime(form if then.date() == today.date() else f"%Y-%m-%d {form}")


def utc(at: float) -> str:
    """Format a time for programs: RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(at: float, now: float) -> str:
    """Format a time and its distance from now: `10:02 (3 min ago)`, `10:17 (in 12 min)`."""
    if at > now:
        return f"{moment(at, now)} (in {lasting(at - now)})"
    return f"{moment(at, now)} ({lasting(now - at)} ago)"


def first_few(items: Iterable[str]) -> str:
    """Join the first three, and show where there are more."""
    shown = list(islice(items, 4))
    return f"{', '.join(shown[:3])}{' …' * (len(shown) > 3)}"
