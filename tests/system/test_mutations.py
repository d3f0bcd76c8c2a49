"""Known faults, put into the package on purpose: the state machine must find each of them.

A machine that finds nothing may be blind. So each test here breaks one promise of the protocol (a look that is left
out, two steps in the wrong order, a lock that is not taken), by replacing functions of the package, and sees that the
machine of `test_stateful` fails then. The searches are the same every time, and end with the first failure.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import fsdm.reconcile.apply
import fsdm.reconcile.plan
import fsdm.reconcile.reconciler
import fsdm.reconcile.repair
import fsdm.store.block_index
import fsdm.store.markers
import fsdm.verify.background
import fsdm.verify.manifest_check
from fsdm.model.documents import Manifest
from fsdm.model.layout import READY, Layout, Place
from fsdm.model.state import Marker
from fsdm.reconcile.actions import Clear, Done, Publish, Stale
from fsdm.reconcile.apply import Applier
from fsdm.reconcile.memo import Memo
from fsdm.store import refs
from fsdm.store.filesystem import FileSystem
from fsdm.store.flock import SHARED, close_fd
from fsdm.store.refs import Refs
from tests.support.machines import SETTINGS, Asking, Bringing, Everything, Judging, Readers, Removing, Verifying
from tests.support.mutants import (
    Mutant,
    asides_left,
    marker_not_judged_aside,
    ready_before_the_files,
    rename_and_unlink,
)

pytestmark = pytest.mark.timeout(600)  # a search is long where the machine is busy

SEARCH = settings(
    SETTINGS,
    max_examples=2000,
    stateful_step_count=15,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


def opens_by(put: pytest.MonkeyPatch, looks: Callable[[int, str, str], bool]) -> None:
    """Replace the looks that decide, once a chunk's directory is open, whether it is available."""

    def open_ready(path: str, marker: str) -> int | None:
        try:
            fd = refs.open_fd(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if looks(fd, path, marker):
            return fd
        close_fd(fd)
        return None

    put.setattr(refs, "_open_ready", open_ready)


def ready_by_path(put: pytest.MonkeyPatch) -> None:
    """READY is looked for by path, not through the locked descriptor."""

    def looks(fd: int, path: str, marker: str) -> bool:
        return refs.try_flock(fd, SHARED) and refs.exists(f"{path}/{READY}") and not refs.exists(marker)

    opens_by(put, looks)


def ready_before_the_lock(put: pytest.MonkeyPatch) -> None:
    """READY and the marker are looked for before the lock is taken."""

    def looks(fd: int, path: str, marker: str) -> bool:
        return refs.exists(READY, fd) and not refs.exists(marker) and refs.try_flock(fd, SHARED)

    opens_by(put, looks)


def no_lock(put: pytest.MonkeyPatch) -> None:
    """A ref takes no lock."""
    put.setattr(refs, "try_flock", lambda fd, flags: True)


def no_look_at_the_delete(put: pytest.MonkeyPatch) -> None:
    """A ref does not care for delete/ID."""
    exists = refs.exists
    put.setattr(refs, "exists", lambda path, dir_fd=None: dir_fd is not None and exists(path, dir_fd))


def no_look_at_the_delete_after_the_lock(put: pytest.MonkeyPatch) -> None:
    """delete/ID is looked for before the lock only."""
    opens_by(put, lambda fd, path, marker: refs.try_flock(fd, SHARED) and refs.exists(READY, fd))


def clones_do_not_count(put: pytest.MonkeyPatch) -> None:
    """A clone is let go with the ref that it was made of."""

    def again(self: Refs, held: Any) -> refs.ChunkRef:
        return refs.ChunkRef(self, held)

    put.setattr(Refs, "again", again)


def trash_before_the_lock(put: pytest.MonkeyPatch) -> None:
    """A chunk's directory is renamed to the trash, and only then locked."""

    def take_out(self: Applier, place: Place, still_due: Callable[[], bool]) -> Any:
        path = self._layout.path(place)
        if not still_due():
            return Stale()
        claim = fsdm.reconcile.apply.Claim(path)
        self._fs.unlink(f"{path}/{READY}")
        self._discard(path)
        self._catalog.discard(place)
        claim.take()
        claim.close()
        return Done()

    put.setattr(Applier, "_take_out", take_out)


def retire_without_a_second_look(put: pytest.MonkeyPatch) -> None:
    """Under the claim it is not looked whether the delete still stands."""
    take_out = Applier._take_out
    put.setattr(Applier, "_take_out", lambda self, place, still_due: take_out(self, place, lambda: True))


def marker_not_judged_again(put: pytest.MonkeyPatch) -> None:
    """A marker is removed by its name, whichever it is by now."""

    def remove(layout: Layout, fs: FileSystem, path: str, judged: Marker, winner: object) -> bool:
        with fsdm.store.markers.intents_lock(layout, 0.0):
            return rename_and_unlink(fs, path)

    put.setattr(fsdm.reconcile.apply, "remove_marker", remove)


def winner_not_judged_again(put: pytest.MonkeyPatch) -> None:
    """The marker that overrules the other is not looked at again."""
    remove = fsdm.reconcile.apply.remove_marker
    put.setattr(
        fsdm.reconcile.apply,
        "remove_marker",
        lambda layout, fs, path, judged, winner: remove(layout, fs, path, judged, None),
    )


def want_before_publish(put: pytest.MonkeyPatch) -> None:
    """The want is removed before the chunk is published."""
    publish = Applier._publish

    def removed_first(self: Applier, action: Publish) -> Any:
        read = self._read(action.id, action.want)
        self._fs.unlink(self._layout.want_marker(action.id))
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Applier, "_read", lambda *_: read)
            return publish(self, action)

    put.setattr(Applier, "_publish", removed_first)


