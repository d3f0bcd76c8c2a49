"""Who that is: the process that reconciles, as LOCK says (JSON, perhaps of another version, or none), and a user."""

from __future__ import annotations

import json
import pwd
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that reconciles; None where that is not known. `since` is in seconds since the epoch.

    `says` is what LOCK says, as it stands there; or a sentence, where this user may not read it.
    """

    pid: int | None = None
    host: str | None = None
    since: float | None = None
    says: str = field(default="", compare=False)

    @classmethod
    def parse(cls, says: str) -> Owner:
        """What can be understood of what LOCK says."""
        try:
            document: Any = json.loads(says)
            pid, host, since = (document.get(name) for name in ("pid", "host", "since"))
        except (ValueError, AttributeError, RecursionError):
            return cls(says=says)
        return cls(
            pid if isinstance(pid, int) else None,
            host if isinstance(host, str) else None,
            since if isinstance(since, int | float) else None,
            says,
        )

    def __str__(self) -> str:
        if self.pid is None:
            return "not known"
        return f"pid {self.pid} on {self.host}" if self.host else f"pid {self.pid}"


def user_name(uid: int) -> str:
    """The name of a user, or the number: not every uid has a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def in_words(says: str | None) -> str:
    """Who reconciles, for people; what is no JSON is a sentence already."""
    if says is None:
        return "none"
    owner = Owner.parse(says)
    return str(owner) if owner.pid is not None else says
