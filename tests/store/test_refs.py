"""Refs: taken, shared and released, by hand, threads, the garbage collector and forks."""

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm.model.errors import ClosedError, ForeignProcessError
from fsdm.model.layout import Layout, Place
from fsdm.store import flock as locks
from fsdm.store import refs
from fsdm.store.flock import Claim, close_fd
from fsdm.store.refs import ChunkRef, Refs
from tests.support.chunks import TAKE_REF, put_chunk, touch_delete
from tests.support.locks import can_lock, forked, in_a_fork, process, python
from tests.support.servers import InThread
from tests.support.waiting import PATIENCE_S, eventually


@pytest.fixture
def held(layout: Layout, no_lock_is_left: None) -> Iterator[Refs]:
    """Refs that hold no descriptor once the test is over."""
    with closing(Refs(layout)) as held:
        yield held


def before_the_lock(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Have `work` done between the look before the lock and the lock."""
    monkeypatch.setattr(refs, "try_flock", lambda fd, flags: (work(), locks.try_flock(fd, flags))[1])


def taken(held: Refs, place: Place) -> ChunkRef:
    ref = held.take(place)
    assert ref is not None
    return ref


def test_a_ref_says_what_it_holds_and_keeps_it_where_it_is(layout: Layout, held: Refs, place: Place) -> None:
    with taken(held, place) as ref:
        assert (ref.id, ref.dataset_id, ref.block_range) == (place.chunk_id, place.dataset_id, range(35))
        assert str(ref.path) == f"{layout.path(place)}/data"
        assert not can_lock(layout.path(place))
        assert place.name in repr(ref)
        assert not ref.closed
    assert ref.closed
    assert can_lock(layout.path(place))
    assert "closed" in repr(ref)


def _remove_ready(layout: Layout, place: Place) -> None:
    os.unlink(f"{layout.path(place)}/READY")


def _delete(layout: Layout, place: Place) -> None:
    Path(layout.delete_marker(place.chunk_id)).touch()


def _move_away(layout: Layout, place: Place) -> None:
    os.rename(layout.path(place), f"{layout.trash}/{place.name}")


def _replace_by_a_file(layout: Layout, place: Place) -> None:
    _move_away(layout, place)
    Path(layout.path(place)).touch()


@pytest.mark.parametrize("harm", [_remove_ready, _delete, _move_away, _replace_by_a_file])
def test_unavailable_chunk_gives_no_ref(
    layout: Layout, held: Refs, place: Place, harm: Callable[[Layout, Place], None]
) -> None:
    harm(layout, place)
    assert held.take(place) is None


def test_unavailable_chunk_is_not_locked(
    layout: Layout, held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Mock()
    monkeypatch.setattr(refs, "try_flock", lock)
    for harm in (_remove_ready, _delete):
        harm(layout, place)
        assert held.take(place) is None
    lock.assert_not_called()


@pytest.mark.parametrize("harm", [_remove_ready, _delete])
def test_held_chunk_gives_no_second_ref_once_unavailable(
    layout: Layout, held: Refs, place: Place, harm: Callable[[Layout, Place], None]
) -> None:
    with taken(held, place) as ref:
        harm(layout, place)
        assert held.take(place) is None
        assert ref.path.is_dir()


def test_there_is_no_ref_while_somebody_has_the_exclusive_lock(layout: Layout, held: Refs, place: Place) -> None:
    claim = Claim(layout.path(place))
    assert claim.take()
    assert held.take(place) is None
    claim.close()
    taken(held, place).close()


@pytest.mark.parametrize("harm", [_remove_ready, _delete])
def test_change_before_the_lock_is_seen_after_it(
    layout: Layout, held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Layout, Place], None]
) -> None:
    before_the_lock(monkeypatch, lambda: harm(layout, place))
    assert held.take(place) is None


def test_ready_is_looked_for_in_the_locked_directory(
    layout: Layout, held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        _remove_ready(layout, place)
        _move_away(layout, place)
        put_chunk(layout, chunk_id=place.chunk_id, end=35)

    before_the_lock(monkeypatch, replace)
    assert held.take(place) is None


def test_a_lock_that_fails_leaves_no_descriptor(held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "try_flock", Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        held.take(place)


def test_all_refs_to_a_chunk_share_one_descriptor(layout: Layout, held: Refs, place: Place) -> None:
    before = len(locks._descriptors)
    several = [taken(held, place) for _ in range(5)]
    several += [ref.clone() for ref in several]
    assert len(locks._descriptors) == before + 1
    for ref in several[1:]:
        ref.close()
    assert not can_lock(layout.path(place)), "one is left"
    several[0].close()
    assert can_lock(layout.path(place))


def test_two_threads_taking_at_once_share_one_descriptor(
    layout: Layout, held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_locked = threading.Barrier(2, timeout=PATIENCE_S)
    monkeypatch.setattr(refs, "try_flock", lambda fd, flags: (locks.try_flock(fd, flags), both_locked.wait())[0])
    before, got = len(locks._descriptors), []
    _together(*2 * [lambda: got.append(taken(held, place))])
    assert len(locks._descriptors) == before + 1
    for free in (False, True):
        got.pop().close()
        assert can_lock(layout.path(place)) == free


def test_close_during_a_take_leaves_no_descriptor_open(
    layout: Layout, held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_lock(monkeypatch, held.close)
    with pytest.raises(ClosedError):
        held.take(place)
    assert can_lock(layout.path(place))


def test_a_clone_can_be_had_while_a_delete_waits(layout: Layout, held: Refs, place: Place) -> None:
    ref = taken(held, place)
    _delete(layout, place)
    twin = ref.clone()
    ref.close()
    assert not can_lock(layout.path(place))
    twin.close()
    assert can_lock(layout.path(place))


def test_closing_twice_drops_one_ref_only(layout: Layout, held: Refs, place: Place) -> None:
    ref, other = taken(held, place), taken(held, place)
    ref.close()
    ref.close()
    assert not other.closed
    assert not can_lock(layout.path(place))


def uses(ref: ChunkRef) -> tuple[Callable[[], object], ...]:
    return lambda: ref.path, lambda: ref.id, ref.clone, ref.__enter__


def test_a_closed_ref_says_so(held: Refs, place: Place) -> None:
    ref = taken(held, place)
    ref.close()
    for use in uses(ref):
        with pytest.raises(ClosedError):
            use()


def test_close_of_refs_closes_each_and_later_closes_do_no_harm(layout: Layout, held: Refs, place: Place) -> None:
    ref = taken(held, place)
    held.close()
    assert ref.closed
    assert can_lock(layout.path(place))
    with closing(Refs(layout)) as others:
        anew = taken(others, place)
        ref.close()
        assert not anew.closed
        assert not can_lock(layout.path(place)), "the old ref's close is not the new one's"


def test_a_ref_that_nobody_keeps_is_let_go(layout: Layout, held: Refs, place: Place) -> None:
    taken(held, place)
    gc.collect()
    assert can_lock(layout.path(place))


def test_ref_collected_under_the_mutex_goes_with_the_next_release(layout: Layout, held: Refs, place: Place) -> None:
    other = put_chunk(layout)
    ref, another = taken(held, place), taken(held, other)
    with held._mutex:
        del ref  # would wait for ever if it took the mutex
        gc.collect()
        assert not can_lock(layout.path(place))
    another.close()
    assert can_lock(layout.path(place))


def test_two_last_refs_closed_at_once_close_one_descriptor(
    layout: Layout, held: Refs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Mock(side_effect=close_fd)
    monkeypatch.setattr(refs, "close_fd", closed)
    rounds = 300
    pairs = [(taken(held, place), taken(held, place))]
    gate = threading.Barrier(2, timeout=PATIENCE_S)

    def drop(which: int) -> None:
        for number in range(rounds):
            gate.wait()
            pairs[number][which].close()
            if gate.wait() == 0:
                assert not held._held
                assert closed.call_count == number + 1
                pairs.append((taken(held, place), taken(held, place)))
            gate.wait()

    _together(lambda: drop(0), lambda: drop(1))
    assert closed.call_count == rounds


def test_threads_that_take_clone_and_drop_leave_nothing_behind(layout: Layout, held: Refs, place: Place) -> None:
    def churn() -> None:
        for _ in range(300):
            with taken(held, place) as ref, ref.clone() as twin:
                assert twin.path == ref.path

    _together(*4 * [churn])
    assert not held._held
    assert can_lock(layout.path(place))


def test_asking_readers_cannot_starve_a_claim_of_a_delete(layout: Layout, data_dir: Path, place: Place) -> None:
    stop, turns = threading.Event(), Counter[int]()

    def hammer(number: int) -> None:
        mine = Refs(layout)
        before: ChunkRef | None = None
        while not stop.is_set():
            ref = mine.take(place)
            if before is not None:
                before.close()
            before = ref  # the next is taken before this one goes: at every moment somebody holds it
            turns[number] += ref is not None
        mine.close()

    readers = [InThread(lambda number=number: hammer(number)) for number in range(3)]  # type: ignore[misc]
    try:
        eventually(lambda: all(turns[number] > 20 for number in range(3)), "the readers overlap")
        touch_delete(data_dir, place.chunk_id)
        claim = Claim(layout.path(place))
        eventually(claim.take, "the claim comes through, though they keep asking")
        claim.close()
    finally:
        stop.set()
        assert [reader.join() for reader in readers] == [None] * 3


def test_a_ref_of_another_process_keeps_the_chunk_until_that_process_is_killed(layout: Layout, place: Place) -> None:
    with process(*python(TAKE_REF, layout.root, *place)) as other:
        assert not can_lock(layout.path(place))
        other.kill()
        other.wait()
        assert can_lock(layout.path(place))


def test_a_forked_child_can_neither_use_nor_clone_its_parents_ref(held: Refs, place: Place) -> None:
    with taken(held, place) as ref:
        for use in uses(ref):
            assert in_a_fork(use) == ForeignProcessError.__name__


def test_a_forked_child_does_its_parents_ref_no_harm(layout: Layout, held: Refs, place: Place) -> None:
    ref = taken(held, place)

    def harm() -> int:
        twin = object.__new__(ChunkRef)
        twin._refs, twin._held = held, ref._held
        del twin  # as the garbage collector would
        ref.close()
        held.close()
        return len(locks._descriptors)

    with held._mutex:  # as another thread may hold it at that moment: in the child nobody ever gives it back
        assert in_a_fork(harm) == "0"
    assert not ref.closed
    assert not can_lock(layout.path(place))
    ref.close()
    assert can_lock(layout.path(place))


def test_a_forked_child_does_not_keep_a_chunk_that_its_parent_lets_go(layout: Layout, held: Refs, place: Place) -> None:
    ref = taken(held, place)
    with forked(lambda: ref.closed) as told:
        assert told() == "False"
        ref.close()
        assert can_lock(layout.path(place))


def _together(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own; raise here the first exception of any."""
    with ThreadPoolExecutor(len(works)) as pool:
        for running in [pool.submit(work) for work in works]:
            running.result()


@pytest.mark.parametrize("ends", ["is collected", "is closed"])
def test_ref_that_ends_inside_another_take_is_let_go(
    layout: Layout, held: Refs, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    place, other = put_chunk(layout), put_chunk(layout, start=50, end=60)
    kept, bag = held.take(other), [held.take(place)]
    exists = refs.exists

    def end_here(path: str, fd: int | None = None) -> bool:
        if held._mutex.locked() and bag:  # as the collector, or a `with ref:` that it finalizes, does
            ref = bag.pop()
            if ref is not None and ends == "is closed":
                ref.close()
        return exists(path, fd)

    monkeypatch.setattr(refs, "exists", end_here)
    InThread(lambda: held.take(other)).join()
    assert (bag, kept is None) == ([], False)
    assert can_lock(layout.path(place))