def files_not_compared(put: pytest.MonkeyPatch) -> None:
    """Files here or in partial/ are taken for the wanted ones, whichever they are."""
    put.setattr(Manifest, "satisfies", lambda self, chunk, **_: True)


def end_inclusive(put: pytest.MonkeyPatch) -> None:
    """The end of a range is taken to be in it."""
    key = fsdm.store.block_index._key
    put.setattr(fsdm.store.block_index, "_key", lambda place: (key(place)[0], key(place)[1] - 1, key(place)[2]))


def widest_first(put: pytest.MonkeyPatch) -> None:
    """Among equal starts the greatest end is responsible."""
    key = fsdm.store.block_index._key
    find = fsdm.store.block_index.BlockIndex.candidates

    def candidates(self: Any, block: int) -> Iterator[Place]:
        return iter(sorted(find(self, block), key=lambda place: (-key(place)[0], key(place)[1])))

    put.setattr(fsdm.store.block_index.BlockIndex, "candidates", candidates)
    put.setattr(fsdm.store.block_index.BlockIndex, "find", lambda self, block: next(self.candidates(block), None))


def next_in_line_not_asked(put: pytest.MonkeyPatch) -> None:
    """Where the responsible chunk is on its way out, the next in line is not asked."""
    put.setattr(fsdm.store.catalog.Catalog, "candidates", lambda self, dataset_id, block: [])


def tie_reversed(put: pytest.MonkeyPatch) -> None:
    """Of two markers of one tick, the want counts as later although it was seen first."""

    def is_later(want: Marker, delete: Marker, memo: Memo) -> bool:
        if delete.ctime_ns != want.ctime_ns:
            return delete.ctime_ns > want.ctime_ns
        return not want.same_as(memo.want_alone)

    put.setattr(fsdm.reconcile.plan, "delete_is_later", is_later)


def earlier_marker_wins(put: pytest.MonkeyPatch) -> None:
    """The marker with the earlier ctime counts."""
    put.setattr(fsdm.reconcile.plan, "delete_is_later", lambda want, delete, memo: delete.ctime_ns < want.ctime_ns)


def trash_left(put: pytest.MonkeyPatch) -> None:
    """A start does not erase what a crash left in the trash."""

    def open_without(self: fsdm.reconcile.reconciler.Reconciler) -> None:
        self.catalog.refresh()
        fsdm.reconcile.reconciler.finish_removals(self.layout, self._fs)

    put.setattr(fsdm.reconcile.reconciler.Reconciler, "open", open_without)


def cleared_while_held(put: pytest.MonkeyPatch) -> None:
    """A quarantined chunk that is wanted again goes to the trash, held or not."""

    def clear(self: Applier, action: Clear) -> Any:
        self._discard(self._layout.path(action.place))
        self._catalog.discard(action.place)
        return Done()

    put.setattr(Applier, "_clear", clear)


def want_not_asked_again(put: pytest.MonkeyPatch) -> None:
    """A quarantined chunk is cleared, and not wanted again."""
    put.setattr(fsdm.reconcile.repair, "restore_want", lambda layout, fs, kept, chunk_id: None)


def want_back_in_spite_of_a_delete(put: pytest.MonkeyPatch) -> None:
    """Whether a delete came before the want that came back is not looked at."""
    put.setattr(fsdm.reconcile.repair, "withdraw_restored_want", lambda layout, fs, kept, chunk_id: None)


def sizes_compared_only(put: pytest.MonkeyPatch) -> None:
    """A verify compares names and sizes, not bytes."""

    def by_size(path: str, place: Place, pace: object) -> list[str]:
        manifest = fsdm.store.json_files.read_manifest(path)
        why = None if manifest is None else fsdm.verify.manifest_check.missing(path, manifest)
        return [] if why is None else [why]

    put.setattr(fsdm.verify.background, "rehash", by_size)


# for each fault, a machine that finds it, and the points to look at: all of them, where none is named
MUTANTS: dict[Mutant, tuple[type[Asking], *tuple[str, ...]]] = {
    ready_by_path: (Readers,),
    ready_before_the_lock: (Readers,),
    no_lock: (Readers,),
    no_look_at_the_delete: (Readers,),
    no_look_at_the_delete_after_the_lock: (Readers,),
    clones_do_not_count: (Readers,),
    trash_before_the_lock: (Everything,),
    retire_without_a_second_look: (Removing, "claim chunks"),
    marker_not_judged_again: (Judging,),
    marker_not_judged_aside: (Judging,),
    winner_not_judged_again: (Judging,),
    asides_left: (Judging, "lstat want aside", "unlink want aside", "lstat delete aside", "unlink delete aside"),
    want_before_publish: (Bringing,),
    ready_before_the_files: (Bringing,),
    files_not_compared: (Bringing,),
    end_inclusive: (Readers,),
    widest_first: (Readers,),
    next_in_line_not_asked: (Readers,),
    tie_reversed: (Judging,),
    earlier_marker_wins: (Judging,),
    trash_left: (Removing, "rename chunks", "erase trash"),
    cleared_while_held: (Verifying,),
    want_not_asked_again: (Verifying,),
    want_back_in_spite_of_a_delete: (Verifying, "open want temporary", "link want temporary"),
    sizes_compared_only: (Verifying,),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_random_lives_find_known_fault(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    machine, *points = MUTANTS[mutant]
    monkeypatch.setattr(machine, "narrowed", tuple(points))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SEARCH)
