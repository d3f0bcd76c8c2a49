"""How the demo's lines look: with symbols, in ASCII words where the stream takes no others, or as JSON lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.model import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SYMBOLS: Final[dict[str, str]] = {
    **{str(kind): symbol for kind, symbol in events.SYMBOLS.items()},
    "step": "──",
    "found": "🔎",
    "half-way": "⏳",
    "read": "📖",
    "killed": "💀",
    "violation": "🚨",
    "wrong": "❌",
    "right": "✅",
}
PHRASES: Final[dict[str, str]] = {str(kind): phrase for kind, phrase in events.PHRASES.items()}

_ASCII: Final = str.maketrans({"…": "...", "─": "-", "→": "->", "–": "-"})


class Show:
    """Writes to a stream, a line at a time; used by one thread."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._encoding = getattr(out, "encoding", None) or "utf-8"
        self._plain = not _takes("".join(SYMBOLS.values()) + "…→", self._encoding)

    def line(self, at: float, kind: str, chunk_id: str | None, name: str, text: str) -> None:
        """One thing that happened, `at` seconds after the start; `name` is what people call the chunk."""
        if self._as_json:
            self._write(json.dumps({"at": round(at, 3), "kind": kind, "chunk_id": chunk_id, "text": text}))
            return
        said = ": ".join(filter(None, (PHRASES.get(kind), text)))
        words = filter(None, (self.symbol(kind), chunk_id[:8] if chunk_id else "", name, said))
        self._write(f"{at:6.2f} s  {' '.join(words)}")

    def symbol(self, kind: str) -> str:
        """What stands for a kind: 📡, or [started]."""
        return f"[{kind}]" if self._plain else SYMBOLS[kind]

    def summary(self, ok: bool, numbers: Mapping[str, object], rows: Iterable[tuple[str, ...]], verdict: str) -> None:
        """The last lines: a table and the verdict; or one JSON line."""
        if self._as_json:
            self._write(json.dumps({"ok": ok, **numbers}))
            return
        for row in rows:
            first, *others = row
            self._write(f"  {first:<12}" + "".join(f"{cell:>14}" for cell in others))
        self._write(f"{self.symbol('right' if ok else 'wrong')} {verdict}")

    def _write(self, line: str) -> None:
        if self._plain:
            line = line.translate(_ASCII).encode(self._encoding, "replace").decode(self._encoding)
        self._out.write(line + "\n")
        self._out.flush()


def _takes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
