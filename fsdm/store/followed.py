"""`follow/`: which list is applied, as its follower says it, for any process to read.

LIST is the list that was applied last, HELD one that is held back, both as they came; STATE tells of them, and of the
last look. Only the process that holds `follow/LOCK` writes here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.layout import is_id
from fsdm.store.json_files import read_object

if TYPE_CHECKING:
    from fsdm.model.layout import Layout

STATE_MAX_BYTES: Final = 1 << 26
REPORT_MAX_BYTES: Final = 1 << 26
LIST: Final = "LIST"
HELD: Final = "HELD"
STATE: Final = "STATE"
REPORT: Final = "REPORT"
LOCK: Final = "LOCK"


@dataclass(frozen=True, slots=True)
class Followed:
    """The list that a data directory follows.

    `url` without secrets, and `applied_url`, where the list came from that is applied; `applied` the sha256 of the
    list's text (None: no list was applied yet), of `chunks` wants, since `applied_at`. `looked_at`: when it was last
    seen to be so, or was changed. `error` says why the last look failed, "" where it did not; `held_back` why a newer
    list is not applied. Times are seconds since the epoch.
    """

    url: str
    applied: str | None = None
    chunks: int = 0
    applied_at: float | None = None
    looked_at: float | None = None
    error: str = ""
    hint: str = ""
    held_back: str = ""
    held_sha256: str | None = None
    applied_url: str = ""


def path_of(layout: Layout, name: str) -> str:
    """Return the path of a file of `follow/`."""
    return os.path.join(layout.follow, name)


def read_followed(layout: Layout) -> Followed | None:
    """Read which list is followed; None where none is, or its state cannot be read."""
    try:
        said = read_object(path_of(layout, STATE), STATE_MAX_BYTES)
    except (OSError, ValueError):
        return None
    return None if said is None else followed_of(said)


def followed_of(said: dict[str, Any]) -> Followed | None:
    """Take what STATE says; None where that makes no sense."""
    held = said.get("held_back")
    held = held if isinstance(held, dict) else {}
    try:
        return Followed(
            str(said["url"]),
            _sha256(said.get("sha256")),
            int(said.get("chunks") or 0),
            _number(said.get("applied_at")),
            _number(said.get("looked_at")),
            str(said.get("error") or ""),
            str(said.get("hint") or ""),
            str(held.get("why") or ""),
            _sha256(held.get("sha256")),
            str(said.get("applied_url") or said["url"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _sha256(value: object) -> str | None:
    return value if isinstance(value, str) and is_id(value) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
