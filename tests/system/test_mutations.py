"""Known faults, put into the package on purpose: the state machine must find each of them.

A machine that finds nothing may be blind. So each test here breaks one promise of the protocol (a look that is left
out, two steps in the wrong order, a lock that is not taken), by replacing functions of the package, and sees that the
machine of `test_stateful` fails then. The searches are the same every time, and end with the first failure.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import fsdm.reconcile.reconciler
from fsdm.model.layout import READY, Layout, Place
from fsdm.model.state import Marker
from fsdm.reconcile.actions import Clear, Done, Evict, Publish, Stale
from fsdm.reconcile.apply import Applier, Claim
from fsdm.reconcile.memo import Memo
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store import refs
from fsdm.store.block_index import BlockIndex
from fsdm.store.filesystem import FileSystem, exists
from fsdm.store.flock import SHARED, close_fd
from fsdm.store.json_files import read_manifest
from fsdm.store.markers import intents_lock, text_registered_since
from fsdm.verify.manifest_check import missing
from tests.support import mutants
from tests.support.machines import (
    SETTINGS,
    Asking,
    Bringing,
    Caching,
    Everything,
    Judging,
    Readers,
    Removing,
    Verifying,
)
from tests.support.mutants import Mutant, around, rename_and_unlink, replaced

pytestmark = pytest.mark.timeout(600)  # a search is long where the machine is busy

SEARCH = settings(
    SETTINGS,
    max_examples=2000,
    stateful_step_count=15,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
OF_THE_FAULT_ITSELF = re.compile(r"\b(Attribute|Import|Name|Type|UnboundLocal)Error\(")


def opens_by(looks: Callable[[int, str, str], bool]) -> Mutant:
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

    return replaced("store.refs._open_ready", open_ready)


def ready_by_path(fd: int, path: str, marker: str) -> bool:
    return refs.try_flock(fd, SHARED) and refs.exists(f"{path}/{READY}") and not refs.exists(marker)


def ready_before_the_lock(fd: int, path: str, marker: str) -> bool:
    return refs.exists(READY, fd) and not refs.exists(marker) and refs.try_flock(fd, SHARED)


def no_look_at_the_delete_after_the_lock(fd: int, path: str, marker: str) -> bool:
    return refs.try_flock(fd, SHARED) and refs.exists(READY, fd)


def uncounted_clone(self: refs.Refs, held: Any) -> refs.ChunkRef:
    ref = refs.ChunkRef(self)
    ref._held = held
    return ref


def trash_before_the_lock(self: Applier, place: Place, still_due: Callable[[], bool], **_: bool) -> Any:
    path = self.layout.path(place)
    if not still_due():
        return Stale()
    claim = Claim(path)
    self.fs.unlink(f"{path}/{READY}")
    self._discard(path)
    self.catalog.discard(place)
    claim.take()
    claim.close()
    return Done()


def evicted_and_unregistered(evict: Any, self: Applier, action: Evict) -> Any:
    outcome = evict(self, action)
    if not exists(self.layout.path(action.place)):
        self.fs.unlink(self.layout.known_marker(action.id))
    return outcome


def removed_by_name(layout: Layout, fs: FileSystem, path: str, judged: Marker, winner: object) -> bool:
    with intents_lock(layout, 0.0):
        return rename_and_unlink(fs, path)


def want_before_publish(publish: Any, self: Applier, action: Publish) -> Any:
    read = self._read(action.id, action.want)
    self.fs.unlink(self.layout.want_marker(action.id))
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(Applier, "_read", lambda *_: read)
        return publish(self, action)


def widest_first(put: pytest.MonkeyPatch) -> None:
    def candidates(find: Any, self: BlockIndex, block: int) -> Iterator[str]:
        return iter(sorted(find(self, block), key=lambda name: (name[:20], name[21:41]), reverse=True))

    around("store.block_index.BlockIndex.candidates", candidates)(put)
    put.setattr(BlockIndex, "find", lambda self, block: next(self.candidates(block), None))


def end_included(put: pytest.MonkeyPatch) -> None:
    def candidates(self: BlockIndex, block: int) -> Iterator[str]:
        return (name for name in reversed([*self]) if int(name[:20]) <= block <= int(name[21:41]))

    put.setattr(BlockIndex, "candidates", candidates)
    put.setattr(BlockIndex, "find", lambda self, block: next(self.candidates(block), None))


def want_is_later(want: Marker, delete: Marker, memo: Memo) -> bool:
    if delete.ctime_ns != want.ctime_ns:
        return delete.ctime_ns > want.ctime_ns
    return not want.same_as(memo.want_alone)


def open_without_the_trash(self: Reconciler) -> None:
    self.catalog.refresh()
    fsdm.reconcile.reconciler.finish_removals(self.layout, self._fs)


def cleared_while_held(self: Applier, action: Clear) -> Any:
    self._discard(self.layout.path(action.place))
    self.catalog.discard(action.place)
    return Done()


def compared_by_size(path: str, place: Place, pace: object) -> list[str]:
    manifest = read_manifest(path)
    why = None if manifest is None else missing(path, manifest)
    return [] if why is None else [why]


ASIDES = ("lstat want aside", "unlink want aside", "lstat delete aside", "unlink delete aside")
# each fault, a machine that finds it, and the points to look at: all of them, where none is named
MUTANTS: dict[str, tuple[Mutant, type[Asking], *tuple[str, ...]]] = {
    "READY is looked for by path, not through the descriptor": (opens_by(ready_by_path), Readers, "ref-lock chunks"),
    "READY and the marker are looked for before the lock": (
        opens_by(ready_before_the_lock),
        Readers,
        "ref-lock chunks",
    ),
    "a ref takes no lock": (replaced("store.refs.try_flock", lambda fd, flags: True), Readers),
    "a ref does not care for the delete": (
        around("store.refs.exists", lambda exists, path, dir_fd=None: dir_fd is not None and exists(path, dir_fd)),
        Readers,
    ),
    "the delete is looked for before the lock only": (
        opens_by(no_look_at_the_delete_after_the_lock),
        *(Readers, "ref-lock chunks"),
    ),
    "a clone is let go with the ref that it was made of": (
        replaced("store.refs.Refs.again", uncounted_clone),
        Readers,
    ),
    "a directory goes to the trash and is locked then": (
        replaced("reconcile.apply.Applier._take_out", trash_before_the_lock),
        Everything,
    ),
    "under the claim it is not looked whether the delete stands": (
        around("reconcile.apply.Applier._take_out", lambda take, self, place, due: take(self, place, lambda: True)),
        *(Removing, "claim chunks"),
    ),
    "a marker is removed by its name": (replaced("reconcile.apply.remove_marker", removed_by_name), Judging),
    "a marker is not judged out of reach": (mutants.marker_not_judged_aside, Judging),
    "the winner is not judged again": (
        around("reconcile.apply.remove_marker", lambda remove, *rest: remove(*rest[:-1], None)),
        Judging,
    ),
    "a start leaves the markers that were left aside": (mutants.asides_left, Judging, *ASIDES),
    "the want goes before the chunk is published": (
        around("reconcile.apply.Applier._publish", want_before_publish),
        Bringing,
    ),
    "READY comes before the files": (mutants.ready_before_the_files, Bringing, "mkdir partial", "create partial"),
    "files are taken for the wanted ones": (
        replaced("model.documents.Manifest.satisfies", lambda self, chunk, **_: True),
        Bringing,
    ),
    "the end of a range is in it": (end_included, Readers),
    "among equal starts the greatest end is responsible": (widest_first, Readers),
    "the next in line is not asked": (replaced("store.catalog.Catalog.candidates", lambda *_: []), Readers),
    "of two tied markers the want is later": (replaced("reconcile.plan.delete_is_later", want_is_later), Judging),
    "the earlier marker wins": (
        replaced("reconcile.plan.delete_is_later", lambda want, delete, memo: delete.ctime_ns < want.ctime_ns),
        Judging,
    ),
    "a start leaves the trash": (
        replaced("reconcile.reconciler.Reconciler.open", open_without_the_trash),
        *(Removing, "rename chunks", "erase trash"),
    ),
    "a quarantined chunk is cleared while it is held": (
        replaced("reconcile.apply.Applier._clear", cleared_while_held),
        Verifying,
    ),
    "a quarantined chunk is not wanted again": (replaced("reconcile.repair.restore_want", lambda *_: None), Verifying),
    "a want comes back in spite of a delete": (
        replaced("reconcile.repair.withdraw_restored_want", lambda *_: None),
        *(Verifying, "open want temporary", "link want temporary"),
    ),
    "what was wanted last is evicted": (
        replaced(
            "reconcile.caching.text_registered_since",
            lambda layout, chunk_id, _: text_registered_since(layout, chunk_id, 0),
        ),
        Caching,
    ),
    "what is evicted goes to the trash and is locked then": (
        replaced("reconcile.apply.Applier._take_out", trash_before_the_lock),
        Caching,
    ),
    "an eviction takes the registration with it": (
        around("reconcile.apply.Applier._evict", evicted_and_unregistered),
        Caching,
    ),
    "what is registered otherwise is evicted": (
        replaced("model.documents.Manifest.satisfies", lambda self, chunk, **_: True),
        Caching,
    ),
    "a verify compares sizes only": (replaced("verify.background.rehash", compared_by_size), Verifying),
}


@pytest.mark.parametrize("fault", MUTANTS)
def test_random_lives_find_known_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant, machine, *points = MUTANTS[fault]
    mutant(monkeypatch)
    monkeypatch.setattr(machine, "narrowed", tuple(points))
    with pytest.raises(AssertionError) as found:
        run_state_machine_as_test(machine, settings=SEARCH)
    assert not OF_THE_FAULT_ITSELF.search(str(found.value)), "it breaks no promise, but does not fit the package"
