"""The lines of `fsdm run` on stderr: events and warnings of the log, as text or as JSON.

Programs may rely on the JSON alone, whose fields only grow.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from fsdm.model.events import PHRASES
from fsdm.model.units import count, utc
from fsdm.status.terminal import encodable, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.events import Event

Level = Literal["info", "warning"]
OWN: Final = "fsdm.cli"  # the logger of what the command line says beside events, also at level info
FOLLOWING: Final = "fsdm.follow"  # that of what is said of a list that is followed
WARNINGS: Final = frozenset({"failed", "damaged", "over", "paused", "braked"})  # events that may ask for an action


def write_line(line: str) -> None:
    """Write a line on stderr, at once and in one piece."""
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stderr.flush()


def say(message: str, *, as_json: bool, level: Level = "warning") -> None:
    """Write a message that is neither an event nor a record of the log."""
    write_line(_message(message, as_json=as_json, level=level))


def dropped_lines(number: int, *, as_json: bool) -> str:
    """Return the line that tells how many lines were dropped from stderr."""
    told = f"{count(number, 'line')} of this log could not be written, and {'was' if number == 1 else 'were'} dropped"
    return f"{_message(told, as_json=as_json, level='warning')}\n"


def _message(message: str, *, as_json: bool, level: Level) -> str:
    at = datetime.now(UTC)
    return _line(level, at, event="log", message=message) if as_json else _text(level, at, message)


def _text(level: str, at: datetime, message: str) -> str:
    """Make a line for people: the local time, the level, and what is said."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} {level:<7} {plain(message)}"


class EventLog(logging.Handler):
    """Writes events and log records as lines, from any thread.

    Of the log these are warnings, and what is said by `OWN` and `FOLLOWING`. `quiet`: nothing of level info.
    """

    def __init__(self, *, as_json: bool, quiet: bool = False, write: Callable[[str], None] = write_line) -> None:
        super().__init__(logging.WARNING if quiet else logging.INFO)
        self._as_json, self._quiet = as_json, quiet
        self._write = write
        self._size = ""  # the last one that was told

    def event(self, event: Event) -> None:
        """Write an event of a chunk; a size that was told last is not told again."""
        level: Level = "warning" if event.kind in WARNINGS else "info"
        if (self._quiet and level == "info") or (event.kind == "size" and event.text == self._size):
            return
        if event.kind == "size":
            self._size = event.text
        at = datetime.now(UTC)
        if not self._as_json:
            self._write(_text(level, at, str(event)))
            return
        said = {name: value for name, value in asdict(event).items() if value not in {None, ""} and name != "kind"}
        self._write(_line(level, at, event=event.kind, message=PHRASES[event.kind], **said))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of the log."""
        if record.levelno < logging.WARNING and record.name not in {OWN, FOLLOWING}:
            return  # events come by `event`, and the log has them too
        text = (self.formatter or logging.Formatter()).format(record)
        level, at = record.levelname.lower(), datetime.fromtimestamp(record.created, UTC)
        if not self._as_json:
            for line in text.splitlines():
                self._write(_text(level, at, line))
            return
        said = {"error": text} if record.exc_info else {}
        self._write(_line(level, at, event="log", message=record.getMessage(), **said))


def _line(level: str, at: datetime, **said: Any) -> str:
    return encodable(json.dumps({"time": utc(at.timestamp()), "level": level, **said}, ensure_ascii=False, default=str))
