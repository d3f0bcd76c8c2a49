"""What happens to chunks, as values: for the log, for `fsdm run`, for the demo, for metrics, for a callback.

An event is told after what it names has happened. Nothing is ever decided from one. Its fields are only ever added to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from fsdm.model.errors import Cause

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
    "braked",
    "released",
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
    "braked": "🧱",
    "released": "🔓",
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
    "braked": "deletes are held back",
    "released": "deletes go on",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one chunk, or to all (`chunk_id` is empty); `text` is what there is to say beyond.

    Where it is known: `dataset_id`; `size_bytes` of the chunk, or of the file; `after_s` from the want to *available*,
    or from the delete to *deleted* (a marker that is touched counts from then on); `fetch_s` that the download
    took of what is *available*, in its last attempt; `cause`, where something failed.
    """

    kind: Kind
    chunk_id: str
    text: str = ""
    dataset_id: str | None = None
    size_bytes: int | None = None
    after_s: float | None = None
    fetch_s: float | None = None
    cause: Cause | None = None

    def __str__(self) -> str:
        detail = f": {self.text}" if self.text else ""
        words = filter(None, (SYMBOLS[self.kind], self.chunk_id[:12], PHRASES[self.kind]))
        return f"{' '.join(words)}{detail}"

    def document(self) -> dict[str, Any]:
        """What `fsdm run --json` prints: kind, id and text always, all else where it is known."""
        return {"kind": self.kind, "chunk_id": self.chunk_id, "text": self.text, **self._known()}

    def fields(self) -> dict[str, Any]:
        """What a log record carries besides its message: the fields that say something."""
        text = {"text": self.text} if self.text else {}
        return {"event": self.kind, "chunk_id": self.chunk_id, **text, **self._known()}

    def _known(self) -> dict[str, Any]:
        return {name: value for name in _LATER if (value := getattr(self, name)) is not None}


_LATER: Final = tuple(field.name for field in fields(Event) if field.default is None)
