"""The cost of a step, counted in looks at the disk: it grows with what is pending alone."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import Limits
from fsdm.client import Client
from fsdm.model.layout import Layout
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support.chunks import an_id, put_chunk, touch_delete
from tests.support.loop import Inline, a_fetch

LOOKS = ("lstat", "stat", "access", "open", "listdir", "scandir")
FEW, MANY = 20, 400
SCANS = 10
LISTINGS = 2 * SCANS  # a listing that is too young to be trusted is made once more: a stat and a listdir


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the disk is looked at, by call."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **named: Any) -> Any:
            counts[name] += 1
            return real(*args, **named)

        return call

    for name in LOOKS:
        monkeypatch.setattr(os, name, counted(name))
    return counts


def of_churn(data_dir: Path, here: int, looks: Counter[str]) -> int:
    """The looks that one chunk's coming and another's going cost, and some scans, where so many are here."""
    layout = Layout(data_dir)
    make_layout(layout, FileSystem())
    places = [put_chunk(layout, start=n, end=n + 1) for n in range(here)]
    for place in places:  # long ago: so that the first listing is to be trusted
        os.utime(layout.dataset(place.dataset_id), (0, 0))
    inline = Inline(layout, Limits(), FileSystem())
    inline.passes(5)
    looks.clear()
    a_fetch(layout, 100)
    touch_delete(data_dir, places[0].chunk_id)
    for _ in range(SCANS):
        inline.it.loop.next_scan = 0.0
        inline.it.loop.step()
    assert len(inline.told("available")) == len(inline.told("deleted")) == 1
    return looks.total()


def more(tmp_path: Path, looks: Counter[str]) -> int:
    """How many more looks it costs where many are here than where few are."""
    return of_churn(tmp_path / "many", MANY, looks) - of_churn(tmp_path / "few", FEW, looks)


def test_cost_of_churn_and_scans_does_not_grow_with_the_chunks_here(tmp_path: Path, looks: Counter[str]) -> None:
    assert more(tmp_path, looks) <= LISTINGS


def of_deletes(data_dir: Path, pending: int, looks: Counter[str]) -> int:
    """The looks that so many deletes of what is not here cost, until none is left."""
    layout = Layout(data_dir)
    make_layout(layout, FileSystem())
    inline = Inline(layout, Limits(), FileSystem())
    for _ in range(pending):
        touch_delete(data_dir, an_id())
    looks.clear()
    inline.passes(5)
    assert not os.listdir(layout.delete)
    return looks.total()


def test_cost_of_a_delete_does_not_grow_with_those_pending(tmp_path: Path, looks: Counter[str]) -> None:
    few, many = (of_deletes(tmp_path / str(pending), pending, looks) for pending in (FEW, MANY))
    assert many * FEW <= few * MANY


def of_chunks(tmp_path: Path, here: int) -> Layout:
    """A data directory where so many chunks are available."""
    layout = Layout(tmp_path / str(here))
    make_layout(layout, FileSystem())
    for n in range(here):
        put_chunk(layout, start=n, end=n + 1)
    return layout


def costs(tmp_path: Path, looks: Counter[str], work: Callable[[Client], object]) -> list[Counter[str]]:
    """The looks that some work of a client costs where few are here, and where many are."""
    counts = []
    for here in (FEW, MANY):
        client = Client(of_chunks(tmp_path, here).root)
        looks.clear()
        work(client)
        counts.append(Counter(looks))
    return counts


def test_start_looks_at_no_chunk_by_itself(tmp_path: Path, looks: Counter[str]) -> None:
    few, many = costs(tmp_path, looks, lambda client: Reconciler(client.layout).open())
    assert few == many


def test_list_costs_one_look_for_each_chunk(tmp_path: Path, looks: Counter[str]) -> None:
    listed = []
    few, many = costs(tmp_path, looks, lambda client: listed.append(len(client.list_chunks())))
    assert listed == [FEW, MANY]
    assert many.total() - few.total() == MANY - FEW


def test_step_that_walks_all_is_found(tmp_path: Path, looks: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    refresh = Catalog.refresh

    def walks(self: Catalog) -> set[str]:
        for place in self.all_places():
            os.access(place.name, os.F_OK)
        return refresh(self)

    monkeypatch.setattr(Catalog, "refresh", walks)
    assert more(tmp_path, looks) > LISTINGS
