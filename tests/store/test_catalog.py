"""The catalog: when a listing is trusted or taken again, and changes while it is taken."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import Layout, Place
from fsdm.model.state import COARSE_NS, RACY_NS
from fsdm.store import catalog as catalog_module
from fsdm.store.block_index import BlockIndex
from fsdm.store.catalog import Catalog
from tests.support.chunks import an_id
from tests.support.servers import InThread
from tests.support.waiting import PATIENCE_S

DATASET = "d" * 64
LONG_AGO_NS = 10**18


def make(layout: Layout, start: int = 0, end: int = 10, *, dataset: str = DATASET, chunk_id: str = "") -> Place:
    """A chunk's directory: the catalog knows names only."""
    place = Place.of(dataset, range(start, end), chunk_id or an_id())
    os.makedirs(layout.path(place))
    return place


def settle(layout: Layout, mtime_ns: int = LONG_AGO_NS, dataset: str = DATASET) -> None:
    """Set the time of the last change of a dataset."""
    os.utime(layout.dataset(dataset), ns=(mtime_ns, mtime_ns))


@dataclass
class Listings:
    """Counts the listings of datasets, and calls `during` between a listing and its return."""

    count: int = 0
    during: Callable[[], object] = lambda: None


@pytest.fixture
def listings(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Listings:
    listings, entries = Listings(), catalog_module._entries

    def listed(path: str) -> dict[str, bool]:
        names = entries(path)
        if os.path.dirname(path) == layout.chunks:
            listings.count += 1
            during, listings.during = listings.during, lambda: None
            during()
        return names

    monkeypatch.setattr(catalog_module, "_entries", listed)
    return listings


def agrees(catalog: Catalog, *places: Place) -> bool:
    """Return whether the catalog knows these places alone, by dataset and by id alike."""
    known = catalog.all_places()
    by_id = {place for places in catalog._ids().values() for place in places}
    return set(known) == by_id == set(places) and len(known) == len(places)


def test_a_chunk_is_found_by_block_and_by_id(layout: Layout) -> None:
    low, high = make(layout, 0, 35), make(layout, 35, 70)
    catalog = Catalog(layout)
    assert catalog.find(DATASET, 34) == low
    assert catalog.find(DATASET, 35) == high
    assert catalog.find(DATASET, 70) is None
    assert catalog.find("e" * 64, 0) is None
    assert catalog.places(high.chunk_id) == (high,)
    assert catalog.places(an_id()) == ()


def test_one_id_may_stand_in_several_places(layout: Layout) -> None:
    chunk_id = an_id()
    places = [make(layout, dataset=dataset, chunk_id=chunk_id) for dataset in ("a" * 64, DATASET)]
    catalog = Catalog(layout)
    assert catalog.refresh() == {chunk_id}
    assert catalog.places(chunk_id) == tuple(places)
    shutil.rmtree(layout.path(places[0]))
    assert catalog.refresh() == {chunk_id}
    assert catalog.places(chunk_id) == (places[1],)


def test_a_listing_is_by_dataset_and_block(layout: Layout) -> None:
    last = make(layout, 5, 6, dataset="e" * 64)
    second, first = make(layout, 20, 30), make(layout, 3, 30)
    assert Catalog(layout).listing() == [first, second, last]


def test_strange_names_are_told_and_are_no_chunks(layout: Layout) -> None:
    good = make(layout, 0, 10)
    empty_range = Place.of(DATASET, range(10), an_id())._replace(name=f"{10:020d}-{10:020d}-{an_id()}")
    os.mkdir(layout.path(empty_range))
    for path in (f"{layout.chunks}/tmp", f"{layout.dataset(DATASET)}/READY", f"{layout.dataset(DATASET)}/\udcff"):
        Path(path).touch()
    catalog = Catalog(layout)
    assert catalog.refresh() == {good.chunk_id}
    assert agrees(catalog, good)
    assert {os.path.basename(path) for path in catalog.strange()} == {"tmp", "READY", "\udcff", empty_range.name}
    os.unlink(f"{layout.chunks}/tmp")
    catalog.refresh()
    assert f"{layout.chunks}/tmp" not in catalog.strange()


def test_without_any_chunks_there_is_nothing(layout: Layout) -> None:
    catalog = Catalog(layout)
    assert catalog.refresh() == set()
    os.rmdir(layout.chunks)
    assert catalog.refresh() == set()
    assert catalog.listing() == []


def test_unlistable_chunks_are_an_error_for_clients_and_reconciler(layout: Layout) -> None:
    os.rmdir(layout.chunks)
    Path(layout.chunks).touch()
    with pytest.raises(DataDirectoryError, match="chunks cannot be read: Not a directory"):
        Catalog(layout).listing()
    with pytest.raises(NotADirectoryError):
        Catalog(layout, own=True).refresh()


def test_a_file_in_the_place_of_a_dataset_holds_no_chunks(layout: Layout) -> None:
    place = make(layout, dataset="e" * 64)
    Path(layout.dataset(DATASET)).touch()
    catalog = Catalog(layout)
    assert catalog.listing() == [place]
    assert catalog.find(DATASET, 0) is None


def test_a_symlink_in_the_place_of_a_dataset_is_strange_and_not_looked_into(layout: Layout, tmp_path: Path) -> None:
    place = make(layout)
    outside = tmp_path / "outside"
    os.rename(layout.dataset(DATASET), outside)
    catalog = Catalog(layout)
    os.symlink(outside, layout.dataset(DATASET))
    assert catalog.refresh() == set()
    assert (catalog.find(DATASET, 0), catalog.listing(), catalog.places(place.chunk_id)) == (None, [], ())
    assert catalog.strange() == [layout.dataset(DATASET)]
    os.unlink(layout.dataset(DATASET))
    os.rename(outside, layout.dataset(DATASET))
    assert catalog.refresh() == {place.chunk_id}
    assert catalog.strange() == []
    os.rename(layout.dataset(DATASET), outside)
    os.symlink(outside, layout.dataset(DATASET))
    assert catalog.refresh() == {place.chunk_id}, "also one that was known before"
    assert (catalog.find(DATASET, 0), catalog.listing()) == (None, [])


@pytest.mark.parametrize("own", [False, True])
def test_what_is_no_directory_under_a_chunks_name_is_stray_and_not_listed(layout: Layout, own: bool) -> None:
    place, link, file = make(layout), make(layout, 20, 30), make(layout, 30, 40)
    outside = f"{layout.root}/outside"
    os.rename(layout.path(link), outside)
    os.symlink(outside, layout.path(link))
    os.rmdir(layout.path(file))
    Path(layout.path(file)).touch()
    catalog = Catalog(layout, own=own)
    catalog.refresh()
    assert catalog.listing() == [place]
    assert [catalog.is_stray(one) for one in (place, link, file)] == [False, True, True]
    assert catalog.places(link.chunk_id) == (link,), "it is there, and is to be cleared away"
    os.unlink(layout.path(link))
    os.rename(outside, layout.path(link))
    (catalog.add(link) if own else catalog.refresh())
    assert catalog.listing() == [place, link]


def test_a_listing_is_kept_until_the_directorys_mtime_changes(layout: Layout, listings: Listings) -> None:
    place = make(layout)
    settle(layout)
    catalog = Catalog(layout)
    for _ in range(3):
        assert catalog.find(DATASET, 0) == place
    assert listings.count == 1
    later = make(layout, 50, 60)
    assert catalog.find(DATASET, 50) == later
    assert listings.count == 2


def test_any_other_mtime_is_a_change_also_an_older_one(layout: Layout, listings: Listings) -> None:
    make(layout)
    settle(layout)
    catalog = Catalog(layout)
    catalog.refresh()
    settle(layout, LONG_AGO_NS - 1)
    catalog.refresh()
    assert listings.count == 2


def test_a_listing_as_young_as_its_directory_is_not_trusted_twice(layout: Layout, listings: Listings) -> None:
    make(layout)
    catalog = Catalog(layout)
    now_ns = time.time_ns()
    settle(layout, now_ns)
    catalog.refresh()
    later = make(layout, 50, 60)
    settle(layout, now_ns)  # as if both had happened within one tick of the clock
    assert catalog.find(DATASET, 50) == later


@pytest.mark.parametrize(
    ("mtime_ns", "granule_ns"), [(LONG_AGO_NS + 1, RACY_NS), (LONG_AGO_NS, COARSE_NS), (LONG_AGO_NS + 10**7, COARSE_NS)]
)
def test_listing_is_racy_for_as_long_as_its_mtime_may_repeat(
    layout: Layout, listings: Listings, monkeypatch: pytest.MonkeyPatch, mtime_ns: int, granule_ns: int
) -> None:
    make(layout)
    settle(layout, mtime_ns)
    for age_ns, listed in ((granule_ns, 2), (granule_ns + 1, 1), (-granule_ns, 2)):
        monkeypatch.setattr(time, "time_ns", lambda age_ns=age_ns: mtime_ns + age_ns)
        listings.count = 0
        catalog = Catalog(layout)
        catalog.refresh()
        catalog.refresh()
        assert listings.count == listed


def test_a_change_during_the_listing_is_found_by_the_next(layout: Layout, listings: Listings) -> None:
    first = make(layout)
    settle(layout)
    late: list[Place] = []
    listings.during = lambda: late.append(make(layout, 50, 60))
    catalog = Catalog(layout)
    assert catalog.listing() == [first]
    assert catalog.listing() == [first, *late]


def test_a_refresh_tells_what_came_and_what_went(layout: Layout) -> None:
    stays, goes = make(layout, 0, 10), make(layout, 10, 20)
    catalog = Catalog(layout)
    assert catalog.refresh() == {stays.chunk_id, goes.chunk_id}
    comes = make(layout, 20, 30)
    os.rmdir(layout.path(goes))
    assert catalog.refresh() == {comes.chunk_id, goes.chunk_id}
    assert catalog.refresh() == set()
    assert agrees(catalog, stays, comes)


def test_a_dataset_that_is_removed_takes_its_chunks_along_and_may_come_back(layout: Layout) -> None:
    place, other = make(layout), make(layout, dataset="e" * 64)
    catalog = Catalog(layout)
    catalog.refresh()
    shutil.rmtree(layout.dataset(DATASET))
    assert catalog.find(DATASET, 0) is None
    assert agrees(catalog, other)
    os.makedirs(layout.path(place))
    assert catalog.refresh() == {place.chunk_id}
    shutil.rmtree(layout.dataset(DATASET))
    assert catalog.refresh() == {place.chunk_id}
    assert agrees(catalog, other)


def test_the_reconcilers_catalog_answers_without_looking_at_the_disk(layout: Layout, listings: Listings) -> None:
    catalog = Catalog(layout, own=True)
    place = make(layout)
    assert catalog.find(DATASET, 0) is None
    catalog.add(place)
    assert catalog.find(DATASET, 0) == place
    assert catalog.candidates(DATASET, 0) == [place]
    assert catalog.listing() == [place]
    catalog.discard(place)
    assert catalog.find(DATASET, 0) is None
    assert agrees(catalog)
    assert listings.count == 0


def test_adding_and_discarding_twice_is_the_same_as_once(layout: Layout) -> None:
    catalog = Catalog(layout, own=True)
    place = Place.of(DATASET, range(10), an_id())
    catalog.discard(place)
    for _ in range(2):
        catalog.add(place)
        assert agrees(catalog, place)
    for _ in range(2):
        catalog.discard(place)
        assert agrees(catalog)


@pytest.mark.parametrize("known", [True, False], ids=["of a dataset that is known", "of a new dataset"])
def test_chunk_added_during_a_listing_without_it_stays(layout: Layout, listings: Listings, known: bool) -> None:
    first, late = make(layout), Place.of(DATASET, range(50, 60), an_id())
    catalog = Catalog(layout, own=True)
    if known:
        catalog.refresh()
    listings.during = lambda: (os.mkdir(layout.path(late)), catalog.add(late))
    assert late.chunk_id not in catalog.refresh()
    assert agrees(catalog, first, late)
    catalog.refresh()
    assert agrees(catalog, first, late)


def test_chunk_discarded_during_a_listing_stays_away(layout: Layout, listings: Listings) -> None:
    stays, goes = make(layout, 0, 10), make(layout, 10, 20)
    catalog = Catalog(layout, own=True)
    catalog.refresh()
    listings.during = lambda: (os.rmdir(layout.path(goes)), catalog.discard(goes))
    assert catalog.refresh() == set()
    assert agrees(catalog, stays)
    catalog.refresh()
    assert agrees(catalog, stays)


def test_what_was_told_once_does_not_hide_a_later_change(layout: Layout) -> None:
    catalog = Catalog(layout, own=True)
    place = make(layout)
    catalog.add(place)
    catalog.refresh()
    os.rmdir(layout.path(place))
    assert catalog.refresh() == {place.chunk_id}
    assert agrees(catalog)


def test_two_threads_that_find_at_once_list_once(layout: Layout, listings: Listings) -> None:
    place = make(layout)
    settle(layout)
    catalog, first, seconds, arrived = Catalog(layout), threading.current_thread(), list[InThread](), threading.Event()

    class Listing:
        """The lock, and word of the second thread that asks for it."""

        lock = catalog._listing

        def __enter__(self) -> None:
            if threading.current_thread() is not first:
                arrived.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    def start_second() -> None:
        seconds.append(InThread(lambda: catalog.find(DATASET, 0)))
        assert arrived.wait(PATIENCE_S)

    catalog._listing = Listing()  # type: ignore[assignment]
    listings.during = start_second
    assert catalog.find(DATASET, 0) == place
    assert seconds[0].join() == place
    assert listings.count == 1


def test_find_waits_for_no_listing_of_another_dataset(layout: Layout, listings: Listings) -> None:
    place = make(layout)
    settle(layout)
    catalog, found = Catalog(layout), []
    catalog.refresh()
    make(layout, dataset="e" * 64)
    listings.during = lambda: found.append(InThread(lambda: catalog.find(DATASET, 0)).join())
    catalog.refresh()
    assert found == [place]


def test_threads_that_find_while_chunks_come_and_go_see_none_that_never_were(layout: Layout) -> None:
    steady = make(layout, 1000, 2000)
    settle(layout)
    catalog, done, wrong = Catalog(layout), threading.Event(), []

    def find() -> None:
        while not done.is_set():
            if catalog.find(DATASET, 1500) != steady or not set(catalog.listing()) >= {steady}:
                wrong.append("the steady one was missing")

    readers = [InThread(find) for _ in range(2)]
    for start in range(60):
        place = make(layout, start, start + 1)
        os.rmdir(layout.path(place))
    done.set()
    assert [reader.join() for reader in readers] == [None, None]
    assert not wrong
    assert catalog.listing() == [steady]
    assert agrees(catalog, steady)


def test_dataset_that_cannot_be_listed_holds_up_no_other(layout: Layout) -> None:
    place = make(layout)
    os.symlink("e" * 64, layout.dataset("e" * 64))
    assert Catalog(layout).refresh() == {place.chunk_id}


def test_dataset_removed_right_after_an_add_leaves_nothing(layout: Layout) -> None:
    catalog, place = Catalog(layout, own=True), make(layout)
    catalog.add(place)
    shutil.rmtree(layout.dataset(place.dataset_id))
    catalog.refresh()
    assert catalog.places(place.chunk_id) == ()


@pytest.mark.parametrize("own", [False, True])
def test_a_listing_is_compared_and_only_what_changed_is_parsed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    places = [make(layout, start, start + 1) for start in range(300)]
    parsed: list[str] = []
    chunk_dirs = catalog_module.chunk_dirs

    def counted(names: Iterable[str]) -> list[str]:
        listed = list(names)
        parsed.extend(listed)
        return chunk_dirs(listed)

    monkeypatch.setattr(catalog_module, "chunk_dirs", counted)
    catalog = Catalog(layout, own=own)
    catalog.refresh()
    assert sorted(parsed) == [place.name for place in places]
    parsed.clear()
    come = make(layout, 300, 301)
    os.rmdir(layout.path(places[0]))
    assert catalog.refresh() == {come.chunk_id, places[0].chunk_id}
    assert sorted(parsed) == [places[0].name, come.name]
    assert catalog.find(DATASET, 300) == come
    assert catalog.find(DATASET, 0) is None


@pytest.mark.parametrize("asked", [0, catalog_module.SEARCHES, catalog_module.SEARCHES + 1])
def test_ids_are_found_by_search_and_by_table_alike_whatever_changes(layout: Layout, asked: int) -> None:
    catalog, chunk_id = Catalog(layout), an_id()
    one, two = make(layout, 0, 5, chunk_id=chunk_id), make(layout, 3, 9)
    catalog.refresh()
    for _ in range(asked):
        assert catalog.places(an_id()) == ()
    assert (catalog.places(chunk_id), catalog.places(two.chunk_id)) == ((one,), (two,))
    other = make(layout, 0, 5, dataset="a" * 64, chunk_id=chunk_id)
    os.rmdir(layout.path(two))
    catalog.refresh()
    assert (catalog.places(chunk_id), catalog.places(two.chunk_id)) == ((other, one), ())
    assert len(catalog) == 1
    assert agrees(catalog, one, other)


def test_index_changes_under_the_mutex_alone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, changes = Catalog(layout, own=True), []
    for name in ("add", "discard"):
        change = getattr(BlockIndex, name)

        def see(index: BlockIndex, place: Place, name: str = name, change: Any = change) -> None:
            changes.append((name, catalog._mutex.locked()))
            change(index, place)

        monkeypatch.setattr(BlockIndex, name, see)
    place = make(layout)
    catalog.add(place)
    catalog.discard(place)
    catalog.add(place)
    shutil.rmtree(layout.dataset(place.dataset_id))
    catalog.refresh()
    assert set(changes) == {("add", True), ("discard", True)}
