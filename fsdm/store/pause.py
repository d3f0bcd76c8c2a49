"""`PAUSE`: while anything stands there, nothing is downloaded; deletes go on."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import DataDirectoryError
from fsdm.model.events import Event
from fsdm.store.filesystem import FileSystem, exists, user_name
from fsdm.store.json_files import read_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.layout import Layout

PAUSE_MAX_BYTES: Final = 1 << 16


def place_pause(layout: Layout, reason: str) -> None:
    """Pause all downloads; raise DataDirectoryError where the disk refuses, or its modes."""
    user = os.environ.get("USER") or user_name(os.geteuid())  # services and containers often have no USER
    document = {"since": round(time.time(), 3), "by": f"{user}@{socket.gethostname()}", "reason": reason}
    try:
        FileSystem().write(layout.pause, json.dumps(document).encode() + b"\n", durable=True)
    except OSError as e:
        raise _refused(layout, e) from e


def remove_pause(layout: Layout) -> bool:
    """Resume the downloads; return whether they were paused. Raises as `place_pause` does."""
    was_there = exists(layout.pause)
    try:
        FileSystem().unlink(layout.pause)
    except OSError as e:
        raise _refused(layout, e) from e
    return was_there


def _refused(layout: Layout, error: OSError) -> DataDirectoryError:
    return DataDirectoryError(
        f"{layout.pause}: {error.strerror}",
        hint="a user who may write in the data directory itself can pause and resume",
    )


@dataclass(slots=True)
class Pause:
    """The pause of the downloads of one data directory, as of the last look."""

    _layout: Layout
    _tell: Callable[[Event], None]
    why: str = ""  # empty while they are not paused

    def look(self) -> bool:
        """Look again; return whether they were paused since the last look."""
        if exists(self._layout.pause) == bool(self.why):
            return False
        self.why = "" if self.why else f"downloads are paused{self._said()}"
        self._tell(Event("paused", "", f"{self.why}; fsdm resume ends it") if self.why else Event("resumed", ""))
        return bool(self.why)

    def _said(self) -> str:
        said = read_document(self._layout.pause, PAUSE_MAX_BYTES)
        shown = ": ".join(word for word in (said.get("by"), said.get("reason")) if isinstance(word, str) and word)
        return f" ({shown})" if shown else ""
