"""What a run would do: the same as it does then, and nothing of it done."""

import os
import time
from pathlib import Path

import pytest

from fsdm import Limits
from fsdm.model.layout import Layout
from fsdm.reconcile.dry_run import Forecast, Step, dry_run
from fsdm.store.markers import place_delete, place_verify, place_want
from tests.support import Source, fsdm, fsdm_json, reconciling, shell_holding, wait_for_a_tick
from tests.support.chunks import an_id, failure, judged, of_place, put_chunk, put_want, touch_delete
from tests.support.loop import a_fetch
from tests.support.states import _failure

FREE = Limits()


def steps_of(layout: Layout, limits: Limits = FREE) -> list[Step]:
    return list(dry_run(layout, limits, time.time()).steps)


def everything(layout: Layout) -> dict[str, tuple[int, int, int]]:
    """All that stands in a data directory: inode, ctime, size."""
    found = {}
    for path in Path(layout.root).rglob("*"):
        seen = path.lstat()
        found[str(path)] = seen.st_ino, seen.st_ctime_ns, seen.st_size
    return found


def test_a_fetch_tells_what_is_to_come_and_files_without_size(layout: Layout) -> None:
    chunk = a_fetch(layout, 1000, 500, None)
    data = Path(layout.partial_of(chunk.id), "data")
    data.mkdir(parents=True)
    (data / "0").write_bytes(bytes(300))
    assert steps_of(layout) == [Step("fetch", chunk.id, 1200, 1)]
    assert dry_run(layout, FREE, 0.0).undeclared == 1


def test_downloads_come_in_their_turns_after_deletes(layout: Layout) -> None:
    wants = [a_fetch(layout, size) for size in (3, 2, 1)]
    gone = put_chunk(layout)
    place_delete(layout, gone.chunk_id)
    steps = steps_of(layout)
    assert steps[0] == Step("delete", gone.chunk_id, 100)
    ctimes = {want.id: (judged(layout.want_marker(want.id)).ctime_ns, want.id) for want in wants}
    assert [step.id for step in steps[1:]] == sorted(ctimes, key=ctimes.__getitem__)


def test_a_want_that_is_here_is_kept_and_one_with_other_files_replaces_it(layout: Layout) -> None:
    same, other = put_chunk(layout), put_chunk(layout)
    place_want(layout, of_place(same))
    place_want(layout, of_place(other, size=70))
    steps = {step.id + step.what: step for step in steps_of(layout)}
    assert set(steps) == {f"{same.chunk_id}keep", f"{other.chunk_id}delete", f"{other.chunk_id}fetch"}
    assert steps[f"{other.chunk_id}fetch"].size_bytes == 70


def test_of_two_markers_the_later_one_is_followed(layout: Layout) -> None:
    one, two = put_chunk(layout), put_chunk(layout)
    put_want(Path(layout.root), of_place(one))
    touch_delete(Path(layout.root), two.chunk_id)
    wait_for_a_tick(layout.want_marker(one.chunk_id))
    wait_for_a_tick(layout.delete_marker(two.chunk_id))
    touch_delete(Path(layout.root), one.chunk_id)
    put_want(Path(layout.root), of_place(two))
    assert {(step.what, step.id) for step in steps_of(layout)} == {("delete", one.chunk_id), ("keep", two.chunk_id)}


def test_a_want_that_cannot_be_read_fails_and_overrules_no_delete(layout: Layout) -> None:
    broken, gone = an_id(), put_chunk(layout)
    Path(layout.want_marker(broken)).write_text("{")
    touch_delete(Path(layout.root), gone.chunk_id)
    wait_for_a_tick(layout.delete_marker(gone.chunk_id))
    Path(layout.want_marker(gone.chunk_id)).write_text("{")
    steps = {step.id: step for step in steps_of(layout)}
    assert steps[broken].what == "fail"
    assert "EOF" in steps[broken].why
    assert steps[gone.chunk_id].what == "delete"


def test_what_is_no_file_fails_also_where_that_was_told_before(layout: Layout) -> None:
    chunk_id = an_id()
    os.mkdir(layout.want_marker(chunk_id))
    assert [step.what for step in steps_of(layout)] == ["fail"]
    done = fsdm("run", "-d", layout.root, "--once")
    assert done.returncode == 4
    assert [(step.what, "is a directory" in step.why) for step in steps_of(layout)] == [("fail", True)]


def test_a_want_that_has_failed_waits_and_says_why_and_how_long(layout: Layout) -> None:
    chunk = a_fetch(layout, 1)
    now = time.time()
    told = _failure(until=now + 100, marker=chunk.want, error="HTTP 404").model_copy(update={"id": chunk.id})
    Path(layout.failed_of(chunk.id)).write_bytes(told.to_json())
    steps = list(dry_run(layout, FREE, now).steps)
    assert steps == [Step("wait", chunk.id, why="HTTP 404; tried again in 100 s")]


def test_what_has_no_room_waits_and_what_a_delete_frees_is_room(layout: Layout) -> None:
    gone, large, small = put_chunk(layout), a_fetch(layout, 901), a_fetch(layout, 900)
    limits = Limits(max_bytes=900)
    steps = {step.id: step for step in steps_of(layout, limits)}
    assert {steps[large.id].what, steps[small.id].what} == {"wait"}
    assert steps[small.id].why == "needs 900 bytes, and there is room for 800 bytes"
    place_delete(layout, gone.chunk_id)
    steps = {step.id: step for step in steps_of(layout, limits)}
    assert (steps[large.id].what, steps[small.id].what) == ("wait", "fetch")


