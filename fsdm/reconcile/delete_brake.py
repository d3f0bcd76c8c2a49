"""The deletes of chunks that are here: whether they go on, or are held back until somebody says that they are meant.

What is held back stays whole: readers refuse it, for its marker stands, and its bytes are not touched. `BRAKE` tells of
it while it lasts, and is what a process that takes over goes on from; `delete/.release` ends it. `BRAKE` is written by
a hand, so that the loop does not wait for the disk. The loop's alone, but for that.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Final

from fsdm.model.events import Event
from fsdm.reconcile.brake import Brake
from fsdm.reconcile.plan import delete_is_later
from fsdm.store.filesystem import exists
from fsdm.store.json_files import read_object
from fsdm.store.markers import look_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout
    from fsdm.model.state import ChunkState
    from fsdm.reconcile.plan import Memo
    from fsdm.store.catalog import Catalog
    from fsdm.store.filesystem import FileSystem

logger = logging.getLogger("fsdm")

BRAKE_MAX_BYTES: Final = 1 << 16
NOTE_S: Final = 1.0
WHAT_TO_DO: Final = "if they are meant: fsdm release; if not: remove their markers in delete/, or want the chunks again"


class DeleteBrake:
    """Which deletes one reconciler carries out. `share` None: all."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        *,
        share: float | None,
        fs: FileSystem,
        workers: Workers,
        tell: Callable[[Event], None],
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._brake = Brake(share)
        self._fs = fs
        self._workers = workers
        self._tell = tell
        self._told = False  # by this process
        self._noted: bytes | None = None  # what BRAKE says, as far as this process knows
        self._noted_at = 0.0
        self._to_note: bytes | None = None
        self._noting = threading.Lock()

    def open(self) -> None:
        """Go on from where an earlier process was braked."""
        self._brake = brake_of(self._layout, self._brake.share)
        if exists(self._layout.brake):
            self._noted = b""  # whatever it says: it is written anew, or removed

    def change(self, share: float | None) -> None:
        """From now on, this is the share."""
        self._brake.share = share

    def see(self, state: ChunkState, memo: Memo) -> None:
        """How one id stands now."""
        see(self._brake, state, memo)

    def judge(self, now: float) -> set[str]:
        """Once all have been seen that are to be decided: the ids that may go on now."""
        brake, was_braked, free = self._brake, self._brake.since is not None, set[str]()
        if brake.held_back and (was_braked or brake.is_too_much(len(self._catalog))):
            free = release(brake, self._layout)
        free |= brake.judge(len(self._catalog), now)
        refusal = self.refusal
        if refusal and not self._told:
            self._tell(Event("braked", "", refusal))
        elif was_braked and not refusal:
            self._tell(Event("released", ""))
        self._told = bool(refusal)
        self._note(now)
        return free

    def holds_back(self, chunk_id: str) -> bool:
        """Whether the delete of this id is not to be carried out now."""
        return self._brake.holds_back(chunk_id)

    @property
    def held_back(self) -> int:
        """How many are held back. In any thread."""
        return self._brake.held_back if self._brake.since is not None else 0

    @property
    def refusal(self) -> str:
        """Why deletes are held back; empty where none is."""
        brake = self._brake
        if brake.since is None:
            return ""
        gone = f", beside {brake.let_go} just before" if brake.let_go else ""
        return f"{brake.held_back} of {brake.before(len(self._catalog))} chunks{gone}; {WHAT_TO_DO}"

    def _note(self, now: float) -> None:
        """Have BRAKE say how it stands: once it begins or ends, and now and then where it changes meanwhile."""
        brake = self._brake
        if (brake.since is None) == (self._noted is None) and 0 <= now - self._noted_at < NOTE_S:
            return
        document = {
            "since": brake.since,
            "held_back": brake.held_back,
            "let_go": brake.let_go,
            "of": brake.before(len(self._catalog)),
            "what_to_do": WHAT_TO_DO,
        }
        text = None if brake.since is None else json.dumps(document).encode() + b"\n"
        if text != self._noted:
            self._noted, self._noted_at, self._to_note = text, now, text
            self._workers.submit(self._write)

    def _write(self) -> None:
        with self._noting:  # of two hands the later one writes what holds by then as well
            try:
                if self._to_note is None:
                    self._fs.unlink(self._layout.brake)
                else:
                    self._fs.write(self._layout.brake, self._to_note, durable=False)
            except OSError as e:  # the log and the event have it, and what is held back stays so
                logger.warning("%s: %s", self._layout.brake, e)


def brake_of(layout: Layout, share: float | None) -> Brake:
    """The brake of a data directory, as an earlier process has left it."""
    brake = Brake(share)
    try:
        said = read_object(layout.brake, BRAKE_MAX_BYTES)
        if said is not None and share is not None:
            brake.since, brake.let_go_before = float(said["since"]), max(int(said["let_go"]), 0)
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as e:
        logger.warning("%s says nothing that can be gone on from: %s", layout.brake, e)
    return brake


def see(brake: Brake, state: ChunkState, memo: Memo) -> None:
    """Tell a brake how one id stands."""
    delete_ns = state.delete.ctime_ns if state.delete is not None and _is_going(state, memo) else None
    brake.see(state.id, delete_ns, is_here=bool(state.ready or state.unready))


def release(brake: Brake, layout: Layout) -> set[str]:
    """Let go what `delete/.release` says is meant; the ids that were held back."""
    released = look_at(layout.release)
    return set() if released is None or released.fault is not None else brake.release(released.ctime_ns)


def _is_going(state: ChunkState, memo: Memo) -> bool:
    """Whether a delete stands that would take away what is here (see `plan.decide`)."""
    want, delete = state.want, state.delete
    if delete is None or delete.fault is not None or not (state.ready or state.unready):
        return False
    if want is None or want.fault is not None:
        return True
    unreadable = memo.unreadable is not None and memo.unreadable.want.same_as(want)
    return unreadable or delete_is_later(want, delete, memo)
