"""Room: what counts, what fits, what waits; alone, and with a whole reconciler around it."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm import DataChunk, DataManager, Limits
from fsdm.model.documents import FileSource
from fsdm.model.errors import TransferError
from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.model.state import Marker
from fsdm.reconcile import space_budget
from fsdm.reconcile.actions import Fetch
from fsdm.reconcile.space_budget import PARTS, Part, SpaceBudget, Usage
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem, free_bytes
from tests.support import PATIENCE_S, Source, eventually, fsdm, fsdm_json
from tests.support.chunks import an_id, bring, chunk_dir, content, failure, put_chunk, put_want, touch_delete
from tests.support.loop import Inline, a_fetch, comes


def a_budget(
    layout: Layout, max_bytes: int | None = None, keep_free: int | None = None, free: int = 1 << 60
) -> SpaceBudget:
    catalog = Catalog(layout, own=True)
    catalog.refresh()
    space = SpaceBudget(
        layout, catalog, Limits(max_bytes=max_bytes, keep_free_bytes=keep_free or 0), free=lambda _: free
    )
    space.open()
    space.look()
    return space


def test_without_a_limit_nothing_is_counted_or_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    put_chunk(layout)
    comes(layout, a_fetch(layout, 1), 1)
    monkeypatch.setattr(space_budget, "bytes_in", None)
    space = a_budget(layout)
    assert not space.is_limited
    assert (space.taken_bytes, space.news()) == (0, None)


def test_chunks_count_with_or_without_ready_retiring_partial_and_in_the_trash(layout: Layout) -> None:
    put_chunk(layout, files={"a": bytes(100), "b": bytes(20)})
    unready = put_chunk(layout, files={"a": bytes(3000)})
    Path(layout.path(unready), "READY").unlink()
    retiring = put_chunk(layout, files={"a": bytes(40_000)})
    touch_delete(Path(layout.root), retiring.chunk_id)
    comes(layout, a_fetch(layout, 9), 500_000)
    space = a_budget(layout, max_bytes=1_000_000)
    assert space.taken_bytes == 543_120
    gone = f"{layout.trash}/{retiring.name}.abcd1234"
    os.rename(layout.path(retiring), gone)
    space.trashed(gone)
    assert space.taken_bytes == 543_120
    assert space.is_emptying
    shutil.rmtree(gone)
    space.erased(gone)
    assert space.taken_bytes == 503_120
    assert not space.is_emptying


@pytest.mark.parametrize(
    ("came", "set_aside", "headroom"), [(0, 0, 400), (0, 500, 900), (500, 0, 400), (300, 400, 800), (600, 600, 900)]
)
def test_what_is_set_aside_is_no_more_to_come_and_what_has_come_is_told(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, came: int, set_aside: int, headroom: int
) -> None:
    space = a_budget(layout, max_bytes=1 << 40, keep_free=100, free=1000)
    fetch = a_fetch(layout, 500)
    assert space.begin(fetch)
    monkeypatch.setattr(space_budget, "bytes_in", lambda _: (came, set_aside))
    assert space.look() == headroom
    assert space.taken_bytes == max(came, 500)
    told = space.bytes_by_part([fetch.id])
    assert told is not None
    assert told["partial"] == came


def test_what_cannot_be_erased_still_counts_but_is_no_longer_waited_for(layout: Layout) -> None:
    space = a_budget(layout, max_bytes=1000)
    stuck = Path(layout.trash, "x.abcd1234", "data")
    stuck.mkdir(parents=True)
    (stuck / "f").write_bytes(bytes(10))
    space.trashed(str(stuck.parent))
    space.trashed(str(stuck.parent), stays=True)
    assert (space.taken_bytes, space.is_emptying) == (10, False)


def test_a_ready_that_tells_no_sizes_leaves_them_to_the_files(layout: Layout) -> None:
    for text in ("", "[]", '{"files": 1}', '{"files": {"a": {"size": "x"}}}', '{"files": {"a": {"size": 1e999}}}'):
        place = put_chunk(layout, files={"a": bytes(100)})
        Path(layout.path(place), "READY").write_text(text)
    assert a_budget(layout, max_bytes=1).taken_bytes == 500


def test_what_comes_and_goes_by_hand_counts_when_it_is_counted_again(layout: Layout) -> None:
    place = put_chunk(layout, files={"a": bytes(100)})
    space = a_budget(layout, max_bytes=1000)
    shutil.rmtree(layout.path(place))
    space.count(place.chunk_id)
    assert space.taken_bytes == 0


def test_a_running_fetch_counts_as_a_whole_so_that_no_two_begin_into_the_last_gap(layout: Layout) -> None:
    space = a_budget(layout, max_bytes=100)
    first, second, third = a_fetch(layout, 30, 30), a_fetch(layout, 60), a_fetch(layout, 40)
    assert space.begin(first)
    assert not space.begin(second)
    assert space.begin(third)
    assert space.look() == 0
    assert space.taken_bytes == 100
    comes(layout, first, 10)
    assert space.look() == 0
    space.end(first.id)
    assert space.look() == 50  # what is left of it on disk counts as what it is


def test_what_is_on_disk_of_a_want_is_not_needed_a_second_time(layout: Layout) -> None:
    fetch = a_fetch(layout, 100)
    comes(layout, fetch, 60)
    space = a_budget(layout, max_bytes=100)
    assert space.taken_bytes == 60
    assert space.begin(fetch)
    assert space.taken_bytes == 100


def test_the_reserve_of_the_disk_counts_what_running_fetches_still_have_to_bring(layout: Layout) -> None:
    space = a_budget(layout, keep_free=1_000, free=1_000_000)
    first, second = a_fetch(layout, 600_000), a_fetch(layout, 400_000)
    assert space.begin(first)
    assert not space.begin(second)
    assert space.look() == 399_000
    comes(layout, first, 500_000)  # now they are the disk's, which has less free: here it says the same as before
    assert 398_000 <= space.look() - 500_000 <= 400_000 + 4096
    error, _ = space.why_not(second)
    assert error.startswith("needs 400.0 kB, but ")
    assert "are free on the disk, and 1000 bytes are to stay free" in error


def test_a_disk_that_has_been_full_is_asked_from_then_on(layout: Layout) -> None:
    space = a_budget(layout, free=100)
    assert not space.is_limited
    space.guard()
    space.look()
    assert space.is_limited
    assert not space.begin(a_fetch(layout, 101))
    assert space.begin(a_fetch(layout, 100))


def test_the_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert abs(free_bytes(str(tmp_path)) - found.f_bavail * found.f_frsize) < 1 << 30


def test_an_unreadable_want_is_admitted_for_the_fetch_to_report(layout: Layout) -> None:
    space = a_budget(layout, max_bytes=1)
    assert space.begin(Fetch(an_id(), Marker(1, 1, 1, 1)))


def test_why_it_does_not_fit_is_told_in_numbers(layout: Layout) -> None:
    place = put_chunk(layout, files={"a": bytes(500_000)})
    touch_delete(Path(layout.root), place.chunk_id)
    put_chunk(layout, files={"a": bytes(300_000)})
    space = a_budget(layout, max_bytes=1_000_000)
    assert space.why_not(a_fetch(layout, 200_001))[0] == (
        "needs 200.0 kB, but 800.0 kB of 1.0 MB are taken (500.0 kB of that by chunks that are retiring)"
    )
    error, hint = space.why_not(a_fetch(layout, 1_500_000))
    assert error == "needs 1.5 MB, more than the 1.0 MB that all chunks together may take"
    assert "--max-bytes" in hint


def test_the_youngest_that_brings_too_much_is_stopped_one_at_a_time(layout: Layout) -> None:
    space = a_budget(layout, max_bytes=1000)
    declared, older, younger = a_fetch(layout, 400), a_fetch(layout, None), a_fetch(layout, 10, None)
    assert space.begin(declared)
    assert space.begin(older)
    assert space.begin(younger)
    comes(layout, older, 300)
    comes(layout, younger, 300)
    assert space.too_much() is None
    comes(layout, older, 301)
    assert space.too_much() == max([older, younger], key=lambda fetch: (fetch.want.ctime_ns, fetch.id))
    assert space.too_much() is None


def test_a_fetch_stopped_for_room_does_not_begin_in_its_own_room(layout: Layout) -> None:
    space = a_budget(layout, max_bytes=1000)
    fetch = a_fetch(layout, None)
    assert space.begin(fetch)
    comes(layout, fetch, 1001)
    assert space.too_much() == fetch
    assert not space.end(fetch.id)
    shutil.rmtree(layout.partial_of(fetch.id))
    space.count(fetch.id)
    assert space.look() == 1000
    assert not space.begin(fetch)
    assert space.need_bytes(fetch) > 1001
    space.forget(fetch.id)
    assert space.need_bytes(fetch) == 0


def test_what_has_come_in_one_go_is_judged_at_its_end(layout: Layout) -> None:
    space = a_budget(layout, max_bytes=1000)
    small, big = a_fetch(layout, None), a_fetch(layout, None)
    assert space.begin(small)
    assert space.begin(big)
    comes(layout, small, 600)
    assert space.end(small.id)
    comes(layout, big, 600)
    assert not space.end(big.id)


def test_what_keeps_to_what_it_declared_is_never_stopped(layout: Layout) -> None:
    fetch = a_fetch(layout, 500)
    space = a_budget(layout, max_bytes=1000)
    assert space.begin(fetch)
    comes(layout, fetch, 500)
    stray = put_chunk(layout, files={"a": bytes(900)})
    space.catalog.refresh()
    space.count(stray.chunk_id)
    assert space.look() < 0
    assert space.too_much() is None
    assert space.end(fetch.id)


def test_idle_partials_are_in_the_way_where_that_matters(layout: Layout) -> None:
    idle = a_fetch(layout, 900)
    comes(layout, idle, 500)
    space = a_budget(layout, max_bytes=1000)
    assert space.in_the_way(a_fetch(layout, 1000)) == [idle.id]
    assert space.in_the_way(a_fetch(layout, 1001)) == []


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.sampled_from(["begin", "come", "end"]), st.integers(0, 5), st.integers(0, 99)), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_what_begins_never_exceeds_the_budget(max_bytes: int, steps: list[tuple[str, int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        layout = Layout(directory)
        make_layout(layout, FileSystem(durable=False))
        space, running, wants = a_budget(layout, max_bytes=max_bytes), dict[int, int](), dict[int, tuple[Fetch, int]]()
        done = dict[int, int]()
        for kind, number, size in steps:
            if kind == "begin" and number not in running:
                fetch, need = wants.setdefault(number, (a_fetch(layout, size), size))
                space.look()
                before = sum(running.values()) + sum(done.values()) - done.get(number, 0)
                assert space.begin(fetch) == (before + need <= max_bytes)
                if before + need <= max_bytes:
                    running[number] = need
                    done.pop(number, None)
            elif kind == "come" and number in running:
                comes(layout, wants[number][0], min(size, running[number]))
            elif kind == "end" and number in running:
                assert space.end(wants[number][0].id)
                del running[number]
                path = Path(layout.partial_of(wants[number][0].id), "data", "0")
                done[number] = path.stat().st_size if path.exists() else 0
            assert space.taken_bytes == sum(running.values()) + sum(done.values()) <= max_bytes


def waits(dm: DataManager, chunk: DataChunk) -> str:
    """Why a chunk waits, once it is shown as waiting."""
    return eventually(lambda: (s := dm.status().chunks.get(chunk.id)) and s.state == "waiting" and s.error)  # type: ignore[no-any-return]


def test_a_want_over_the_budget_waits_and_starts_when_a_delete_makes_room(data_dir: Path, source: Source) -> None:
    events: list[Event] = []
    first, second = source.chunk(size=300_000), source.chunk(start=10, end=20, size=250_000)
    with DataManager(data_dir, limits=Limits(max_bytes=1_000_000), on_event=events.append) as dm:
        bring(dm, first)
        dm.download_chunk(second)
        assert waits(dm, second) == "needs 500.0 kB, but 600.0 kB of 1.0 MB are taken"
        document = failure(data_dir, second.id)
        assert document is not None
        assert (document["kind"], document.get("next_attempt_at")) == ("room", None)
        assert source.asked[f"/{second.id}/blocks.parquet"] == 0
        dm.delete_chunk(first.id)
        assert dm.wait(second.id, PATIENCE_S)
        eventually(lambda: failure(data_dir, second.id) is None)
        eventually(lambda: events[-1] == Event("size", "", "500.0 kB of 1.0 MB"))
    kinds = [event.kind for event in events if event.chunk_id == second.id]
    assert kinds == ["over", "started", "file", "file", "available"]
    assert next(event.text for event in events if event.kind == "size") == "600.0 kB of 1.0 MB"


def test_a_waiting_want_holds_up_none_and_a_retiring_chunk_counts(data_dir: Path, source: Source) -> None:
    first = source.chunk(size=400_000)
    big, small = source.chunk(start=10, end=20, size=400_000), source.chunk(start=20, end=30, size=50_000)
    events: list[Event] = []
    with DataManager(data_dir, limits=Limits(jobs=1, max_bytes=1_000_000), on_event=events.append) as dm:
        bring(dm, first)
        dm.download_chunk(big)
        waits(dm, big)
        bring(dm, small)
        with dm.find_chunk(first.dataset_id, 0):  # type: ignore[union-attr]
            dm.delete_chunk(first.id)
            eventually(lambda: any(event.kind == "retiring" and event.chunk_id == first.id for event in events))
            anew = source.chunk(start=30, end=40, size=450_000)
            dm.download_chunk(anew)
            assert "(800.0 kB of that by chunks that are retiring)" in waits(dm, anew)
            assert dm.status().chunks[big.id].state == "waiting"
        assert dm.wait(big.id, PATIENCE_S)
        assert dm.status().chunks[anew.id].state == "waiting"  # the older one has the room
        assert not chunk_dir(data_dir, first).exists()


def test_a_want_that_can_never_fit_says_so_and_goes_on_under_a_higher_limit(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(size=600_000)
    put_first = source.chunk(start=10, end=20)
    with DataManager(data_dir, limits=Limits(max_bytes=1_000_000)) as dm:
        dm.download_chunk(chunk)
        assert "more than the 1.0 MB" in waits(dm, chunk)
        bring(dm, put_first)
    with DataManager(data_dir, limits=Limits(max_bytes=2_000_000)) as dm:
        assert dm.wait(chunk.id, PATIENCE_S)
        eventually(lambda: failure(data_dir, chunk.id) is None)


def test_a_want_that_waits_is_withdrawn_or_deleted_like_any_other(data_dir: Path, source: Source) -> None:
    withdrawn, deleted = source.chunk(size=600_000), source.chunk(size=700_000)
    with DataManager(data_dir, limits=Limits(max_bytes=1_000_000)) as dm:
        for chunk in (withdrawn, deleted):
            dm.download_chunk(chunk)
            waits(dm, chunk)
        (data_dir / "want" / withdrawn.id).unlink()
        dm.delete_chunk(deleted.id)
        eventually(lambda: not dm.status().chunks)


def test_a_download_beyond_the_room_is_stopped(data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.reconcile.loop.SCAN_SHARE", 0)  # the next scan is soon, however long one takes
    here = source.chunk(size=300_000)
    data = content("unknown", 700_000)
    url = source.put("/unknown", data)
    fault = source.fault("/unknown", stall_at=650_000, no_length=True)
    unknown = DataChunk(id=an_id(), dataset_id="d" * 64, block_range=(10, 20), files={"x": url})
    with DataManager(data_dir, limits=Limits(max_bytes=1_000_000, poll_s=0.05)) as dm:
        bring(dm, here)
        dm.download_chunk(unknown)
        waits(dm, unknown)
        eventually(lambda: not os.listdir(data_dir / "partial"))
        asked = source.asked["/unknown"]
        dm.download_chunk(source.chunk(start=20, end=30))  # it is a pass of the loop: nothing begins anew by itself
        eventually(lambda: dm.status().count("available") == 2)
        assert source.asked["/unknown"] == asked == 1
        fault.gate.set()
        source.faults.clear()
        dm.delete_chunk(here.id)
        assert dm.wait(unknown.id, PATIENCE_S)
        assert (chunk_dir(data_dir, unknown) / "data" / "x").read_bytes() == data


def test_the_reserve_keeps_a_want_waiting_until_there_is_room(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(data_dir, limits=Limits(keep_free_bytes=1000)) as dm:
        space = dm.reconciler.loop.space  # type: ignore[union-attr]
        free = [2500]
        space.free = lambda _: free[0]
        dm.download_chunk(chunk)
        assert (
            waits(dm, chunk) == "needs 2000 bytes, but 2500 bytes are free on the disk, and 1000 bytes are to stay free"
        )
        free[0] = 3000  # an rm by hand, of which no event tells
        assert dm.wait(chunk.id, PATIENCE_S)


def test_a_former_lifes_partials_give_way_to_a_want_that_fits(layout: Layout, data_dir: Path, source: Source) -> None:
    old, new = source.chunk(size=450_000), source.chunk(start=10, end=20, size=400_000)
    source.fault(f"/{old.id}/blocks.parquet", status=404)
    comes(layout, Fetch(old.id, Marker(1, 1, 1, 1)), 300_000)
    with DataManager(data_dir, limits=Limits(max_bytes=1_000_000)) as dm:
        put_want(data_dir, old)
        bring(dm, new)
        assert dm.list_chunks() == [new.id]


def test_once_ends_with_code_4_where_a_want_waits_for_room(layout: Layout, data_dir: Path, source: Source) -> None:
    fits, over = source.chunk(), source.chunk(start=10, end=20, size=600)
    put_want(data_dir, fits)
    assert fsdm("run", "-d", data_dir, "--once", "--max-bytes", "3K").returncode == 0
    put_want(data_dir, over)
    done = fsdm("run", "-d", data_dir, "--once", "--max-bytes", "3K")
    assert done.returncode == 4, done.stderr
    assert f"{over.id}: needs 1200 bytes, but 2000 bytes of 3000 bytes are taken" in done.stderr
    (status,) = [c for c in fsdm_json("status", "-d", data_dir)["chunks"] if c["id"] == over.id]
    assert status["state"] == "waiting"
    assert fsdm("run", "-d", data_dir, "--once", "--max-bytes", "3200").returncode == 0


def test_thousands_that_wait_are_told_once_and_not_searched(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1000
    for number in range(count):
        a_fetch(layout, 1000 + number)
    place = put_chunk(layout, files={"a": bytes(500)})
    small = put_chunk(layout, files={"a": bytes(400)})
    inline = Inline(layout, Limits(max_bytes=1500))
    inline.passes(20)
    assert len(inline.told("over")) == count
    assert len(os.listdir(layout.failed)) == count
    written = {name: os.stat(f"{layout.failed}/{name}").st_ino for name in os.listdir(layout.failed)}
    needs: list[str] = []
    need_bytes = SpaceBudget.need_bytes
    monkeypatch.setattr(SpaceBudget, "need_bytes", lambda it, fetch: needs.append(fetch.id) or need_bytes(it, fetch))
    touch_delete(Path(layout.root), small.chunk_id)
    inline.passes(20)  # 1000 bytes are free now: the smallest fits
    assert len(inline.told("available")) == 1
    assert len(set(needs)) == 1
    touch_delete(Path(layout.root), place.chunk_id)
    inline.passes(20)  # and no other, after it
    assert len(inline.told("available")) == 1
    left = {name: os.stat(f"{layout.failed}/{name}").st_ino for name in os.listdir(layout.failed)}
    assert left.items() < written.items()
    assert len(left) == count - 1


def test_a_failed_fetch_keeps_no_partial_while_others_wait_for_its_room(layout: Layout) -> None:
    class Keeps(FileSystem):
        """Leaves the partial of a failing fetch where it is, as a resumed download would want it."""

        failing = False

        def discard(self, path: str, trash: str) -> str | None:
            return None if self.failing else super().discard(path, trash)

    fs = Keeps()
    inline = Inline(layout, Limits(max_bytes=1000), fs)
    failing, waiting = a_fetch(layout, 600), a_fetch(layout, 700)

    def fails(source: FileSource) -> None:
        if source.size == 600:
            comes(layout, failing, 500)
            inline.passes(4)  # while it runs, the other finds no room
            fs.failing = True
            raise TransferError("gone", transient=False)

    inline.instead = fails
    inline.it.loop.step()
    fs.failing = False
    assert inline.told("over") == [waiting.id]
    assert os.listdir(layout.partial) == [failing.id]
    inline.passes()
    assert inline.told("available") == [waiting.id]


def test_what_is_told_of_a_want_that_waits_goes_when_it_begins(layout: Layout) -> None:
    place, fetch = put_chunk(layout, files={"a": bytes(600)}), a_fetch(layout, 700)
    inline = Inline(layout, Limits(max_bytes=1000))
    inline.passes()
    assert os.listdir(layout.failed) == [fetch.id]
    seen: list[list[str]] = []
    inline.instead = lambda _: seen.append(os.listdir(layout.failed))
    touch_delete(Path(layout.root), place.chunk_id)
    inline.passes()
    assert seen == [[]]


def test_a_chunk_that_is_removed_by_hand_makes_room(layout: Layout) -> None:
    place, fetch = put_chunk(layout, files={"a": bytes(600)}), a_fetch(layout, 700)
    inline = Inline(layout, Limits(max_bytes=1000))
    inline.passes()
    assert inline.told("over") == [fetch.id]
    shutil.rmtree(layout.path(place))
    inline.passes()
    assert inline.told("available") == [fetch.id]


def test_a_budget_that_is_lifted_and_set_again_counts_afresh_what_is_here(layout: Layout) -> None:
    one, _ = (put_chunk(layout, files={"a": bytes(100)}) for _ in range(2))
    space = a_budget(layout, max_bytes=1000)
    assert space.taken_bytes == 200
    space.change(Limits(max_bytes=None, keep_free_bytes=0), ())
    assert not space.is_limited
    shutil.rmtree(layout.path(one))
    space.catalog.refresh()
    space.count(one.chunk_id)
    space.change(Limits(max_bytes=1000, keep_free_bytes=0), ())
    assert space.taken_bytes == 100


def test_a_disk_that_has_been_full_is_asked_whatever_the_reserve_becomes(layout: Layout) -> None:
    space = a_budget(layout, free=500)
    space.guard()
    space.change(Limits(max_bytes=None, keep_free_bytes=0), ())
    assert space.look() == 500
    space.change(Limits(max_bytes=None, keep_free_bytes=100), ())
    assert space.look() == 400


def test_what_runs_when_a_limit_comes_counts_with_all_that_it_is_to_bring(layout: Layout) -> None:
    space = a_budget(layout)
    running = a_fetch(layout, 700)
    space.change(Limits(max_bytes=1000, keep_free_bytes=0), [running])
    assert space.look() == 300
    assert not space.begin(a_fetch(layout, 301))
    assert space.end(running.id)
    space.look()
    assert space.begin(a_fetch(layout, 1000))


puts = st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from("abc"), st.integers(0, 100)), max_size=30)


@given(puts)
def test_the_totals_are_the_sums_of_the_last_entries(puts: list[tuple[Part, str, int]]) -> None:
    usage, entries = Usage(), dict[tuple[Part, str], int]()
    for part, name, size in puts:
        usage.put(part, name, size)
        entries[part, name] = size
    for part in PARTS:
        assert usage.sizes[part] == {name: size for (of, name), size in entries.items() if of == part and size}
        assert usage.totals[part] == sum(usage.sizes[part].values())
    assert usage.taken_bytes == sum(entries.values())


def test_fetch_of_nothing_lacks_all_that_it_needs_beyond_the_headroom(layout: Layout) -> None:
    space, fetch = a_budget(layout, max_bytes=1000), a_fetch(layout, 1500)
    need = space.need_bytes(fetch)
    assert space.lacks_bytes(fetch) == need - 1000 > 0
    comes(layout, fetch, 300)
    space.count(fetch.id)
    assert space.lacks_bytes(fetch) == need - 300 - 1000


def test_bytes_are_told_by_part_where_they_are_counted(layout: Layout) -> None:
    put_chunk(layout, files={"a": bytes(100)})
    running, idle = a_fetch(layout, 9), a_fetch(layout, 9)
    comes(layout, running, 30)
    comes(layout, idle, 20)
    assert a_budget(layout).bytes_by_part([running.id]) is None
    space = a_budget(layout, max_bytes=1000)
    comes(layout, running, 50)
    found = space.bytes_by_part([running.id])
    assert found is not None
    assert (found["here"], found["partial"]) == (100, 70)
