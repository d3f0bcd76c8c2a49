"""The words on a list that is followed, for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.model.units import ago, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.store.followed import Followed

SHORT = 12  # digits of a sha256


def followed_words(followed: Followed, now: float) -> Iterator[str]:
    """Say which list is applied, and what keeps the newest from it."""
    if followed.held_back:
        held = (followed.held_sha256 or "")[:SHORT]
        why = f"{followed.held_back}; if it is meant: fsdm release"
        yield f"HELD BACK: list {held} of {followed.url} is not applied: {why}"
    if followed.error:
        hint = f" ({followed.hint})" * bool(followed.hint)
        yield f"THE LIST CANNOT BE APPLIED: {followed.error}{hint}"
    if followed.applied is None:
        yield f"no list of {followed.url} is applied yet"
    else:
        since = "" if followed.looked_at is None else f", as of {ago(followed.looked_at, now)}"
        where = followed.applied_url or followed.url
        yield f"list {followed.applied[:SHORT]} of {where} is applied: {count(followed.chunks, 'chunk')}{since}"
