"""One action → one effect: each looks at its precondition again, in the order that a crash leaves whole."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk, Failure, FileSource
from fsdm.model.errors import DiskError, TransferError
from fsdm.model.layout import Layout, Place
from fsdm.model.state import Marker
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Action, CannotRead, Done, Failed, Held, Overrule, Quarantined, Stale, Stopped
from fsdm.reconcile.memo import NO_MEMO
from fsdm.reconcile.plan import decide
from fsdm.store import flock as locks
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.json_files import read_manifest
from fsdm.store.marker_removal import ASIDE, finish_removals, remove_marker
from fsdm.store.markers import place_want
from fsdm.store.refs import ChunkRef, Refs
from fsdm.store.scan import look
from fsdm.transfer.fetcher import HttpFetcher
from tests.support import (
    CrashBefore,
    CrashError,
    Recorder,
    Source,
    can_lock,
    crash_at_each_step,
    eventually,
    wait_for_a_tick,
)
from tests.support.applying import NAMES, Bench, a_chunk
from tests.support.chunks import an_id, entries, failure, files_of, judged, put, put_chunk, put_want, touch_delete


def other_files(chunk: DataChunk) -> DataChunk:
    """The same id and place, with other files."""
    return chunk.model_copy(update={"files": {"other.parquet": FileSource(url="http://example.org/other")}})


@pytest.fixture
def bench(layout: Layout) -> Iterator[Bench]:
    before = set(locks._descriptors)
    bench = Bench(layout)
    yield bench
    bench.applier.close()
    assert locks._descriptors <= before


@pytest.fixture
def chunk(layout: Layout, data_dir: Path) -> DataChunk:
    """A chunk that is wanted."""
    chunk = a_chunk()
    put_want(data_dir, chunk)
    return chunk


@pytest.fixture
def deleted(layout: Layout, data_dir: Path) -> Place:
    """A chunk that is available, and deleted."""
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    return place


def a_ref(layout: Layout, place: Place) -> ChunkRef:
    ref = Refs(layout).take(place)
    assert ref is not None
    return ref


def relative(bench: Bench) -> list[tuple[str, str]]:
    """The steps that were taken, below the data directory; a marker on its way out is `(aside)`."""
    assert isinstance(bench.fs, Recorder)
    steps = [(name, os.path.relpath(path, bench.layout.root)) for name, path in bench.fs.steps]
    return [(name, re.sub(re.escape(ASIDE) + ".*", "(aside)", path)) for name, path in steps]


def snapshot(layout: Layout) -> dict[str, bytes | None]:
    """All that is on disk, but for the trash."""
    found: dict[str, bytes | None] = {}
    for directory, names, files in os.walk(layout.root):
        names[:] = [name for name in names if name != "trash"]
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                found[os.path.relpath(file.name, layout.root)] = file.read()
    return found


def test_a_fetch_leaves_a_complete_partial(bench: Bench, chunk: DataChunk, data_dir: Path) -> None:
    assert bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id))) == Done()
    manifest = read_manifest(bench.layout.partial_of(chunk.id))
    assert manifest is not None
    assert manifest.satisfies(chunk)
    assert files_of(data_dir / "partial" / chunk.id / "data").keys() == set(NAMES)
    assert entries(data_dir / "chunks") == []
    assert bench.told() == ["started", "file", "file"]


def test_a_ready_too_large_to_be_read_is_a_failure_for_good(
    bench: Bench, chunk: DataChunk, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdm.reconcile.apply.MANIFEST_MAX_BYTES", 100)
    outcome = bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id)))
    assert isinstance(outcome, Failed)
    assert not outcome.error.transient
    assert "READY would have" in str(outcome.error)
    assert "READY" not in os.listdir(data_dir / "partial" / chunk.id)


def test_a_fetch_keeps_only_the_wanted_files_of_what_was_left(bench: Bench, chunk: DataChunk, data_dir: Path) -> None:
    left = data_dir / "partial" / chunk.id / "data"
    left.mkdir(parents=True)
    (left / "blocks.parquet").write_bytes(b"half")
    (left / "stray").touch()
    (left.parent / ".READY.0000").touch()
    assert bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id))) == Done()
    assert files_of(left).keys() == set(NAMES)
    assert not os.path.exists(f"{left.parent}/.READY.0000")


@pytest.mark.parametrize(
    "action", [actions.Fetch, actions.Publish, lambda chunk_id, want: actions.Confirm(chunk_id, want, a_chunk().place)]
)
def test_what_is_done_for_a_want_is_stale_where_that_has_changed_or_gone(
    bench: Bench, chunk: DataChunk, data_dir: Path, action: Callable[[str, Marker], Action]
) -> None:
    want = bench.want(chunk.id)
    os.utime(bench.layout.want_marker(chunk.id), (1, 1))
    before = snapshot(bench.layout)
    assert bench.apply(action(chunk.id, want)) == Stale()
    assert snapshot(bench.layout) == before
    os.unlink(bench.layout.want_marker(chunk.id))
    assert bench.apply(action(chunk.id, want)) == Stale()
    assert bench.events == []


def test_a_want_that_cannot_be_read_is_told_as_it_was_judged(bench: Bench, data_dir: Path) -> None:
    chunk_id = an_id()
    (data_dir / "want" / chunk_id).write_text('{"id":')
    want = bench.want(chunk_id)
    outcome = bench.apply(actions.Fetch(chunk_id, want))
    assert isinstance(outcome, CannotRead)
    assert outcome.want == want
    assert "JSON" in str(outcome.error)


def test_a_fetch_that_is_stopped_or_fails_says_whose_fault_it_is(bench: Bench, chunk: DataChunk) -> None:
    stop = Cancellation()
    stop.set()
    fetch = actions.Fetch(chunk.id, bench.want(chunk.id))
    assert bench.apply(fetch, stop) == Stopped()

    def fail() -> None:
        raise TransferError("HTTP 503", transient=True)

    bench.fetcher.instead = fail
    outcome = bench.apply(fetch)
    assert isinstance(outcome, Failed)
    assert not outcome.disk
    assert os.path.exists(bench.layout.partial_of(chunk.id)), "the next attempt goes on with it"

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    bench.fetcher.instead = refuse
    outcome = bench.apply(fetch)
    assert isinstance(outcome, Failed)
    assert outcome.disk
    assert isinstance(outcome.error, DiskError)
    assert "No space left" in str(outcome.error)
    assert not os.path.exists(bench.layout.partial_of(chunk.id)), "others need its room"


def test_a_fetch_knows_whether_it_brings_a_newer_want(bench: Bench, chunk: DataChunk, data_dir: Path) -> None:
    answers: list[bool] = []

    def ask() -> None:
        if not answers:
            put_want(data_dir, chunk)
            answers.append(bench.applier.is_fetching(chunk.id, bench.want(chunk.id), known=False))
            put_want(data_dir, other_files(chunk))
            answers.append(bench.applier.is_fetching(chunk.id, bench.want(chunk.id), known=False))
            (data_dir / "want" / chunk.id).write_text("")
            answers.append(bench.applier.is_fetching(chunk.id, bench.want(chunk.id), known=False))

    bench.fetcher.instead = ask
    want = bench.want(chunk.id)
    bench.apply(actions.Fetch(chunk.id, want))
    assert answers == [True, False, True]
    assert bench.applier.is_fetching(chunk.id, want, known=False), "nothing runs"


def test_publish_makes_a_chunk_available_and_removes_its_want(bench: Bench, chunk: DataChunk, data_dir: Path) -> None:
    want = bench.want(chunk.id)
    bench.apply(actions.Fetch(chunk.id, want))
    assert bench.apply(actions.Publish(chunk.id, want)) == Done()
    assert files_of(data_dir / "chunks" / chunk.place.dataset_id / chunk.place.name / "data").keys() == set(NAMES)
    assert (entries(data_dir / "want"), entries(data_dir / "partial")) == ([], [])
    assert bench.catalog.find(chunk.dataset_id, 0) == chunk.place
    assert bench.told()[-1] == "available"


def test_publish_syncs_data_ready_rename_in_order(layout: Layout, data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=2)
    put_want(data_dir, chunk)
    bench = Bench(layout, fs=Recorder(), fetcher=HttpFetcher())
    want = bench.want(chunk.id)
    for action in (actions.Fetch(chunk.id, want), actions.Publish(chunk.id, want)):
        assert bench.apply(action) == Done()
    partial, dataset = f"partial/{chunk.id}", f"chunks/{chunk.dataset_id}"
    steps = relative(bench)
    temporary, kept = (
        next(path for step, path in steps if step == "rename" and f"/.{name}" in path) for name in ("READY", "WANT")
    )
    assert [step for step in steps if "/trash" not in step[1]] == [
        ("mkdir", partial),
        ("mkdir", f"{partial}/data"),
        ("create", f"{partial}/data/blocks.parquet"),
        ("fsync_file", f"{partial}/data/blocks.parquet"),
        ("write", f"{partial}/WANT"),
        ("rename", kept),
        ("fsync_file", f"{partial}/WANT"),
        ("create", f"{partial}/data/logs.parquet"),
        ("fsync_file", f"{partial}/data/logs.parquet"),
        ("fsync_dir", f"{partial}/data"),
        ("fsync_dir", partial),
        ("write", f"{partial}/READY"),
        ("fsync_file", temporary),
        ("rename", temporary),
        ("fsync_dir", partial),
        ("unlink", f"{partial}/PARTS"),
        ("mkdir", dataset),
        ("fsync_dir", "chunks"),
        ("rename", partial),
        ("fsync_dir", dataset),
        ("fsync_dir", "partial"),
        ("fsync_dir", "delete"),
        ("rename", f"want/{chunk.id}"),
        ("unlink", "want/(aside)"),
        ("fsync_dir", "want"),
    ]


def test_nothing_is_published_while_a_delete_stands(bench: Bench, chunk: DataChunk, data_dir: Path) -> None:
    want = bench.want(chunk.id)
    bench.apply(actions.Fetch(chunk.id, want))
    touch_delete(data_dir, chunk.id)
    before = snapshot(bench.layout)
    assert bench.apply(actions.Publish(chunk.id, want)) == Stale()
    assert snapshot(bench.layout) == before


@pytest.mark.parametrize("change", ["other files", "other range", "no manifest"])
def test_a_partial_of_other_files_is_discarded(bench: Bench, chunk: DataChunk, data_dir: Path, change: str) -> None:
    bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id)))
    if change == "other files":
        put_want(data_dir, other_files(chunk))
    elif change == "other range":
        put_want(data_dir, chunk.model_copy(update={"block_range": range(5)}))
    else:
        os.unlink(f"{bench.layout.partial_of(chunk.id)}/READY")
    assert bench.apply(actions.Publish(chunk.id, bench.want(chunk.id))) == Done()
    assert (entries(data_dir / "partial"), entries(data_dir / "chunks")) == ([], [])
    assert entries(data_dir / "want") == [chunk.id]


@pytest.mark.parametrize("anew", [False, True])
def test_what_was_just_fetched_is_published_for_no_want_but_its_own(bench: Bench, chunk: DataChunk, anew: bool) -> None:
    want = bench.want(chunk.id)
    done = bench.apply(actions.Fetch(chunk.id, want))
    assert isinstance(done, Done)
    os.unlink(bench.layout.want_marker(chunk.id))
    if anew:
        place_want(bench.layout, other_files(chunk))
    before = snapshot(bench.layout)
    assert bench.apply(actions.Publish(chunk.id, want, done.fetched)) == Stale()
    assert snapshot(bench.layout) == before


def test_a_want_that_is_placed_anew_while_its_chunk_is_published_stays(layout: Layout, chunk: DataChunk) -> None:
    def place_anew(path: str) -> None:
        if path == layout.partial_of(chunk.id) and os.path.exists(f"{path}/READY"):
            place_want(layout, other_files(chunk))

    bench = Bench(layout, fs=Recorder(rename=place_anew))
    want = bench.want(chunk.id)
    bench.apply(actions.Fetch(chunk.id, want))
    assert bench.apply(actions.Publish(chunk.id, want)) == Stale()
    assert os.path.exists(f"{layout.path(chunk.place)}/READY")
    assert not bench.want(chunk.id).same_as(want)


def test_confirm_removes_the_want_or_takes_other_files_out(bench: Bench, chunk: DataChunk, data_dir: Path) -> None:
    bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id)))
    bench.apply(actions.Publish(chunk.id, bench.want(chunk.id)))
    put_want(data_dir, chunk)
    assert bench.apply(actions.Confirm(chunk.id, bench.want(chunk.id), chunk.place)) == Done()
    assert entries(data_dir / "want") == []
    ready = f"{bench.layout.path(chunk.place)}/READY"
    assert os.path.exists(ready)
    put_want(data_dir, other_files(chunk))
    assert bench.apply(actions.Confirm(chunk.id, bench.want(chunk.id), chunk.place)) == Done()
    assert not os.path.exists(ready)
    assert os.path.isdir(f"{bench.layout.path(chunk.place)}/data"), "old refs keep their files"
    assert entries(data_dir / "want") == [chunk.id]


def test_a_want_is_durable_before_old_files_go_for_it(layout: Layout, chunk: DataChunk, data_dir: Path) -> None:
    bench = Bench(layout, fs=Recorder())
    place = put_chunk(layout, chunk_id=chunk.id)
    put_want(data_dir, other_files(chunk).model_copy(update={"dataset_id": place.dataset_id}))
    assert bench.apply(actions.Confirm(chunk.id, bench.want(chunk.id), place)) == Done()
    path = f"chunks/{place.dataset_id}/{place.name}"
    assert relative(bench) == [
        ("fsync_file", f"want/{chunk.id}"),
        ("fsync_dir", "want"),
        ("unlink", f"{path}/WANT"),
        ("unlink", f"{path}/READY"),
        ("fsync_dir", path),
    ]


def test_a_want_withdrawn_at_that_moment_takes_nothing(layout: Layout, chunk: DataChunk, data_dir: Path) -> None:
    bench = Bench(layout)
    place = put_chunk(layout, chunk_id=chunk.id)
    put_want(data_dir, other_files(chunk).model_copy(update={"dataset_id": place.dataset_id}))
    want = bench.want(chunk.id)
    bench.fs.fsync_path = lambda path: os.stat(f"{path}.gone")  # type: ignore[assignment, method-assign]
    assert bench.apply(actions.Confirm(chunk.id, want, place)) == Stale()
    assert os.path.exists(f"{layout.path(place)}/READY")


def test_a_want_is_made_durable_before_it_overrules_a_delete(layout: Layout, chunk: DataChunk, data_dir: Path) -> None:
    bench = Bench(layout, fs=Recorder())
    touch_delete(data_dir, chunk.id)
    put_want(data_dir, chunk)
    action = actions.Overrule(chunk.id, "delete", bench.want(chunk.id), bench.delete(chunk.id))
    assert bench.apply(action) == Done()
    assert relative(bench) == [
        ("fsync_file", f"want/{chunk.id}"),
        ("fsync_dir", "want"),
        ("fsync_dir", "known"),
        ("rename", f"delete/{chunk.id}"),
        ("unlink", "delete/(aside)"),
        ("fsync_dir", "delete"),
    ]


@pytest.mark.parametrize("loser", ["want", "delete"])
def test_only_the_overruled_marker_goes(bench: Bench, chunk: DataChunk, data_dir: Path, loser: Any) -> None:
    touch_delete(data_dir, chunk.id)
    assert bench.apply(actions.Overrule(chunk.id, loser, bench.want(chunk.id), bench.delete(chunk.id))) == Done()
    assert entries(data_dir / loser) == []
    assert entries(data_dir / ("delete" if loser == "want" else "want")) == [chunk.id]


@pytest.mark.parametrize("loser", ["want", "delete"])
@pytest.mark.parametrize("changed", ["want", "delete"])
def test_nothing_is_overruled_where_either_marker_has_changed(
    bench: Bench, chunk: DataChunk, data_dir: Path, loser: Any, changed: str
) -> None:
    touch_delete(data_dir, chunk.id)
    action = actions.Overrule(chunk.id, loser, bench.want(chunk.id), bench.delete(chunk.id))
    os.utime(data_dir / changed / chunk.id, (1, 1))
    assert bench.apply(action) == Stale()
    assert entries(data_dir / "want") == entries(data_dir / "delete") == [chunk.id]


def test_a_want_that_cannot_be_read_overrules_no_delete(bench: Bench, data_dir: Path) -> None:
    chunk_id = an_id()
    (data_dir / "want" / chunk_id).write_text("{")
    touch_delete(data_dir, chunk_id)
    outcome = bench.apply(actions.Overrule(chunk_id, "delete", bench.want(chunk_id), bench.delete(chunk_id)))
    assert isinstance(outcome, CannotRead)
    assert entries(data_dir / "delete") == [chunk_id]


def retire(bench: Bench, place: Place) -> actions.Retire:
    return actions.Retire(place.chunk_id, place, bench.delete(place.chunk_id))


def test_retire_takes_the_chunk_and_leaves_the_marker(bench: Bench, deleted: Place, data_dir: Path) -> None:
    assert bench.apply(retire(bench, deleted)) == Done()
    assert not os.path.exists(bench.layout.path(deleted))
    assert bench.catalog.all_places() == []
    assert len(bench.erased) == 1
    assert bench.told() == ["deleted"]
    assert bench.apply(actions.Forget(deleted.chunk_id, bench.delete(deleted.chunk_id))) == Done()
    assert entries(data_dir / "delete") == []


def test_retire_claims_removes_ready_renames_and_syncs_in_order(layout: Layout, deleted: Place) -> None:
    locked: list[bool] = []

    def look(path: str) -> None:
        if os.path.exists(layout.path(deleted)):
            locked.append(not can_lock(layout.path(deleted)))

    bench = Bench(layout, fs=Recorder(unlink=look, rename=look))
    bench.apply(retire(bench, deleted))
    bench.apply(actions.Forget(deleted.chunk_id, bench.delete(deleted.chunk_id)))
    assert isinstance(bench.fs, Recorder)
    steps = [(name, "(trashed)" if name == "erase" else path) for name, path in relative(bench)]
    dataset = f"chunks/{deleted.dataset_id}"
    assert steps == [
        ("unlink", f"{dataset}/{deleted.name}/READY"),
        ("rename", f"{dataset}/{deleted.name}"),
        ("fsync_dir", dataset),
        ("fsync_dir", "trash"),
        ("erase", "(trashed)"),
        ("fsync_dir", "want"),
        ("fsync_dir", "known"),
        ("rename", f"delete/{deleted.chunk_id}"),
        ("unlink", "delete/(aside)"),
        ("fsync_dir", "delete"),
    ]
    assert locked == [True, True]


def test_a_chunk_that_refs_hold_stays_until_the_last_one_goes(bench: Bench, layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    bench.catalog.refresh()
    ref = a_ref(layout, place)
    touch_delete(data_dir, place.chunk_id)
    descriptors = set(locks._descriptors)
    for _ in range(2):
        assert bench.apply(retire(bench, place)) == Held(place)
        assert files_of(ref.path)
        assert os.path.exists(f"{layout.path(place)}/READY")
    assert len(locks._descriptors - descriptors) == 1, "one claim is kept, and asked again"
    ref.close()
    assert bench.apply(retire(bench, place)) == Done()
    assert not os.path.exists(layout.path(place))


@pytest.mark.parametrize(
    "change",
    [
        lambda layout, chunk_id: os.unlink(layout.delete_marker(chunk_id)),
        lambda layout, chunk_id: os.utime(layout.delete_marker(chunk_id), (1, 1)),
        lambda layout, chunk_id: put_want(Path(layout.root), a_chunk(id=chunk_id)),
    ],
    ids=["marker removed", "marker replaced", "wanted again"],
)
def test_a_withdrawn_delete_leaves_the_chunk(
    bench: Bench, deleted: Place, change: Callable[[Layout, str], object]
) -> None:
    action = retire(bench, deleted)
    change(bench.layout, deleted.chunk_id)
    assert bench.apply(action) == Stale()
    assert os.path.exists(f"{bench.layout.path(deleted)}/READY")
    assert can_lock(bench.layout.path(deleted))


def test_a_delete_is_judged_again_under_the_lock(bench: Bench, deleted: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    action = retire(bench, deleted)
    take = locks.Claim.take

    def withdraw_then_take(claim: locks.Claim) -> bool:
        got = take(claim)
        os.unlink(bench.layout.delete_marker(deleted.chunk_id))
        return got

    monkeypatch.setattr(locks.Claim, "take", withdraw_then_take)
    assert bench.apply(action) == Stale()
    assert os.path.exists(f"{bench.layout.path(deleted)}/READY")


@pytest.mark.parametrize("text", ["", "{", "[]", None])
def test_an_unreadable_want_keeps_no_chunk_here(bench: Bench, deleted: Place, data_dir: Path, text: str | None) -> None:
    want = data_dir / "want" / deleted.chunk_id
    want.mkdir() if text is None else want.write_text(text)
    assert bench.apply(retire(bench, deleted)) == Done()


def test_a_chunk_that_is_gone_already_is_stale_and_forgotten(bench: Bench, deleted: Place) -> None:
    shutil.rmtree(bench.layout.path(deleted))
    assert bench.apply(retire(bench, deleted)) == Stale()
    assert bench.catalog.places(deleted.chunk_id) == ()


def test_a_claim_on_a_directory_that_was_replaced_takes_not_the_new_one(bench: Bench, layout: Layout) -> None:
    place = put_chunk(layout)
    bench.catalog.refresh()
    ref = a_ref(layout, place)
    touch_delete(Path(layout.root), place.chunk_id)
    assert bench.apply(retire(bench, place)) == Held(place)
    os.rename(layout.path(place), f"{layout.root}/elsewhere")
    ref.close()
    put_chunk(layout, chunk_id=place.chunk_id)
    assert bench.apply(retire(bench, place)) == Stale()
    assert os.path.exists(f"{layout.path(place)}/READY")
    assert bench.apply(retire(bench, place)) == Done(), "with a claim on the new one"


@pytest.mark.parametrize("make", [lambda path: open(path, "w").close(), lambda path: os.symlink("/etc", path)])
def test_a_stray_in_place_of_a_chunk_ends_its_delete(bench: Bench, data_dir: Path, make: Callable[[str], None]) -> None:
    place = put_chunk(bench.layout)
    shutil.rmtree(bench.layout.path(place))
    make(bench.layout.path(place))
    touch_delete(data_dir, place.chunk_id)
    assert bench.converge(place.chunk_id).at_rest
    assert not os.path.lexists(bench.layout.path(place))
    assert entries(data_dir / "delete") == []


def test_released_claims_are_closed(bench: Bench, layout: Layout, data_dir: Path) -> None:
    places = [put_chunk(layout), put_chunk(layout)]
    held = Refs(layout)
    refs = [held.take(place) for place in places]
    before = set(locks._descriptors)
    for place in places:
        touch_delete(data_dir, place.chunk_id)
        assert bench.apply(retire(bench, place)) == Held(place)
    bench.applier.release(places[0])
    bench.applier.release(places[0])
    assert len(locks._descriptors - before) == 1
    bench.applier.close()
    assert locks._descriptors <= before
    assert all(refs)
    held.close()


def test_a_directory_without_ready_is_cleared_after_its_last_ref(bench: Bench, layout: Layout) -> None:
    place = put_chunk(layout)
    bench.catalog.refresh()
    action = actions.Clear(place.chunk_id, place)
    assert bench.apply(action) == Stale(), "it is ready"
    ref = a_ref(layout, place)
    os.rename(f"{layout.path(place)}/READY", f"{layout.path(place)}/data/moved")
    assert bench.apply(action) == Held(place)
    ref.close()
    assert bench.apply(action) == Done()
    assert not os.path.exists(layout.path(place))
    assert bench.told() == []


def test_a_partial_is_discarded_also_twice(bench: Bench, data_dir: Path) -> None:
    chunk_id = an_id()
    (data_dir / "partial" / chunk_id).mkdir()
    for _ in range(2):
        assert bench.apply(actions.Discard(chunk_id)) == Done()
    assert entries(data_dir / "partial") == []
    assert len(bench.erased) == 1


def test_a_delete_that_was_placed_anew_is_not_forgotten(bench: Bench, data_dir: Path) -> None:
    chunk_id = an_id()
    touch_delete(data_dir, chunk_id)
    action = actions.Forget(chunk_id, bench.delete(chunk_id))
    marker = data_dir / "delete" / chunk_id
    placed_ns = marker.stat().st_ctime_ns
    eventually(lambda: os.utime(marker, (1, 1)) or marker.stat().st_ctime_ns > placed_ns)
    assert bench.apply(action) == Stale()
    assert entries(data_dir / "delete") == [chunk_id]


def test_a_damaged_chunk_goes_out_of_service_after_its_reason(layout: Layout, data_dir: Path) -> None:
    place, said = put_chunk(layout), []
    os.truncate(f"{layout.path(place)}/data/blocks.parquet", 3)
    bench = Bench(layout, fs=Recorder(unlink=lambda path: said.append(failure(data_dir, place.chunk_id))))
    outcome = bench.apply(actions.Quarantine(place.chunk_id, place))
    assert isinstance(outcome, Quarantined)
    assert not os.path.exists(f"{layout.path(place)}/READY")
    assert os.path.isdir(f"{layout.path(place)}/data")
    assert said[0] is not None
    assert said[0]["kind"] == "damaged"
    assert "has 3 bytes" in outcome.failure.error
    assert bench.told() == ["damaged"]


def test_a_chunk_that_is_sound_after_all_or_gone_is_not_quarantined(bench: Bench, layout: Layout) -> None:
    place = put_chunk(layout)
    assert bench.apply(actions.Quarantine(place.chunk_id, place)) == Done()
    assert os.path.exists(f"{layout.path(place)}/READY")
    shutil.rmtree(layout.path(place))
    assert bench.apply(actions.Quarantine(place.chunk_id, place)) == Done()
    assert os.listdir(layout.failed) == []


def test_a_failure_is_reported_and_cleared(bench: Bench, data_dir: Path) -> None:
    chunk_id = an_id()
    why = Failure(id=chunk_id, kind="transfer", error="HTTP 404", first_at=1.0, last_at=2.0)
    assert bench.apply(actions.Report(chunk_id, why)) == Done()
    assert json.loads((data_dir / "failed" / chunk_id).read_text())["error"] == "HTTP 404"
    for _ in range(2):
        assert bench.apply(actions.ClearFailure(chunk_id)) == Done()
    assert failure(data_dir, chunk_id) is None


@pytest.mark.parametrize("step", ["unlink", "rename", "fsync_dir"])
def test_a_refusal_of_the_disk_is_an_outcome_and_ends_the_claim(layout: Layout, deleted: Place, step: str) -> None:
    def refuse(path: str) -> None:
        raise OSError(5, "Input/output error", path)

    bench, before = Bench(layout, fs=Recorder(**{step: refuse})), set(locks._descriptors)
    outcome = bench.apply(retire(bench, deleted))
    assert isinstance(outcome, Failed)
    assert outcome.disk
    assert "Input/output error" in str(outcome.error)
    assert locks._descriptors <= before


def converge_in_spite_of_a_crash(layout: Layout, fs: FileSystem, chunk_id: str) -> None:
    try:
        Bench(layout, fs=fs).converge(chunk_id)
    except CrashError:
        finish_removals(layout, FileSystem())
        Bench(layout).converge(chunk_id)
        raise


def test_after_a_crash_at_any_step_a_want_still_comes_to_the_same_end(layout: Layout, data_dir: Path) -> None:
    def work(fs: FileSystem) -> None:
        chunk = a_chunk()
        put_want(data_dir, chunk)
        try:
            converge_in_spite_of_a_crash(layout, fs, chunk.id)
        finally:
            assert files_of(data_dir / "chunks" / chunk.dataset_id / chunk.place.name / "data").keys() == set(NAMES)
            assert entries(data_dir / "want") == entries(data_dir / "partial") == []

    assert crash_at_each_step(work) >= 18


def test_after_a_crash_at_any_step_a_delete_still_comes_to_the_same_end(layout: Layout, data_dir: Path) -> None:
    def work(fs: FileSystem) -> None:
        place = put_chunk(layout)
        touch_delete(data_dir, place.chunk_id)
        try:
            converge_in_spite_of_a_crash(layout, fs, place.chunk_id)
        finally:
            assert not os.path.exists(layout.path(place))
            assert os.listdir(layout.delete) == []

    assert crash_at_each_step(work) >= 7


def decided(layout: Layout, chunk_id: str) -> Action | None:
    """The plan for a chunk, as it stands on disk now."""
    return decide(look(layout, Catalog(layout), chunk_id), NO_MEMO, 0.0)


@pytest.mark.parametrize("loser", ["want", "delete"])
def test_crash_while_a_marker_is_overruled_does_not_turn_the_outcome(layout: Layout, loser: str) -> None:
    chunk = a_chunk()
    markers = {"want": layout.want_marker(chunk.id), "delete": layout.delete_marker(chunk.id)}
    lost = markers.pop(loser)
    (won,) = markers.values()
    for path in (lost, won):
        put(path, chunk.to_json().decode() if path == layout.want_marker(chunk.id) else "")
        wait_for_a_tick(path)
    action = decided(layout, chunk.id)
    assert isinstance(action, Overrule)
    assert action.loser == loser
    with pytest.raises(CrashError):
        remove_marker(layout, CrashBefore(1), lost, judged(lost), (won, judged(won)))
    finish_removals(layout, FileSystem())  # the next start
    action = decided(layout, chunk.id)
    assert not isinstance(action, Overrule) or action.loser == loser


def test_want_placed_after_a_crash_in_forget_outlives_the_restored_delete(layout: Layout) -> None:
    chunk = a_chunk()
    delete = layout.delete_marker(chunk.id)
    put(delete)
    with pytest.raises(CrashError):
        remove_marker(layout, CrashBefore(1), delete, judged(delete), None)
    place_want(layout, chunk)  # a careful client, while no reconciler runs
    wait_for_a_tick(layout.want_marker(chunk.id))
    finish_removals(layout, FileSystem())
    action = decided(layout, chunk.id)
    assert not isinstance(action, Overrule) or action.loser == "delete"


def test_retire_of_a_held_directory_that_was_removed_is_stale(bench: Bench, data_dir: Path) -> None:
    place = put_chunk(bench.layout)
    with Refs(bench.layout).take(place):  # type: ignore[union-attr]
        touch_delete(data_dir, place.chunk_id)
        assert bench.apply(retire(bench, place)) == Held(place)
        shutil.rmtree(bench.layout.path(place))
    assert bench.apply(retire(bench, place)) == Stale()


def test_confirm_syncs_the_rename_that_a_crash_cut_off(layout: Layout, bench: Bench, chunk: DataChunk) -> None:
    def crash(path: str) -> None:
        if path == layout.dataset(chunk.dataset_id):
            raise CrashError

    bench.apply(actions.Fetch(chunk.id, bench.want(chunk.id)))
    with pytest.raises(CrashError):
        Bench(layout, fs=Recorder(fsync_dir=crash)).apply(actions.Publish(chunk.id, bench.want(chunk.id)))
    again = Bench(layout, fs=Recorder())
    again.apply(actions.Confirm(chunk.id, bench.want(chunk.id), chunk.place))
    assert ("fsync_dir", f"chunks/{chunk.dataset_id}") in relative(again)
