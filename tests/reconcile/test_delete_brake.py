"""Deletes that are held back: by a reconciler as others see it, over restarts, until they are meant or withdrawn."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm import Client, DataManager, Limits
from fsdm.model.errors import BrakedError, InvalidInputError
from fsdm.model.layout import Layout, Place
from fsdm.reconcile import delete_brake
from fsdm.reconcile.delete_brake import (
    FEW_DELETES,
    MANY_BYTES,
    MANY_CHUNKS,
    WINDOW_S,
    Brake,
    Going,
    exceeds,
    parse_share,
    place_deletes,
    read_brake,
)
from fsdm.store.markers import place_want
from tests.support import eventually, fsdm, fsdm_json, reconciling, running, shell_holding
from tests.support.chunks import an_id, entries, of_place, put_chunk, put_want, touch_delete
from tests.support.loop import Inline

BRAKED = Limits(brake_share=0.25, durability="none")
UNBRAKED = Limits(durability="none")


class Loop(Inline):
    """A reconciler of this thread, with a brake."""

    def __init__(self, layout: Layout, limits: Limits = BRAKED) -> None:
        super().__init__(layout, limits)

    def rest(self) -> None:
        """Look at everything, and do what is to be done."""
        self.now += 2.0
        self.it.loop.wakeup.notify(None)
        while self.it.loop.step():
            pass

    @property
    def kinds(self) -> list[str]:
        """What was told about the deletes as a whole."""
        return [event.kind for event in self.events if event.kind in {"braked", "released"}]

    @property
    def brake(self) -> dict[str, Any] | None:
        return brake_of(Path(self.it.layout.root))


def brake_of(data_dir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((data_dir / "BRAKE").read_bytes())  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None


def here(layout: Layout) -> int:
    return sum(len(os.listdir(dataset)) for dataset in Path(layout.chunks).iterdir())


@pytest.fixture
def places(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """40 chunks that are here, of which ten are many."""
    monkeypatch.setattr(delete_brake, "MANY_CHUNKS", 10)
    return [put_chunk(layout) for _ in range(40)]


@pytest.fixture
def many(layout: Layout) -> list[Place]:
    """400 chunks that are here."""
    return [put_chunk(layout) for _ in range(400)]


def delete(layout: Layout, places: list[Place]) -> None:
    """As a loop of `touch` does it."""
    for place in places:
        touch_delete(Path(layout.root), place.chunk_id)


def braked(layout: Layout, places: list[Place]) -> Loop:
    loop = Loop(layout)
    delete(layout, places[:15])
    loop.rest()
    return loop


def braked_in_drops(layout: Layout, places: list[Place]) -> Loop:
    loop = Loop(layout)
    for place in places[:12]:
        delete(layout, [place])
        loop.rest()
    return loop


def test_a_burst_of_deletes_is_held_back_and_tells_why(layout: Layout, places: list[Place]) -> None:
    loop = Loop(layout)
    loop.rest()
    delete(layout, places[:15])
    loop.rest()
    assert here(layout) == 40
    assert loop.kinds == ["braked"]
    said = loop.brake
    assert said is not None
    assert (said["held_back"], said["of"], said["let_go"], said["since"]) == (15, 40, 0, loop.now)
    assert "fsdm release" in said["what_to_do"]
    loop.rest()
    assert (here(layout), loop.kinds) == (40, ["braked"])
    assert set(Client(layout.root).list_chunks()) == {place.chunk_id for place in places[15:]}


def test_without_a_share_or_below_it_deletes_go(layout: Layout, places: list[Place]) -> None:
    for limits, count in ((UNBRAKED, 15), (BRAKED, 6)):
        loop = Loop(layout, limits)
        left = here(layout)
        delete(layout, places[:count])
        places = places[count:]
        loop.rest()
        assert here(layout) == left - count
        assert (loop.kinds, loop.brake) == ([], None)


def test_a_burst_in_drops_is_held_back_from_where_it_is_too_much(layout: Layout, places: list[Place]) -> None:
    loop = braked_in_drops(layout, places)
    assert here(layout) == 30
    assert loop.brake is not None
    assert (loop.brake["let_go"], loop.brake["held_back"], loop.brake["of"]) == (10, 2, 40)


def test_downloads_and_markers_of_what_is_not_here_go_on_meanwhile(layout: Layout, places: list[Place]) -> None:
    loop = Loop(layout)
    delete(layout, places[:15])
    unknown = an_id()
    touch_delete(Path(layout.root), unknown)
    place_want(layout, of_place(places[39]))
    loop.rest()
    assert not os.path.exists(layout.delete_marker(unknown))
    assert not os.path.exists(layout.want_marker(places[39].chunk_id))
    assert here(layout) == 40


def test_a_release_lets_go_all_that_stand_and_none_that_come_later(layout: Layout, places: list[Place]) -> None:
    loop = braked(layout, places)
    Path(layout.release).touch()
    delete(layout, places[15:25])
    os.utime(layout.release, ns=(1, 1))  # mtimes say nothing; the ctime is what counts
    loop.rest()
    assert here(layout) == 15
    assert (loop.kinds, loop.brake) == (["braked", "released"], None)
    eventually(lambda: later_than_release(layout, places[25]))
    delete(layout, places[25:])
    loop.rest()
    assert here(layout) == 15
    assert loop.kinds == ["braked", "released", "braked"]


def later_than_release(layout: Layout, place: Place) -> bool:
    """Whether a marker that is placed now gets a later ctime: the kernel's clock ticks."""
    touch_delete(Path(layout.root), place.chunk_id)
    marker = layout.delete_marker(place.chunk_id)
    later = os.lstat(marker).st_ctime_ns > os.lstat(layout.release).st_ctime_ns
    os.unlink(marker)
    return later


