"""Sizes and numbers as people have them: `900G` on a command line, `950.0 MB` or `1 gap` in a message. Pure."""

from __future__ import annotations

import re
from typing import Final

from fsdm.model.errors import InvalidInputError

_UNITS: Final = {unit: 1000**power for power, unit in enumerate(("", "K", "M", "G", "T"))} | {
    f"{unit}i": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), 1)
}
_SIZE: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)([KMGT]i?)?B?\Z")


def parse_size(text: str) -> int:
    """The bytes that `900G`, `1.5Ti` or `4096` means: K M G T are powers of 1000, Ki Mi Gi Ti of 1024.

    Raises:
        InvalidInputError: it is no size, or less than one byte.
    """
    found = _SIZE.match(text)
    size_bytes = int(float(found[1]) * _UNITS[found[2] or ""]) if found is not None and "." in found[1] else 0
    if found is not None and "." not in found[1]:
        size_bytes = int(found[1]) * _UNITS[found[2] or ""]  # exact, also beyond 2^53
    if size_bytes < 1:
        raise InvalidInputError(
            f"{text!r} is no size", hint="a number above zero and K, M, G, T, Ki, Mi, Gi or Ti: 900G"
        )
    return size_bytes


def readable(size_bytes: int) -> str:
    """A size as people read it, in powers of 1000."""
    if size_bytes < 100_000:
        return f"{size_bytes} bytes"
    if size_bytes < 10**6:
        return f"{size_bytes / 1000:.1f} kB"
    for unit, bytes_each in (("MB", 10**6), ("GB", 10**9)):
        if size_bytes < 10_000 * bytes_each:
            return f"{size_bytes / bytes_each:.1f} {unit}"
    return f"{size_bytes / 1e12:.1f} TB"


def count(number: int, noun: str) -> str:
    """`1 gap`, `1,200 gaps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
