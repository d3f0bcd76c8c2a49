"""What is out of sight is erased, and what cannot be stays without holding up the rest."""

import os
from pathlib import Path

import pytest

from fsdm.model.layout import Layout
from fsdm.model.limits import Limits
from fsdm.reconcile.space_budget import SpaceBudget
from fsdm.reconcile.trash import Trash
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from tests.support.filesystems import Recorder
from tools.support.workers import InlineWorkers


def a_trash(layout: Layout, fs: FileSystem) -> tuple[Trash, SpaceBudget, list[int]]:
    freed: list[int] = []
    space = SpaceBudget(layout, Catalog(layout, own=True), Limits(max_bytes=1000))
    trash = Trash(
        layout.trash, fs=fs, workers=InlineWorkers(), space=space, freed=lambda: freed.append(space.taken_bytes)
    )
    return trash, space, freed


def put(layout: Layout, name: str, size: int) -> None:
    data = Path(layout.trash, name, "data")
    data.mkdir(parents=True)
    (data / "file").write_bytes(bytes(size))


def test_all_that_is_there_is_erased_and_takes_up_room_until_then(layout: Layout) -> None:
    for name in "abc":
        put(layout, name, 100)
    seen: list[int] = []
    trash, space, freed = a_trash(layout, Recorder(erase=lambda _: seen.append(space.taken_bytes)))
    trash.empty()
    assert os.listdir(layout.trash) == []
    assert (seen, freed) == ([100] * 3, [0] * 3)


def test_what_cannot_be_erased_stays_counts_and_is_logged(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(path: str) -> None:
        if path.endswith("/bad"):
            raise OSError(5, "Input/output error", path)

    for name in ("bad", "good"):
        put(layout, name, 100)
    trash, space, _ = a_trash(layout, Recorder(erase=refuse))
    trash.empty()
    assert os.listdir(layout.trash) == ["bad"]
    assert (space.taken_bytes, space.is_emptying) == (100, False)
    assert "cannot erase" in caplog.text