@pytest.mark.parametrize(("after_s", "told"), [(0.5, 15), (delete_brake.WRITE_EVERY_S, 16), (-60.0, 16)])
def test_note_is_written_once_a_second_and_where_the_clock_is_set_back(
    layout: Layout, places: list[Place], after_s: float, told: int
) -> None:
    loop = braked(layout, places)
    delete(layout, places[15:16])
    loop.now += after_s - 2.0  # which `rest` lets pass
    loop.rest()
    assert loop.brake is not None
    assert loop.brake["held_back"] == told


@pytest.mark.parametrize("kind", ["a symbolic link", "a directory"])
def test_a_release_is_a_regular_file(layout: Layout, places: list[Place], kind: str) -> None:
    loop = Loop(layout)
    delete(layout, places[:15])
    if kind == "a directory":
        os.mkdir(layout.release)
    else:
        os.symlink(layout.format_file, layout.release)
    loop.rest()
    assert here(layout) == 40


@pytest.mark.parametrize("how", ["rm", "want", "careless want"])
def test_withdrawn_deletes_end_it_and_nothing_is_lost(layout: Layout, places: list[Place], how: str) -> None:
    loop = braked(layout, places)
    for place in places[:15]:
        if how == "rm":
            os.unlink(layout.delete_marker(place.chunk_id))
        elif how == "want":
            place_want(layout, of_place(place))
        else:
            put_want(Path(layout.root), of_place(place))
    loop.rest()
    assert (here(layout), loop.brake) == (40, None)
    assert loop.kinds == ["braked", "released"]
    assert entries(Path(layout.delete)) == entries(Path(layout.want)) == []


