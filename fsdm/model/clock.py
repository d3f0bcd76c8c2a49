"""Times as people read them: how long, and when, in the local time zone. Pure: `now` is an argument."""

from __future__ import annotations

from datetime import datetime
from typing import Final

NEAR_S: Final = 600.0  # within so much of now, seconds are shown


def lasting(seconds: float) -> str:
    """A duration, in one or two units: `12 s`, `7 min`, `3 h 20 min`, `4 days`."""
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
    """When that is, in local time: `10:02`, with seconds where it is near, with the date where it is another day."""
    try:
        then, today = datetime.fromtimestamp(at).astimezone(), datetime.fromtimestamp(now).astimezone()
    except (OverflowError, ValueError, OSError):  # a document may say anything
        return "at no time that there is"
    form = "%H:%M:%S" if abs(at - now) < NEAR_S else "%H:%M"
    return then.strftime(form if then.date() == today.date() else f"%Y-%m-%d {form}")


def ago(at: float, now: float) -> str:
    """When that was, or will be, both ways: `10:02 (3 min ago)`, `10:17 (in 12 min)`."""
    if at > now:
        return f"{moment(at, now)} (in {lasting(at - now)})"
    return f"{moment(at, now)} ({lasting(now - at)} ago)"
