"""The scrub: whose turn it is, how long until the next one, how fast; and that a restart forgets nothing of that."""

import itertools
import os
from pathlib import Path

import pytest

from fsdm import DataManager, Limits
from fsdm.concurrency.rate_limit import Rate
from fsdm.model.layout import READY, VERIFIED, Layout, Place
from fsdm.store.catalog import Catalog
from fsdm.verify.background import RATE_MAX
from fsdm.verify.scrub import DAY_S, LOOK_AGAIN_S, RATE_MIN, SURVEY_S, Scrub
from tests.support import Source, eventually, expected, fsdm
from tests.support.chunks import bring, chunk_dir, files_of, flip, put_chunk

NOW = 1_000_000_000.0
DAYS = 10.0


class Scrubbed:
    """A scrub in a time of its own; `read` is what it has had checked, and when."""

    def __init__(self, layout: Layout, now: float = NOW) -> None:
        self.now = now
        self.read: list[tuple[float, Place]] = []
        self.rates: list[float] = []
        self.finds_it_right = True
        self._layout = layout
        self.catalog = Catalog(layout, own=True)
        self.catalog.refresh()
        self.scrub = Scrub(layout, self.catalog, days=DAYS, check=self._check, clock=lambda: self.now)

    def _check(self, place: Place, rate: Rate) -> None:
        self.read.append((self.now, place))
        assert rate._bytes_per_s is not None
        self.rates.append(rate._bytes_per_s)
        if self.finds_it_right:
            aged(self._layout, place, self.now, VERIFIED)

    def pass_days(self, days: float) -> None:
        """Let so much time pass, as the scrub asks for it."""
        end = self.now + days * DAY_S
        while True:
            pause = self.scrub.step()
            if self.now + pause > end:
                self.now = end
                return
            self.now += pause


def aged(layout: Layout, place: Place, at: float, name: str = READY) -> None:
    path = f"{layout.path(place)}/{name}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    os.utime(path, (at, at))


def chunks(layout: Layout, count: int, at: float = NOW - 60) -> list[Place]:
    places = [put_chunk(layout, start=start, end=start + 1) for start in range(count)]
    for place in places:
        aged(layout, place, at)
    return places


def test_chunks_that_came_together_are_read_one_after_the_other_evenly_over_the_days(layout: Layout) -> None:
    places = chunks(layout, 10)
    scrubbed = Scrubbed(layout)
    scrubbed.pass_days(DAYS)
    first = [at for at, _ in scrubbed.read[:10]]
    assert sorted(place for _, place in scrubbed.read[:10]) == sorted(places)
    assert {round(later - at) for at, later in itertools.pairwise(first)} == {round(DAYS / 10 * DAY_S)}


def test_each_is_read_about_once_in_so_many_days_for_ever(layout: Layout) -> None:
    places = chunks(layout, 5)
    scrubbed = Scrubbed(layout)
    scrubbed.pass_days(4 * DAYS)
    for place in places:
        times = [at for at, read in scrubbed.read if read == place]
        assert len(times) in {4, 5}
        assert all(later - at <= DAYS * DAY_S + 1 for at, later in itertools.pairwise(times))


def test_the_bytes_that_were_checked_the_longest_ago_come_first(layout: Layout) -> None:
    one, two, three = chunks(layout, 3)
    aged(layout, one, NOW - 100, VERIFIED)  # READY is younger
    aged(layout, two, NOW - 5 * DAY_S)
    aged(layout, three, NOW - 9 * DAY_S)
    aged(layout, three, NOW - 3 * DAY_S, VERIFIED)
    scrubbed = Scrubbed(layout)
    scrubbed.pass_days(DAYS)
    assert [place for _, place in scrubbed.read[:3]] == [two, three, one]


def test_those_that_are_overdue_follow_each_other_at_once(layout: Layout) -> None:
    places = chunks(layout, 4, NOW - 3 * DAYS * DAY_S)
    scrubbed = Scrubbed(layout)
    scrubbed.pass_days(0)
    assert sorted(place for at, place in scrubbed.read if at == NOW) == sorted(places)


def test_a_restart_forgets_nothing(layout: Layout) -> None:
    chunks(layout, 10)
    before = Scrubbed(layout)
    before.pass_days(DAYS / 2)
    again = Scrubbed(layout, before.now)
    assert again.scrub.step() > DAYS / 10 * DAY_S / 2, "not at once: one was read not long ago"
    again.pass_days(DAYS / 2 - 0.01)
    read = [place for _, place in before.read + again.read]
    assert len(read) == len(set(read)) == 10