def test_a_restart_goes_on_from_the_brake_though_little_is_left(layout: Layout, places: list[Place]) -> None:
    loop = braked_in_drops(layout, places)
    since = loop.brake and loop.brake["since"]
    again = Loop(layout)
    again.now = loop.now + 10 * WINDOW_S
    again.rest()
    assert here(layout) == 30
    assert again.brake is not None
    assert (again.brake["since"], again.brake["let_go"], again.brake["held_back"]) == (since, 10, 2)
    assert again.kinds == ["braked"]  # who reads what this process tells has not read it before
    Path(layout.release).touch()
    again.rest()
    assert (here(layout), again.brake) == (28, None)


def test_a_burst_that_came_without_a_reconciler_is_held_back(layout: Layout, places: list[Place]) -> None:
    delete(layout, places[:15])
    loop = Loop(layout)
    loop.rest()
    assert (here(layout), loop.kinds) == (40, ["braked"])


@pytest.mark.parametrize("text", [b"", b"[]", b'{"since": "x"}', b'{"since": 1, "let_go": null}', b"\xff"])
def test_a_brake_file_without_sense_is_replaced_or_removed(layout: Layout, places: list[Place], text: bytes) -> None:
    Path(layout.brake).write_bytes(text)
    loop = Loop(layout)
    loop.rest()
    assert loop.brake is None
    Path(layout.brake).write_bytes(text)
    delete(layout, places[:15])
    loop = Loop(layout)
    loop.rest()
    assert loop.brake is not None
    assert (here(layout), loop.brake["held_back"]) == (40, 15)


@pytest.mark.parametrize(("size", "since"), [(1 << 16, 7.0), ((1 << 16) + 1, None)])
def test_brake_file_of_more_than_64_kib_says_nothing(layout: Layout, size: int, since: float | None) -> None:
    Path(layout.brake).write_bytes(b'{"since": 7, "let_go": 3}'.rjust(size))
    brake = read_brake(layout, 0.25)
    assert (brake.since, brake.passed_before) == (since, 3 if since else 0)


def test_a_brake_file_goes_where_the_next_reconciler_has_no_brake(layout: Layout, places: list[Place]) -> None:
    delete(layout, places[:15])
    Loop(layout).rest()
    loop = Loop(layout, UNBRAKED)
    loop.rest()
    assert (here(layout), loop.brake) == (25, None)


def test_few_large_chunks_are_held_back_and_the_file_has_their_bytes(
    layout: Layout, places: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delete_brake, "MANY_CHUNKS", 100)
    monkeypatch.setattr(delete_brake, "MANY_BYTES", 1500)  # each has a hundred
    loop = Loop(layout)
    delete(layout, places[:10])
    loop.rest()
    assert (here(layout), loop.brake) == (30, None)
    delete(layout, places[10:14])
    loop.rest()
    assert here(layout) == 26
    delete(layout, places[14:18])
    loop.rest()
    assert (here(layout), loop.kinds) == (26, ["braked"])
    said = loop.brake
    assert said is not None
    assert (said["held_back"], said["held_back_bytes"], said["let_go_bytes"], said["of"]) == (4, 400, 1400, 40)
    again = Loop(layout)
    again.now = loop.now
    again.rest()
    assert (here(layout), again.kinds) == (26, ["braked"])
    Path(layout.release).touch()
    again.rest()
    assert (here(layout), again.brake) == (22, None)


def test_deletes_that_are_meant_are_never_held_back_however_many(layout: Layout, places: list[Place]) -> None:
    loop = Loop(layout)

    def ids() -> Any:  # after each marker the reconciler makes a pass
        for place in places[:30]:
            loop.rest()
            yield place.chunk_id

    place_deletes(layout, ids(), meant=True)
    loop.rest()
    assert here(layout) == 10
    assert loop.kinds == []


def test_a_run_that_is_to_end_ends_braked_and_says_so(layout: Layout, many: list[Place]) -> None:
    delete(layout, many[:150])
    done = fsdm("run", "-d", layout.root, "--once")
    assert done.returncode == 4
    assert done.stderr.count("its delete is held back: 150 of 400 chunks") == 150
    assert fsdm("run", "-d", layout.root, "--once", "--brake", "off").returncode == 0
    assert here(layout) == 250


