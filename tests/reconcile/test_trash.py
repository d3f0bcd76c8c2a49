"""What is out of sight is erased, and what cannot be stays without holding up the rest."""

import os
from collections.abc import Callable
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
    trash.empty([])
    assert os.listdir(layout.trash) == []
    assert (seen, freed) == ([100] * 3, [0] * 3)


def test_what_cannot_be_erased_stays_counts_and_is_logged(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(path: str) -> None:
        if path.endswith("/bad"):
            raise OSError(5, "Input/output error", path)

    for name in ("bad", "good"):
        put(layout, name, 100)
    trash, space, _ = a_trash(layout, Recorder(erase=refuse))
    trash.empty([])
    assert os.listdir(layout.trash) == ["bad"]
    assert (space.taken_bytes, space.is_emptying) == (100, False)
    assert "cannot erase" in caplog.text


def test_what_was_evicted_is_erased_after_one_fsync_of_each_directory_for_all_of_it(layout: Layout) -> None:
    steps: list[tuple[str, str]] = []
    fs = Recorder(
        fsync_dir=lambda path: steps.append(("fsync", path)), erase=lambda path: steps.append(("erase", path))
    )
    trash, _, _ = a_trash(layout, fs)
    later: list[Callable[[], None]] = []
    trash.workers.submit = later.append  # type: ignore[method-assign]
    one, two = layout.dataset("1" * 64), layout.dataset("2" * 64)
    os.mkdir(one)
    for name, parent in (("a", one), ("b", two), ("c", one)):
        put(layout, name, 100)
        trash.erase(f"{layout.trash}/{name}", parent)
    trash.erase_left()
    for work in later:
        work()
    assert steps == [
        *(("fsync", path) for path in (one, two, layout.chunks, layout.trash)),  # two was empty, and is gone
        *(("erase", f"{layout.trash}/{name}") for name in "abc"),
    ]


def test_nothing_is_erased_whose_rename_may_not_be_durable(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(path: str) -> None:
        raise OSError(5, "Input/output error", path)

    put(layout, "a", 100)
    trash, space, _ = a_trash(layout, Recorder(fsync_dir=refuse))
    trash.erase(f"{layout.trash}/a", layout.chunks)
    trash.erase_left()
    assert os.listdir(layout.trash) == ["a"]
    assert (space.taken_bytes, space.is_emptying) == (100, False)
    assert "cannot be erased yet" in caplog.text


def test_what_a_killed_process_has_left_becomes_durable_before_it_is_erased(layout: Layout) -> None:
    put(layout, "a", 100)
    fs = Recorder()
    trash, _, _ = a_trash(layout, fs)
    trash.empty([layout.partial])
    assert [step for step, _ in fs.steps] == ["fsync_dir", "fsync_dir", "erase"]