def test_a_held_chunk_waits_and_the_look_disturbs_no_ref(layout: Layout) -> None:
    gone = put_chunk(layout)
    place_delete(layout, gone.chunk_id)
    with shell_holding(Path(layout.path(gone))):
        (step,) = steps_of(layout)
    assert (step.what, "refs hold it" in step.why) == ("wait", True)


def test_what_a_brake_would_hold_back_waits_until_it_is_released(layout: Layout) -> None:
    places = [put_chunk(layout) for _ in range(120)]
    for place in places:
        touch_delete(Path(layout.root), place.chunk_id)
    braked = Limits(brake_share=0.25)
    assert {step.what for step in steps_of(layout, braked)} == {"wait"}
    assert {step.what for step in steps_of(layout)} == {"delete"}
    Path(layout.release).touch()
    assert {step.what for step in steps_of(layout, braked)} == {"delete"}


def test_while_downloads_are_paused_they_wait(layout: Layout) -> None:
    chunk = a_fetch(layout, 1)
    Path(layout.pause).touch()
    assert steps_of(layout) == [Step("wait", chunk.id, why="downloads are paused: fsdm resume")]


@pytest.mark.parametrize("marker", ["delete", "nothing"])
def test_an_unwanted_partial_is_discarded(layout: Layout, marker: str) -> None:
    chunk_id = an_id()
    data = Path(layout.partial_of(chunk_id), "data")
    data.mkdir(parents=True)
    (data / "x").write_bytes(bytes(10))
    if marker == "delete":
        place_delete(layout, chunk_id)
    steps = steps_of(layout)
    assert steps[0] == Step("discard", chunk_id, 10)
    assert Forecast(tuple(steps)).total_bytes("delete", "discard") == 10


def test_a_dry_run_changes_nothing_and_the_run_does_as_it_said(data_dir: Path, layout: Layout, source: Source) -> None:
    wanted, broken = source.chunk(files=1, size=3000), an_id()
    gone, held = put_chunk(layout), put_chunk(layout)
    put_want(data_dir, wanted)
    (data_dir / "want" / broken).write_text("{")
    for place in (gone, held):
        touch_delete(data_dir, place.chunk_id)
    before = everything(layout)
    with shell_holding(Path(layout.path(held))):
        said = fsdm_json("run", "-d", data_dir, "--once", "--dry-run", "--limit-rate", "1K")
        shown = fsdm("run", "-d", data_dir, "--once", "--dry-run")
        assert everything(layout) == before
        done = fsdm("run", "-d", data_dir, "--once")
    whats = {step["id"]: step["what"] for step in said["steps"]}
    assert whats == {wanted.id: "fetch", gone.chunk_id: "delete", held.chunk_id: "wait", broken: "fail"}
    assert (said["fetch_bytes"], said["freed_bytes"], said["seconds"], said["reconciler"]) == (3000, 100, 3.0, None)
    assert not said["is_rate_assumed"]
    assert f"fetch\t{wanted.id}\t3000\t\n" in shown.stdout
    assert shown.stderr == "3000 bytes to fetch; 100 bytes freed\nat least 0 s, at 50.0 MB a second, which is assumed\n"
    assert done.returncode == 4
    assert failure(data_dir, broken)
    assert sorted(os.listdir(f"{layout.chunks}/{'d' * 64}")) == sorted([wanted.place.name, held.name])


def test_a_dry_run_takes_no_lock_and_names_its_holder(data_dir: Path) -> None:
    with reconciling(data_dir) as process:
        done = fsdm("run", "-d", data_dir, "--once", "--dry-run")
        assert done.returncode == 0
        assert f": pid {process.pid} on " in done.stderr.splitlines()[-1]


def test_a_dry_run_does_without_knowing_the_reconciler(data_dir: Path, layout: Layout) -> None:
    os.mkdir(layout.lock)
    done = fsdm("run", "-d", data_dir, "--once", "--dry-run")
    assert done.returncode == 0
    assert f"not known: {layout.lock} is not a file" in done.stderr


def test_a_dry_run_makes_no_directory(tmp_path: Path) -> None:
    assert fsdm("run", "-d", tmp_path / "missing", "--once", "--dry-run").returncode == 6
    assert not (tmp_path / "missing").exists()


def test_what_is_to_be_verified_stays_and_what_was_quarantined_comes_back(layout: Layout, source: Source) -> None:
    place, gone, deleted = (put_chunk(layout, start=n, end=n + 1) for n in range(3))
    chunk = source.chunk()
    for one in (place, deleted):
        place_verify(layout, one.chunk_id)
    place_delete(layout, deleted.chunk_id)
    place_verify(layout, an_id())
    os.unlink(f"{layout.path(gone)}/READY")
    Path(layout.path(gone), "WANT").write_bytes(chunk.to_json())
    Path(layout.failed_of(gone.chunk_id)).touch()
    steps = {step.id: (step.what, step.why) for step in steps_of(layout)}
    assert steps[place.chunk_id] == ("keep", "its bytes are compared with READY")
    assert steps[gone.chunk_id] == ("wait", "it was damaged: it is wanted again, and fetched")
    assert steps[deleted.chunk_id][0] == "delete"
    assert len(steps) == 3