def test_a_real_burst_of_touch_is_held_back_until_fsdm_release(layout: Layout, many: list[Place]) -> None:
    data_dir, ids = Path(layout.root), [place.chunk_id for place in many[:300]]
    with reconciling(data_dir):
        os.spawnvp(os.P_WAIT, "touch", ["touch", *(layout.delete_marker(one) for one in ids)])
        said = eventually(lambda: brake_of(data_dir))
        assert said["held_back"] >= 1
        assert here(layout) >= 300
        shown = fsdm("status", "-d", data_dir)
        assert "BRAKED: deletes are held back" in shown.stderr
        # what was on its way out is counted as well
        eventually(lambda: fsdm_json("status", "-d", data_dir)["braked"]["of"] == 400)
        assert fsdm("release", "-d", data_dir).returncode == 0
        eventually(lambda: here(layout) == 100, "the deletes are carried out")
        eventually(lambda: brake_of(data_dir) is None)
    assert "braked" not in fsdm("status", "-d", data_dir).stderr.lower()


def test_the_command_that_asks_is_asked_once_and_the_reconciler_asks_no_more(layout: Layout, many: list[Place]) -> None:
    ids = [place.chunk_id for place in many[:150]]
    with running("run", "-d", layout.root, "--json") as process:
        assert fsdm("delete", "-d", layout.root, *ids).returncode == 8
        assert fsdm("delete", "-d", layout.root, *ids, "--yes").returncode == 0
        eventually(lambda: here(layout) == 250)
        process.terminate()
        assert process.stdout is not None
        kinds = [json.loads(line)["kind"] for line in process.stdout]
    assert "braked" not in kinds


def test_a_delete_that_is_meant_releases_no_other_held_back(layout: Layout, many: list[Place]) -> None:
    data_dir = Path(layout.root)
    with reconciling(data_dir):
        os.spawnvp(os.P_WAIT, "touch", ["touch", *(layout.delete_marker(one.chunk_id) for one in many[:300])])
        eventually(lambda: brake_of(data_dir))
        done = fsdm("delete", "-d", data_dir, many[300].chunk_id, "--yes")
        assert (done.returncode, "holds deletes back" in done.stderr) == (0, True)
        assert not os.path.exists(layout.release)


def test_held_chunks_that_are_deleted_count_once(layout: Layout, many: list[Place]) -> None:
    data_dir = Path(layout.root)
    with shell_holding(Path(layout.path(many[0]))), DataManager(data_dir, limits=BRAKED) as dm:
        dm.delete_chunk(many[0].chunk_id)
        for place in many[1:100]:
            dm.delete_chunk(place.chunk_id)
        eventually(lambda: here(layout) == 301)
        assert brake_of(data_dir) is None


@pytest.mark.parametrize(
    ("text", "share"), [("0.25", 0.25), ("25%", 0.25), ("0", 0.0), ("1", 1.0), ("100%", 1.0), ("off", None)]
)
def test_a_share_is_a_number_a_percentage_or_off(text: str, share: float | None) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "25", "-1", "1.01", "101%", "nan", "inf", "1e-3", "%", "off%", " 1", "1\n"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no share"):
        parse_share(text)


def test_more_than_the_share_is_too_much_and_the_share_itself_is_not() -> None:
    assert not exceeds(25, 100, 0.25)
    assert exceeds(26, 100, 0.25)
    assert exceeds(1, 100, 0.0)
    assert not exceeds(0, 0, 0.0)
    assert not exceeds(100, 100, 1.0)
    assert not exceeds(100, 100, None)


def test_too_much_is_told_with_how_many_of_how_many_and_what_goes_on() -> None:
    Going(25, 100).check(0.25)
    with pytest.raises(BrakedError, match="26 of the 100 chunks that are here would go, which is more than 25%") as e:
        Going(26, 100).check(0.25)
    assert "--yes" in e.value.hint


