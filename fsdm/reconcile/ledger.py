"""What is taken of a budget, by part and by name. Pure. Invariant: each total is the sum of its part's entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Part = Literal["here", "retiring", "partial", "trash"]
PARTS: Final[tuple[Part, ...]] = ("here", "retiring", "partial", "trash")


@dataclass(slots=True)
class Ledger:
    """Bytes by part and name. An entry of no bytes is none."""

    _entries: dict[Part, dict[str, int]] = field(default_factory=lambda: {part: {} for part in PARTS})
    _totals: dict[Part, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))

    def put(self, part: Part, name: str, size_bytes: int) -> None:
        """Replace one entry."""
        entries = self._entries[part]
        self._totals[part] += size_bytes - entries.pop(name, 0)
        if size_bytes:
            entries[name] = size_bytes

    def of(self, part: Part) -> Mapping[str, int]:
        """The entries of one part; a view, not a copy."""
        return MappingProxyType(self._entries[part])

    def total(self, part: Part) -> int:
        """The bytes of one part."""
        return self._totals[part]

    @property
    def taken_bytes(self) -> int:
        """The bytes of all parts."""
        return sum(self._totals.values())
