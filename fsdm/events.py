"""What happens to chunks, as values: for the log, for `fsdm run`, for the demo, for a callback.

An event is told after what it names has happened. Nothing is ever decided from one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["started", "file", "available", "retiring", "deleted", "failed", "stopped", "damaged"]

SYMBOLS: Final[dict[Kind, str]] = {
    "started": "📡",
    "file": "💾",
    "available": "✅",
    "retiring": "⌛",
    "deleted": "❌",
    "failed": "🔥",
    "stopped": "🛑",
    "damaged": "🩹",
}

PHRASES: Final[dict[Kind, str]] = {
    "started": "download starts",
    "file": "file done",
    "available": "available",
    "retiring": "waiting for refs",
    "deleted": "deleted",
    "failed": "failed",
    "stopped": "download stopped",
    "damaged": "taken out of service",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one chunk; `text` is what there is to say beyond its kind."""

    kind: Kind
    chunk_id: str
    text: str = ""

    def __str__(self) -> str:
        detail = f": {self.text}" if self.text else ""
        return f"{SYMBOLS[self.kind]} {self.chunk_id[:12]} {PHRASES[self.kind]}{detail}"