@pytest.mark.parametrize(
    ("size", "of", "told"),
    [
        (MANY_BYTES, 4 * MANY_BYTES, ""),
        (MANY_BYTES, 4 * MANY_BYTES - 4, "2 of the 9 chunks that are here would go, with 100.0 GB of 400.0 GB"),
        (MANY_BYTES - 1, MANY_BYTES, ""),
    ],
)
def test_more_than_the_share_of_the_bytes_is_too_much_where_they_are_many(size: int, of: int, told: str) -> None:
    assert Going(2, 9, size, lambda: of).too_much(0.25).startswith(told)
    assert bool(Going(2, 9, size, lambda: of).too_much(0.25)) == bool(told)
    assert Going(2, 9, size, lambda: of).too_much(None) == ""


def of(count: int, first: int = 0) -> list[str]:
    return [f"{number:064x}" for number in range(first, first + count)]


class Life:
    """A brake over so many chunks of one size, whose deletes are seen, judged and carried out."""

    def __init__(self, here: int, share: float | None = 0.25, *, each_bytes: int = 0) -> None:
        self.here = here
        self.each_bytes = each_bytes
        self.brake = Brake(share)
        self.now = 1000.0
        self.counted = 0  # how often all bytes were

    def here_bytes(self) -> int:
        self.counted += 1
        return self.here * self.each_bytes

    def delete(self, ids: list[str], ctime_ns: int = 5) -> list[str]:
        """Show deletes to the brake; return those that pass."""
        for chunk_id in ids:
            size_bytes = 0 if self.brake.knows(chunk_id) else self.each_bytes
            self.brake.see(chunk_id, ctime_ns, is_here=True, size_bytes=size_bytes)
        return self.judge()

    def withdraw(self, ids: list[str]) -> list[str]:
        for chunk_id in ids:
            self.brake.see(chunk_id, None, is_here=True)
        return self.judge()

    def judge(self) -> list[str]:
        return sorted(self.brake.judge(self.here, self.now, self.here_bytes))

    def leave(self, ids: list[str]) -> None:
        for chunk_id in ids:
            assert not self.brake.holds_back(chunk_id)
            self.brake.see(chunk_id, None, is_here=False)
        self.here -= len(ids)
        self.judge()


def large(here: int = 60) -> Life:
    """A life with few chunks that are large: of sixty, fifteen are a quarter."""
    return Life(here, each_bytes=50_000_000_000)


@pytest.mark.parametrize("at_once", [True, False])
def test_few_chunks_that_are_large_are_protected_by_their_bytes(at_once: bool) -> None:
    life = large()
    if at_once:
        assert life.delete(of(16)) == []
        assert large().delete(of(15)) == of(15)
        return
    for number, chunk_id in enumerate(of(30)):
        went = life.delete([chunk_id])
        assert went == ([chunk_id] if number < 15 else [])
        life.leave(went)
    assert (life.here, life.brake.held_back) == (45, 15)
    assert (life.brake.passed_bytes, life.brake.held_back_bytes) == (15 * life.each_bytes, 15 * life.each_bytes)


