"""Holding back bursts of deletes until released or withdrawn (PROTOCOL.md, "The brake").

A share is a part of the chunks that are here: 0.25 is a quarter; None is no brake. Commands check it before they place
markers; the reconciler counts the deletes of a time window. Every verb imports this: nothing heavy is imported here.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fsdm.concurrency.log import Log
from fsdm.model.errors import BrakedError, InvalidInputError
from fsdm.model.events import Event
from fsdm.model.layout import READY
from fsdm.model.units import readable
from fsdm.store.filesystem import exists
from fsdm.store.json_files import declared_bytes, read_document, read_object
from fsdm.store.markers import look_at, place_delete, release_deletes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout
    from fsdm.model.state import ChunkState
    from fsdm.store.catalog import Catalog
    from fsdm.store.filesystem import FileSystem

logger = Log("fsdm")

SHARE: Final = 0.25
FEW_DELETES: Final = 10  # by one command: fewer are typed by hand, and meant
MANY_CHUNKS: Final = 100  # in a window: fewer are no burst, unless they have …
MANY_BYTES: Final = 100_000_000_000  # … so many: less is fetched again within the hour
WINDOW_S: Final = 600.0
BRAKE_MAX_BYTES: Final = 1 << 16
WRITE_EVERY_S: Final = 1.0
WHAT_TO_DO: Final = "if they are meant: fsdm release; if not: remove their markers in delete/, or want the chunks again"

_SHARE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)\Z")


# --------------------------------------------------------------------------------------------------------- for commands


def parse_share(text: str) -> float | None:
    """Parse `0.25` or `25%`; None for `off`.

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
    """Tell whether more than the share of what is here is to go."""
    return share is not None and going > share * here


@dataclass(frozen=True, slots=True)
class Going:
    """The chunks that would go, of so many that are `here`, and their bytes.

    `here_bytes` counts those of all that are here; it is called only where much would go.
    """

    chunks: int
    here: int
    size_bytes: int = 0
    here_bytes: Callable[[], int] = int

    def too_much(self, share: float | None) -> str:
        """Describe what is too much; empty where no more than the share of the chunks, and of the bytes, is to go."""
        if share is None:
            return ""
        told = f"{self.chunks} of the {self.here} chunks that are here would go"
        if exceeds(self.chunks, self.here, share):
            return f"{told}, which is more than {share:.0%}"
        if self.size_bytes < MANY_BYTES or not exceeds(self.size_bytes, here_bytes := self.here_bytes(), share):
            return ""
        return f"{told}, with {readable(self.size_bytes)} of {readable(here_bytes)}, which is more than {share:.0%}"

    def check(self, share: float | None) -> None:
        """Refuse more than the share.

        Raises:
            BrakedError: more is to go.
        """
        if why := self.too_much(share):
            raise BrakedError(why, hint="nothing was changed; where that is meant, say so: --yes")


