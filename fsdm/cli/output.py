"""Estimates, as several verbs print them."""

from __future__ import annotations

from typing import Final

ASSUMED_BYTES_PER_S: Final = 50e6


def estimate(size_bytes: int, bytes_per_s: float | None) -> str:
    """Say how long so many bytes take; without a cap on the rate it is assumed, which the words tell."""
    from fsdm.model.units import lasting, readable

    rate = bytes_per_s or ASSUMED_BYTES_PER_S
    assumed = "" if bytes_per_s else ", which is assumed"
    return f"at least {lasting(size_bytes / rate)}, at {readable(int(rate))} a second{assumed}"
