"""The newest facts, for any number of browsers: parts with versions, of which each is sent only the newest.

Invariant: nothing is kept for a browser but the versions that it was sent. So one that is slow gets fewer and newer
parts, and no queue grows. Thread-safe.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Board:
    """Parts by name, each a JSON text with the number of its last change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._parts: dict[str, tuple[int, bytes]] = {}
        self._number = 0
        self._closed = False

    def put(self, documents: Mapping[str, Any]) -> bool:
        """Take these parts as they are now, wake who waits, and return whether any of them has changed."""
        texts = {name: json.dumps(document, separators=(",", ":")).encode() for name, document in documents.items()}
        with self._changed:
            changed = {name: text for name, text in texts.items() if self._parts.get(name, (0, b""))[1] != text}
            for name, text in changed.items():
                self._number += 1
                self._parts[name] = self._number, text
            if changed:
                self._changed.notify_all()
        return bool(changed)

    def wait(self, seen: int, timeout_s: float) -> tuple[int, dict[str, bytes]]:
        """Wait for a part that is newer than `seen`; return the newest number, and the parts since."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > seen or self._closed, timeout_s)
            return self._number, {name: text for name, (number, text) in self._parts.items() if number > seen}

    def close(self) -> None:
        """Let everyone go who waits, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._closed