def place_deletes(
    layout: Layout, ids: Iterable[str], *, meant: bool, place: Callable[[str], object] | None = None
) -> None:
    """Ask for chunks to be deleted, perhaps by `place`. `meant`: release all deletes that stand then."""
    place = place or partial(place_delete, layout)
    for number, chunk_id in enumerate(ids, 1):
        place(chunk_id)
        if meant and number % (MANY_CHUNKS // 2) == 0:  # before so many stand that the reconciler holds them back
            release_deletes(layout)
    if meant:
        release_deletes(layout)


# ----------------------------------------------------------------------------------------------------------- the policy


class Delete(NamedTuple):
    """A delete of a chunk that is here: its ctime, and the chunk's bytes."""

    ctime_ns: int
    size_bytes: int


@dataclass(slots=True)
class Brake:
    """The deletes of chunks that are here: those that may pass, and those held back. Pure.

    A delete passes the first time it is seen, unless that would be too much: at least MANY_CHUNKS and more than `share`
    of what is, or was, here, together with those that passed within WINDOW_S; or at least FEW_DELETES with MANY_BYTES,
    and more than `share` of the bytes. Then all that have not passed are held back (`since` says since when), however
    long, until they are released, or enough of them are withdrawn. What is not known to have bytes counts as a chunk.

    Invariants: a delete that has passed is never held back later; a released one is never counted.
    """

    share: float | None
    since: float | None = None
    passed_before: int = 0  # in an earlier process, which was braked then
    passed_bytes_before: int = 0
    _held_back: dict[str, Delete] = field(default_factory=dict)
    _held_back_bytes: int = 0
    _passed: set[str] = field(default_factory=set)  # ids whose deletes stand
    _counted: dict[str, tuple[float, Delete]] = field(default_factory=dict)  # passed: when (in this order)
    _counted_bytes: int = 0
    _left: set[str] = field(default_factory=set)  # counted ids that are here no more
    _left_bytes: int = 0
    _released_ns: int = -1

    def knows(self, chunk_id: str) -> bool:
        """Tell whether the bytes of this id need not be told once more."""
        return self.share is None or chunk_id in self._held_back or chunk_id in self._passed

    def see(self, chunk_id: str, delete_ns: int | None, *, is_here: bool, size_bytes: int = 0) -> None:
        """Take in how one id stands.

        `delete_ns` is the ctime of the delete that would take it away, with so many bytes, unless these are known.
        """
        if self.share is None:
            return
        if chunk_id in self._counted:
            if is_here and delete_ns is None:  # it was withdrawn in time
                self._uncount(chunk_id)
            elif not is_here and chunk_id not in self._left:
                self._left.add(chunk_id)
                self._left_bytes += self._counted[chunk_id][1].size_bytes
        if delete_ns is None:
            self._unhold(chunk_id)
            self._passed.discard(chunk_id)
        elif delete_ns <= self._released_ns:
            self._passed.add(chunk_id)
        elif chunk_id not in self._passed:
            known = self._unhold(chunk_id)
            delete = Delete(delete_ns, size_bytes if known is None else known.size_bytes)
            self._held_back[chunk_id] = delete
            self._held_back_bytes += delete.size_bytes

    def release(self, ctime_ns: int) -> set[str]:
        """Let all deletes up to this ctime pass; return the ids that were held back."""
        if ctime_ns <= self._released_ns:
            return set()
        self._released_ns = ctime_ns
        self.passed_before = self.passed_bytes_before = 0
        for chunk_id in [key for key, (_, delete) in self._counted.items() if delete.ctime_ns <= ctime_ns]:
            self._uncount(chunk_id)
        released = {chunk_id for chunk_id, delete in self._held_back.items() if delete.ctime_ns <= ctime_ns}
        self._passed |= released
        for chunk_id in released:
            self._unhold(chunk_id)
        return released

    def judge(self, here: int, now: float, here_bytes: Callable[[], int] = int) -> set[str]:
        """Decide on all that were seen, where `here` chunks are here; return the ids that may go.

        `here_bytes` counts the bytes of all that are here; it is called only where much would go.
        """
        if self._counted and next(reversed(self._counted.values()))[0] > now:  # the clock was set back
            self._counted = {one: (min(at, now), delete) for one, (at, delete) in self._counted.items()}
        if self.since is None:
            while self._counted and self._counted[first := next(iter(self._counted))][0] <= now - WINDOW_S:
                self._uncount(first)
        if self.is_too_much(here, here_bytes):
            self.since = now if self.since is None else self.since
            return set()
        self.since, self.passed_before, self.passed_bytes_before = None, 0, 0
        passing, self._held_back, self._held_back_bytes = self._held_back, {}, 0
        self._passed |= passing.keys()
        for chunk_id, delete in passing.items():
            if chunk_id in self._counted:
                self._uncount(chunk_id)
            self._counted[chunk_id] = now, delete
            self._counted_bytes += delete.size_bytes
        return set(passing)

    def is_too_much(self, here: int, here_bytes: Callable[[], int] = int) -> bool:
        """Tell whether all that would go now is too much."""
        going, going_bytes = self.passed + self.held_back, self.passed_bytes + self._held_back_bytes
        if self.held_back == 0 or self.share is None:
            return False
        if going >= MANY_CHUNKS and exceeds(going, self.before(here), self.share):
            return True
        is_large = going >= FEW_DELETES and going_bytes >= MANY_BYTES
        return is_large and exceeds(going_bytes, self.bytes_before(here_bytes()), self.share)

    def holds_back(self, chunk_id: str) -> bool:
        """Tell whether the delete of this id is not to be carried out."""
        return chunk_id in self._held_back

    def before(self, here: int) -> int:
        """Count what was here before the counted ones went."""
        return here + len(self._left) + self.passed_before

    def bytes_before(self, here_bytes: int) -> int:
        """Count the bytes that were here before the counted ones went."""
        return here_bytes + self._left_bytes + self.passed_bytes_before

    @property
    def held_back(self) -> int:
        """Return how many are held back, or still to be judged."""
        return len(self._held_back)

    @property
    def held_back_bytes(self) -> int:
        """Return the bytes of those."""
        return self._held_back_bytes

    @property
    def passed(self) -> int:
        """Return how many have passed, of those that count."""
        return len(self._counted) + self.passed_before

    @property
    def passed_bytes(self) -> int:
        """Return the bytes of those."""
        return self._counted_bytes + self.passed_bytes_before

    def _uncount(self, chunk_id: str) -> None:
        size_bytes = self._counted.pop(chunk_id)[1].size_bytes
        self._counted_bytes -= size_bytes
        if chunk_id in self._left:
            self._left.discard(chunk_id)
            self._left_bytes -= size_bytes

    def _unhold(self, chunk_id: str) -> Delete | None:
        delete = self._held_back.pop(chunk_id, None)
        self._held_back_bytes -= 0 if delete is None else delete.size_bytes
        return delete


def read_brake(layout: Layout, share: float | None) -> Brake:
    """Read the brake of a data directory from BRAKE, as an earlier process has left it."""
    brake = Brake(share)
    try:
        said = read_object(layout.brake, BRAKE_MAX_BYTES)
        if said is not None and share is not None:
            brake.since, brake.passed_before = float(said["since"]), max(int(said["let_go"]), 0)
            brake.passed_bytes_before = max(int(said.get("let_go_bytes", 0)), 0)
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as e:
        logger.warning("%s says nothing that can be gone on from: %s", layout.brake, e)
    return brake


def see(brake: Brake, layout: Layout, state: ChunkState, *, is_going: bool) -> None:
    """Show a brake how one id stands; `is_going`: its delete would take it away."""
    delete_ns = state.delete.ctime_ns if state.delete is not None and is_going else None
    size_bytes = 0
    if delete_ns is not None and not brake.knows(state.id):
        ready = (read_document(f"{layout.path(place)}/{READY}") for place in state.ready)
        size_bytes = sum(declared_bytes(said.get("files")) or 0 for said in ready)
    brake.see(state.id, delete_ns, is_here=bool(state.ready or state.unready), size_bytes=size_bytes)


def release(brake: Brake, layout: Layout) -> set[str]:
    """Let pass what `delete/.release` covers; return the ids that were held back."""
    released = look_at(layout.release)
    return set() if released is None or released.fault is not None else brake.release(released.ctime_ns)


# ----------------------------------------------------------------------------------------------------- the reconciler's


@dataclass(slots=True)
class DeleteBrake:
    """The brake of one reconciler, with its files. The loop's alone, but for `held_back`."""

    layout: Layout
    catalog: Catalog
    brake: Brake
    fs: FileSystem
    workers: Workers
    tell: Callable[[Event], None]
    here_bytes: Callable[[], int] = int
    _told: bool = False  # by this process
    _text: bytes | None = None  # of BRAKE, as far as this process knows
    _text_at: float = 0.0
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Go on from where an earlier process was braked."""
        self.brake = read_brake(self.layout, self.brake.share)
        if exists(self.layout.brake):
            self._text = b""  # whatever it says: it is written anew, or removed

    def judge(self, now: float) -> set[str]:
        """Decide, once all ids of a pass have been seen; return those that may go now."""
        brake, was_braked, passing = self.brake, self.brake.since is not None, set[str]()
        if brake.held_back and (was_braked or brake.is_too_much(len(self.catalog), self.here_bytes)):
            passing = release(brake, self.layout)
        passing |= brake.judge(len(self.catalog), now, self.here_bytes)
        refusal = self.refusal
        if refusal and not self._told:
            self.tell(Event("braked", "", refusal))
        elif was_braked and not refusal:
            self.tell(Event("released", ""))
        self._told = bool(refusal)
        self._update_file(now)
        return passing

    @property
    def held_back(self) -> int:
        """Return how many are held back. In any thread."""
        return self.brake.held_back if self.brake.since is not None else 0

    @property
    def refusal(self) -> str:
        """The reason why deletes are held back; empty where none is."""
        brake = self.brake
        if brake.since is None:
            return ""
        gone = f", beside {brake.passed} just before" if brake.passed else ""
        of = f"{brake.before(len(self.catalog))} chunks"
        if brake.held_back_bytes >= MANY_BYTES:
            of += f", with {readable(brake.held_back_bytes)}"
        return f"{brake.held_back} of {of}{gone}; {WHAT_TO_DO}"

    def _update_file(self, now: float) -> None:
        """Have a worker write BRAKE when braking begins, now and then, and remove it in the end."""
        brake = self.brake
        if (brake.since is None) == (self._text is None) and 0 <= now - self._text_at < WRITE_EVERY_S:
            return
        document = {
            "since": brake.since,
            "held_back": brake.held_back,
            "let_go": brake.passed,
            "of": brake.before(len(self.catalog)),
            "held_back_bytes": brake.held_back_bytes,
            "let_go_bytes": brake.passed_bytes,
            "what_to_do": WHAT_TO_DO,
        }
        text = None if brake.since is None else json.dumps(document).encode() + b"\n"
        if text != self._text:
            self._text, self._text_at = text, now
            self.workers.submit(self._write)

    def _write(self) -> None:
        with self._writing:  # the later one of two workers writes what holds by then as well
            text = self._text
            try:
                if text is None:
                    self.fs.unlink(self.layout.brake)
                else:
                    self.fs.write(self.layout.brake, text, durable=False)
            except OSError as e:  # the log and the event have it, and what is held back stays so
                logger.warning("%s: %s", self.layout.brake, e)
