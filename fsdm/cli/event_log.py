"""The lines of `fsdm run` on stderr: events and warnings of the log, as text or as JSON.

Programs may rely on the JSON alone, whose fields only grow.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.events import PHRASES
from fsdm.model.units import count
from fsdm.status.terminal import encodable, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.events import Event

WARNINGS: Final = frozenset({"failed", "damaged", "over", "paused", "braked"})  # events that may ask for an action


def write_line(line: str) -> None:
    """Write a line on stderr, at once and in one piece."""
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stderr.flush()


def say(message: str, *, as_json: bool, level: str = "warning") -> None:
    """Write a message that is neither an event nor a record of the log."""
    write_line(_message(message, as_json=as_json, level=level))


def dropped_lines(number: int, *, as_json: bool) -> str:
    """Return the line that tells how many lines were dropped from stderr."""
    told = f"{count(number, 'line')} of this log could not be written, and {'was' if number == 1 else 'were'} dropped"
    return f"{_message(told, as_json=as_json, level='warning')}\n"


def _message(message: str, *, as_json: bool, level: str) -> str:
    if as_json:
        return _line(level, datetime.now(UTC), event="log", message=message)
    return f"fsdm: {plain(message)}"


class EventLog(logging.Handler):
    """Writes events and log records as lines, from any thread."""

    def __init__(self, *, as_json: bool, write: Callable[[str], None] = write_line) -> None:
        super().__init__(logging.WARNING)
        self._as_json = as_json
        self._write = write

    def event(self, event: Event) -> None:
        """Write an event of a chunk."""
        if not self._as_json:
            self._write(plain(str(event)))
            return
        said = {name: value for name, value in asdict(event).items() if value not in {None, ""} and name != "kind"}
        level = "warning" if event.kind in WARNINGS else "info"
        self._write(_line(level, datetime.now(UTC), event=event.kind, message=PHRASES[event.kind], **said))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of the log."""
        text = (self.formatter or logging.Formatter()).format(record)
        if not self._as_json:
            for line in text.splitlines():
                self._write(plain(line))
            return
        at = datetime.fromtimestamp(record.created, UTC)
        said = {"error": text} if record.exc_info else {}
        self._write(_line(record.levelname.lower(), at, event="log", message=record.getMessage(), **said))


def _line(level: str, at: datetime, **said: Any) -> str:
    time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return encodable(json.dumps({"time": time, "level": level, **said}, ensure_ascii=False, default=str))
