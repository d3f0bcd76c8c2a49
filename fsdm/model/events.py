"""Events: the values that logs, `fsdm run`, the demo, the metrics and callbacks are told.

An event is told after the fact. Nothing is ever decided from one, and fields are only ever added.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from fsdm.model.errors import Cause

ChunkKind = Literal[
    "started",
    "file",
    "available",
    "retiring",
    "deleted",
    "evicted",
    "failed",
    "stopped",
    "damaged",
    "verified",
    "over",
    "size",
]
Kind = Literal[ChunkKind, "paused", "resumed", "braked", "released", "gap"]  # these are about all chunks

_SHOWN: Final[dict[Kind, tuple[str, str]]] = {
    "started": ("📡", "download starts"),
    "file": ("💾", "file done"),
    "available": ("✅", "available"),
    "retiring": ("⌛", "waiting for refs"),
    "deleted": ("❌", "deleted"),
    "evicted": ("🧹", "evicted"),
    "failed": ("🔥", "failed"),
    "stopped": ("🛑", "download stopped"),
    "damaged": ("🩹", "taken out of service"),
    "verified": ("🔎", "is what READY says"),
    "over": ("🚫", "waits for room"),
    "size": ("📏", "taken"),
    "paused": ("🚧", "downloads pause"),
    "resumed": ("🟢", "downloads go on"),
    "braked": ("🧱", "deletes are held back"),
    "released": ("🔓", "deletes go on"),
    "gap": ("❓", "events are missing"),
}
SYMBOLS: Final = {kind: symbol for kind, (symbol, _) in _SHOWN.items()}
PHRASES: Final = {kind: phrase for kind, (_, phrase) in _SHOWN.items()}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a chunk, or to all of them; `text` has the details.

    A *gap* stands for events that were dropped, because whoever was told of those before them took too long.
    `chunk_id` is empty where it is about all. Where it is known: `dataset_id`; `size_bytes` of the chunk, or of the
    file; `after_s`, the time from the want to *available*, or from the delete to *deleted* (a touched marker counts
    from then on), or from the last use to *evicted*; `fetch_s`, the time that the last attempt to download an
    *available* chunk took; `cause` of a failure.
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
        """Return the line of `fsdm run --json`: kind, id and text, the rest where it is known."""
        return {"kind": self.kind, "chunk_id": self.chunk_id, "text": self.text, **self._known()}

    def fields(self) -> dict[str, Any]:
        """Return the fields of a log record: those that are not empty."""
        text = {"text": self.text} if self.text else {}
        return {"event": self.kind, "chunk_id": self.chunk_id, **text, **self._known()}

    def _known(self) -> dict[str, Any]:
        return {name: value for name in _LATER if (value := getattr(self, name)) is not None}


_LATER: Final = tuple(field.name for field in fields(Event) if field.default is None)
