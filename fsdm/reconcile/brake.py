"""When so much is to be removed that it may be a mistake, and somebody is asked first. Pure: `now` is an argument.

A share is a part of what is here: 0.25 is a quarter; None is no brake. Commands ask before they place a marker. The
reconciler meets markers that anybody has placed, one by one: so it counts what it has let go within a window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from fsdm.model.errors import BrakedError, InvalidInputError

SHARE: Final = 0.25
FEW_DELETES: Final = 10  # by one command: fewer are typed by hand, and meant
MANY_CHUNKS: Final = 100  # in a window: fewer are no burst
WINDOW_S: Final = 600.0

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


@dataclass(slots=True)
class Brake:
    """Which deletes of chunks that are here are carried out, and which are held back.

    A delete is let go the first time it is seen, unless that would be too much: of at least MANY_CHUNKS together with
    those that were let go within WINDOW_S, more than `share` of what is, or was, here. Then all that have not been let
    go are held back (`since` says since when), however long, until they are released, or so many of them withdrawn
    that it is no longer too much.

    Invariants: one that has been let go is never held back later; what a release covers is never counted.
    """

    share: float | None
    since: float | None = None
    let_go_before: int = 0  # by an earlier process, which was braked then
    _held_back: dict[str, int] = field(default_factory=dict)  # id → its delete's ctime
    _free: set[str] = field(default_factory=set)  # whose deletes stand, and have been let go
    _counted: dict[str, tuple[float, int]] = field(default_factory=dict)  # let go: when (in this order), ctime
    _left: set[str] = field(default_factory=set)  # of those that count: the ones that are here no more
    _released_ns: int = -1

    def see(self, chunk_id: str, delete_ns: int | None, *, is_here: bool) -> None:
        """How one id stands now: the ctime of the delete that would take it away (None: there is none)."""
        if self.share is None:
            return
        if chunk_id in self._counted:
            if is_here and delete_ns is None:  # it was withdrawn in time
                self._forget(chunk_id)
            elif not is_here:
                self._left.add(chunk_id)
        if delete_ns is None:
            self._held_back.pop(chunk_id, None)
            self._free.discard(chunk_id)
        elif delete_ns <= self._released_ns:
            self._free.add(chunk_id)
        elif chunk_id not in self._free:
            self._held_back[chunk_id] = delete_ns

    def release(self, ctime_ns: int) -> set[str]:
        """All deletes up to this ctime are meant; those that were held back."""
        if ctime_ns <= self._released_ns:
            return set()
        self._released_ns = ctime_ns
        self.let_go_before = 0
        for chunk_id in [key for key, (_, delete_ns) in self._counted.items() if delete_ns <= ctime_ns]:
            self._forget(chunk_id)
        free = {chunk_id for chunk_id, delete_ns in self._held_back.items() if delete_ns <= ctime_ns}
        self._free |= free
        for chunk_id in free:
            del self._held_back[chunk_id]
        return free

    def judge(self, here: int, now: float) -> set[str]:
        """Let go what may go, where `here` chunks are here; the ids of those."""
        if self.since is None:
            while self._counted and self._counted[first := next(iter(self._counted))][0] <= now - WINDOW_S:
                self._forget(first)
        if self.is_too_much(here):
            self.since = now if self.since is None else self.since
            return set()
        self.since, self.let_go_before = None, 0
        free, self._held_back = self._held_back, {}
        self._free |= free.keys()
        for chunk_id, delete_ns in free.items():
            self._counted.pop(chunk_id, None)
            self._counted[chunk_id] = now, delete_ns
        return set(free)

    def is_too_much(self, here: int) -> bool:
        """Whether all that would go now is too much."""
        going = self.let_go + self.held_back
        return self.held_back > 0 and going >= MANY_CHUNKS and exceeds(going, self.before(here), self.share)

    def holds_back(self, chunk_id: str) -> bool:
        """Whether the delete of this id is not to be carried out."""
        return chunk_id in self._held_back

    def before(self, here: int) -> int:
        """How many were here before those went that count."""
        return here + len(self._left) + self.let_go_before

    @property
    def held_back(self) -> int:
        """How many are held back, or are still to be judged."""
        return len(self._held_back)

    @property
    def let_go(self) -> int:
        """How many count that have been let go."""
        return len(self._counted) + self.let_go_before

    def _forget(self, chunk_id: str) -> None:
        del self._counted[chunk_id]
        self._left.discard(chunk_id)
