"""Hashes of many values at once, the same in every process and on every machine. Pure.

They decide between equals; no security rests on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each value (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = values + np.uint64(_GOLDEN)
    x ^= x >> np.uint64(30)
    x *= np.uint64(_FIRST)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_SECOND)
    x ^= x >> np.uint64(31)
    return x


def salted(values: NDArray[np.uint64], *salts: int) -> NDArray[np.uint64]:
    """Mix each value with whole numbers, so that each of them gives other hashes."""
    found = values
    for salt in salts:
        found = mixed(found ^ np.uint64(salt * _GOLDEN & _MASK))
    return found


def unit(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return each hash as a number from 0 to below 1."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def of_rows(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash for each row of an array of two dimensions."""
    found = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        found = mixed(found ^ column)
    return found