def test_bytes_are_counted_only_where_many_would_go() -> None:
    life = Life(60, each_bytes=MANY_BYTES // 20)
    assert life.delete(of(19)) == of(19)
    assert life.counted == 0
    assert life.delete(of(1, 19)) == []
    assert life.counted == 1


def test_deletes_that_are_typed_by_hand_are_meant_however_large() -> None:
    life = large(here=12)
    assert life.delete(of(FEW_DELETES - 1)) == of(FEW_DELETES - 1)
    assert life.delete(of(1, FEW_DELETES - 1)) == []


def test_bytes_that_went_longer_ago_than_the_window_count_no_more() -> None:
    for pause_s, lets_go in ((WINDOW_S - 1, False), (WINDOW_S, True)):
        life = large()
        life.leave(life.delete(of(15)))
        life.now += pause_s
        assert bool(life.delete(of(11, 15))) == lets_go


def test_large_chunks_are_released_and_withdrawn_as_others_are() -> None:
    life = large()
    assert life.delete(of(20), ctime_ns=7) == []
    assert life.withdraw(of(5)) == of(15, 5)
    life = large()
    life.delete(of(20), ctime_ns=7)
    assert sorted(life.brake.release(7)) == of(20)
    assert (life.brake.held_back_bytes, life.delete(of(15, 20), ctime_ns=8)) == (0, of(15, 20))
    assert life.brake.passed_bytes == 15 * life.each_bytes  # what was released is not counted


def test_earlier_process_that_was_braked_by_bytes_is_gone_on_from() -> None:
    life = large(here=45)
    life.brake.since, life.brake.passed_before, life.brake.passed_bytes_before = 1.0, 15, 15 * life.each_bytes
    assert life.delete(of(1)) == []
    assert life.withdraw(of(1)) == []
    assert (life.brake.since, life.brake.passed, life.brake.passed_bytes) == (None, 0, 0)


def test_a_burst_that_is_seen_at_once_is_held_back_as_a_whole() -> None:
    life = Life(400)
    assert life.delete(of(101)) == []
    assert life.brake.since == 1000.0
    assert all(map(life.brake.holds_back, of(101)))
    assert Life(400).delete(of(100)) == of(100)


def test_few_chunks_are_no_burst_whatever_their_share() -> None:
    life = Life(99)
    assert life.delete(of(99)) == of(99)
    assert Life(100).delete(of(100)) == []


def test_a_burst_that_comes_one_by_one_is_held_back_from_where_it_is_too_much() -> None:
    life = Life(1000)
    for number, chunk_id in enumerate(of(300)):
        went = life.delete([chunk_id])
        assert went == ([chunk_id] if number < 250 else [])
        if went:
            life.leave(went)
    assert (life.here, life.brake.passed, life.brake.held_back, life.brake.before(life.here)) == (750, 250, 50, 1000)


@pytest.mark.parametrize("set_back_s", [0.0, 86400.0])
def test_what_went_longer_ago_than_the_window_counts_no_more(set_back_s: float) -> None:
    for pause_s, lets_go in ((WINDOW_S - 1, False), (WINDOW_S, True)):
        life = Life(1000)
        life.leave(life.delete(of(100)))
        life.now -= set_back_s
        life.leave(life.delete(of(100, 100)))
        life.now += pause_s
        assert bool(life.delete(of(200, 200))) == lets_go


def test_clock_that_is_set_back_makes_no_delete_later_than_it_went() -> None:
    life = Life(1000)
    life.leave(life.delete(of(100)))
    life.now += 500.0
    life.leave(life.delete(of(100, 100)))
    for now, counted in ((1400.0, 200), (1000.0 + WINDOW_S, 100), (1400.0 + WINDOW_S, 0)):
        life.now = now
        life.delete([])
        assert life.brake.passed == counted


def test_while_it_is_braked_no_time_that_passes_lets_go() -> None:
    life = Life(1000)
    life.leave(life.delete(of(250)))
    assert life.delete(of(50, 250)) == []
    life.now += 10 * WINDOW_S
    assert life.delete(of(1, 300)) == []
    assert life.brake.since == 1000.0


def test_a_release_lets_go_what_is_not_younger_and_that_is_never_counted() -> None:
    life = Life(400)
    life.delete(of(150), ctime_ns=7)
    assert sorted(life.brake.release(7)) == of(150)
    assert life.delete(of(1, 200), ctime_ns=8) == of(1, 200)
    assert life.brake.since is None
    assert life.brake.passed == 1
    assert life.brake.release(7) == set()


def test_a_burst_younger_than_a_release_is_held_back() -> None:
    life = Life(400)
    life.delete(of(50), ctime_ns=7)
    life.delete(of(150, 50), ctime_ns=9)
    assert life.brake.release(8) == set()  # those 50 had passed before
    assert life.brake.judge(life.here, life.now) == set()
    assert life.brake.held_back == 150
    assert life.brake.release(9) == set(of(150, 50))


def test_a_delete_under_a_release_passes_at_once() -> None:
    life = Life(400)
    life.brake.release(9)
    life.delete(of(200), ctime_ns=9)
    assert (life.brake.since, life.brake.passed, any(map(life.brake.holds_back, of(200)))) == (None, 0, False)


def test_released_delete_that_is_placed_again_is_not_held_back() -> None:
    life = Life(400)
    life.delete(of(150), ctime_ns=7)
    life.brake.release(7)
    assert life.delete(of(150), ctime_ns=9) == []
    assert (life.brake.since, any(map(life.brake.holds_back, of(150)))) == (None, False)


def test_withdrawn_deletes_end_it_once_it_is_no_longer_too_much() -> None:
    life = Life(400)
    life.delete(of(110))
    assert life.withdraw(of(9)) == []
    assert life.withdraw(of(1, 9)) == of(100, 10)
    assert life.brake.since is None


def test_a_passed_delete_withdrawn_in_time_counts_no_more() -> None:
    life = Life(400)
    life.delete(of(100))
    life.withdraw(of(100))
    assert life.delete(of(100, 100)) == of(100, 100)


def test_a_delete_that_refs_keep_waiting_is_judged_once() -> None:
    life = Life(400)
    life.delete(of(100))  # held by refs: they stay where they are
    life.now += 2 * WINDOW_S
    assert life.delete([*of(100), *of(50, 100)]) == of(50, 100)
    life.delete(of(60, 150))
    assert life.brake.since is not None
    assert not any(map(life.brake.holds_back, of(150)))


def test_an_earlier_process_that_was_braked_is_gone_on_from() -> None:
    brake = Brake(0.25, since=1.0, passed_before=250)
    for chunk_id in of(20):
        brake.see(chunk_id, 5, is_here=True)
    assert brake.judge(750, 5000.0) == set()
    assert brake.since == 1.0
    for chunk_id in of(20):
        brake.see(chunk_id, None, is_here=True)
    brake.judge(750, 5000.0)
    assert (brake.since, brake.passed) == (None, 0)


def test_without_a_share_nothing_is_held_back_and_nothing_is_remembered() -> None:
    life = Life(400, share=None)
    life.delete(of(400))
    assert not life.brake.holds_back(of(1)[0])
    assert life.brake == Brake(None)


@given(
    st.lists(st.tuples(st.sampled_from(["delete", "withdraw", "wait"]), st.integers(0, 300), st.integers(1, 120))),
    st.sampled_from([0, MANY_BYTES // 100, MANY_BYTES // 11, MANY_BYTES]),
)
def test_within_a_window_never_more_than_the_share_goes_unless_it_is_few(
    steps: list[tuple[str, int, int]], each_bytes: int
) -> None:
    life, went = Life(300, each_bytes=each_bytes), list[tuple[float, str]]()
    present = set(of(300))
    for what, first, count in steps:
        ids = [one for one in of(count, first) if one in present]
        if what == "wait":
            life.now += count
        elif what == "withdraw":
            life.withdraw(ids)
        else:
            before = len(present)
            gone = life.delete(ids)
            life.leave(gone)
            went += [(life.now, one) for one in gone]
            present -= set(gone)
            recent = sum(when > life.now - WINDOW_S for when, _ in went)
            is_few = recent < FEW_DELETES or (recent < MANY_CHUNKS and recent * each_bytes < MANY_BYTES)
            assert is_few or not gone or recent <= 0.25 * (len(present) + recent), (before, recent)
