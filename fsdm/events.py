"""What happens to chunks, as values: for the log, for `fsdm run`, for the demo, for a callback.

An event is told after what it names has happened. Nothing is ever decided from one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "started",
    "file",
    "available",
    "retiring",
    "deleted",
    "failed",
    "stopped",
    "damaged",
    "verified",
    "over",
    "size",
    "paused",
    "resumed",
]

SYMBOLS: Final[dict[Kind, str]] = {
    "started": "📡",
    "file": "💾",
    "available": "✅",
    "retiring": "⌛",
    "deleted": "❌",
    "failed": "🔥",
    "stopped": "🛑",
    "damaged": "🩹",
    "verified": "🔎",
    "over": "🚫",
    "size": "📏",
    "paused": "🚧",
    "resumed": "🟢",
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
    "verified": "is what READY says",
    "over": "waits for room",
    "size": "taken",
    "paused": "downloads pause",
    "resumed": "downloads go on",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one chunk, or to all (`chunk_id` is empty); `text` is what there is to say beyond."""

    kind: Kind
    chunk_id: str
    text: str = ""

    def __str__(self) -> str:
        detail = f": {self.text}" if self.text else ""
        words = filter(None, (SYMBOLS[self.kind], self.chunk_id[:12], PHRASES[self.kind]))
        return f"{' '.join(words)}{detail}"
