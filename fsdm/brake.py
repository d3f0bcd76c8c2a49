"""When so much is to be removed that it may be a mistake, and somebody is asked first. Pure.

A share is a part of what is here: 0.25 is a quarter; None is no brake.
"""

from __future__ import annotations

import re
from typing import Final

from fsdm.errors import BrakedError, InvalidInputError

SHARE: Final = 0.25
FEW_DELETES: Final = 10  # by one command: fewer are typed by hand, and meant

_SHARE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)\Z")


def parse_share(text: str) -> float | None:
    """The share that `0.25` or `25%` means; None for `off`.

    Raises:
        InvalidInputError: it is no share.
    """
    if text == "off":
        return None
    found = _SHARE.match(text)
    share = float(found[1]) / (100 if found[2] else 1) if found is not None else -1.0
    if not 0 <= share <= 1:
        raise InvalidInputError(f"{text!r:.80} is no share", hint="a number from 0 to 1, or a percentage, or off: 25%")
    return share


def exceeds(going: int, here: int, share: float | None) -> bool:
    """Whether it is more than the share that is to go of what is here."""
    return share is not None and going > share * here


def too_much(going: int, here: int, share: float | None) -> str:
    """What is too much about it, or nothing where no more than the share is to go."""
    if not exceeds(going, here, share):
        return ""
    return f"{going} of the {here} chunks that are here would go, which is more than {share:.0%}"


def check(going: int, here: int, share: float | None) -> None:
    """See that no more than the share is to go.

    Raises:
        BrakedError: it is more.
    """
    if why := too_much(going, here, share):
        raise BrakedError(why, hint="nothing was changed; where that is meant, say so: --yes")
