"""The owner's settings of a list that is followed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.errors import InvalidInputError
from fsdm.model.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERY_S: Final = 60.0
EVERY_MIN_S: Final = 1.0
ZONE_MAX: Final = 128
NODE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"  # it is a part of file names and of URLs
KEYS: Final = ("url", "every", "report", "node-id", "zone", "capacity")


@dataclass(frozen=True, slots=True)
class Follow:
    """The list that a node follows, how often it looks, and where it reports to, as whom.

    `url` is a URL or a file; `report` a directory, or a URL that takes PUT; `capacity` in bytes.
    """

    url: str = ""
    every_s: float = EVERY_S
    report: str | None = None
    node_id: str | None = None
    zone: str | None = None
    capacity: int | None = None

    def given(self, table: Mapping[str, Any]) -> Follow:
        """Return these settings with those of a table, by the keys of KEYS; None keeps what there is.

        Raises:
            InvalidInputError: names the key whose value cannot be taken.
        """
        found = self
        for key, value in table.items():
            if value is None:
                continue
            try:
                changed: dict[str, Any] = {_FIELDS[key]: _PARSERS[key](value)}
                found = replace(found, **changed)
            except InvalidInputError as e:
                raise InvalidInputError(str(e), field=key, hint=e.hint) from None
        return found


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidInputError("must be a text")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(NODE_NAME, value):
        hint = "up to 128 letters, digits, dots, dashes and underscores, and neither of the last three at its beginning"
        raise InvalidInputError(f"{value!r:.140} is no name of a node", hint=hint)
    return value


def _zone(value: object) -> str:
    if len(zone := _text(value)) > ZONE_MAX:
        raise InvalidInputError(f"has more than {ZONE_MAX} characters")
    return zone


def _capacity(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return parse_size(_text(value))


def _every(value: object) -> float:
    seconds = value if isinstance(value, int | float) and not isinstance(value, bool) else parse_duration(_text(value))
    if not EVERY_MIN_S <= seconds <= 86_400:
        raise InvalidInputError("must be from 1 s to a day", hint="as 60s, 5m or 1h")
    return float(seconds)


_FIELDS: Final = {"every": "every_s"} | {key: key.replace("-", "_") for key in KEYS if key != "every"}
_PARSERS: Final = {
    "url": _text,
    "every": _every,
    "report": _text,
    "node-id": _name,
    "zone": _zone,
    "capacity": _capacity,
}