def test_what_came_since_has_its_turn_and_what_went_has_none(layout: Layout) -> None:
    (old,) = chunks(layout, 1)
    scrubbed = Scrubbed(layout)
    scrubbed.pass_days(1)
    scrubbed.read.clear()
    (new,) = [put_chunk(layout, start=50, end=60)]
    aged(layout, new, scrubbed.now)
    os.unlink(f"{layout.path(old)}/{READY}")
    scrubbed.catalog.refresh()
    scrubbed.now += SURVEY_S
    scrubbed.pass_days(DAYS)
    assert {place for _, place in scrubbed.read} == {new}


def test_one_that_was_verified_meanwhile_waits_its_turn(layout: Layout) -> None:
    one, two = chunks(layout, 2, NOW - 5 * DAY_S)
    aged(layout, two, NOW - 4 * DAY_S)
    scrubbed = Scrubbed(layout)
    scrubbed.scrub._survey()
    aged(layout, one, NOW, VERIFIED)
    scrubbed.scrub._last = 0.0
    while scrubbed.scrub.step() == 0.0:
        continue
    assert [place for _, place in scrubbed.read] == [two]


def test_one_that_cannot_be_read_holds_up_no_other(layout: Layout) -> None:
    chunks(layout, 3, NOW - 3 * DAYS * DAY_S)
    scrubbed = Scrubbed(layout)
    scrubbed.finds_it_right = False
    for _ in range(3):
        assert scrubbed.scrub.step() == 0.0
    assert len({place for _, place in scrubbed.read}) == 3


def test_where_nothing_is_it_looks_again_now_and_then(layout: Layout) -> None:
    assert Scrubbed(layout).scrub.step() == LOOK_AGAIN_S


def test_a_clock_that_is_set_back_makes_it_neither_rush_nor_stop(layout: Layout) -> None:
    chunks(layout, 10, NOW + 100 * DAY_S)
    scrubbed = Scrubbed(layout)
    scrubbed.pass_days(DAYS)
    assert 9 <= len(scrubbed.read) <= 11


@pytest.mark.parametrize(("size", "rate"), [(10, RATE_MIN), (10**13, 2 * 10**13 / (DAYS * DAY_S)), (10**15, RATE_MAX)])
def test_each_is_read_slowly_but_in_its_turn(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, size: int, rate: float
) -> None:
    monkeypatch.setattr("fsdm.verify.scrub.bytes_in", lambda path: (size, size))
    chunks(layout, 1, 0.0)
    scrubbed = Scrubbed(layout)
    scrubbed.scrub.step()
    assert scrubbed.rates == [rate]


def test_the_scrub_finds_a_flipped_bit_and_it_is_fetched_again(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=2)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    path = chunk_dir(data_dir, chunk)
    flip(str(path / "data" / "logs.parquet"))
    os.utime(path / READY, (0, 0))
    with DataManager(data_dir, limits=Limits(scrub_days=30)) as dm:
        eventually(lambda: source.asked[f"/{chunk.id}/logs.parquet"] == 2)
        eventually(lambda: dm.list_chunks() == [chunk.id] and not os.listdir(data_dir / "want"))
        assert files_of(path / "data") == expected(chunk, source)


def test_a_scrub_in_the_middle_of_a_large_chunk_ends_with_its_reconciler(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1, size=8_000_000)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    os.utime(chunk_dir(data_dir, chunk) / READY, (0, 0))
    dm = DataManager(data_dir, limits=Limits(scrub_days=30))
    assert dm.reconciler is not None
    scrub = dm.reconciler.scrub
    assert scrub is not None
    eventually(lambda: not scrub._turns and scrub._surveyed)
    dm.close()
    assert not scrub._thread.is_alive()
    assert not (chunk_dir(data_dir, chunk) / VERIFIED).exists(), "8 MB at 4 MB/s were not read yet"


def test_fsdm_run_takes_the_days_and_no_number_below(data_dir: Path) -> None:
    assert fsdm("run", "-d", data_dir, "--once", "--scrub-days", "30").returncode == 0
    for days in ("0", "-1", "nan", "often"):
        assert fsdm("run", "-d", data_dir, "--once", "--scrub-days", days).returncode == 2
