"""A data directory that goes from under its reconciler: the process ends with 6, and makes and fills nothing anew."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm import DataDirectoryError, DataManager, NoDataDirectoryError
from fsdm.model.layout import Layout
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support import PATIENCE_S, Source, eventually, fsdm, reconciling
from tests.support.chunks import put_want


def rename(data_dir: Path) -> None:
    data_dir.rename(data_dir.with_name("moved"))


def remove(data_dir: Path) -> None:
    """Remove all of it, also what is made meanwhile."""
    eventually(lambda: [shutil.rmtree(data_dir, ignore_errors=True)] and not data_dir.exists())


def replace(data_dir: Path) -> None:
    rename(data_dir)
    make_layout(Layout(data_dir), FileSystem())


def replace_by_file(data_dir: Path) -> None:
    rename(data_dir)
    data_dir.touch()


def remove_format(data_dir: Path) -> None:
    (data_dir / "fsdm.json").unlink()


def unmount(data_dir: Path) -> None:
    subprocess.run(["umount", "--lazy", data_dir], check=True)


WAYS = [rename, replace, replace_by_file, remove, remove_format]


def tree(data_dir: Path) -> list[str]:
    """The directories of the layout, and what stands in each."""
    return sorted(str(path) for depth in ("*", "*/*") for path in data_dir.glob(depth))


def ends_and_leaves_all_as_it_is(data_dir: Path, source: Source, go: Callable[[Path], object], *options: str) -> None:
    chunk = source.chunk()
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=100)
    make_layout(Layout(data_dir), FileSystem())
    put_want(data_dir, chunk)
    with reconciling(data_dir, *options) as process, DataManager(data_dir) as standby:
        assert fault.stalled.wait(PATIENCE_S)
        go(data_dir)
        before = tree(data_dir)
        _, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 6, told
        assert f"fsdm: {data_dir} is no longer the data directory that this process began with: " in told
        assert isinstance(eventually(lambda: standby.error), NoDataDirectoryError)
    assert tree(data_dir) == before


@pytest.mark.parametrize("go", WAYS)
@pytest.mark.parametrize("options", [[], ["--once"]], ids=["run", "once"])
def test_reconciler_whose_root_goes_ends_with_6_and_makes_nothing(
    data_dir: Path, source: Source, go: Callable[[Path], object], options: list[str]
) -> None:
    ends_and_leaves_all_as_it_is(data_dir, source, go, *options)


def test_reconciler_whose_root_is_unmounted_ends_with_6_and_makes_nothing(small_disk: Path, source: Source) -> None:
    ends_and_leaves_all_as_it_is(small_disk, source, unmount)


def test_mount_over_the_root_ends_its_reconciler(data_dir: Path, source: Source, small_disk: Path) -> None:
    def mount(data_dir: Path) -> None:
        subprocess.run(["mount", "--bind", small_disk, data_dir], check=True)

    try:
        ends_and_leaves_all_as_it_is(data_dir, source, mount)
    finally:
        unmount(data_dir)


@pytest.mark.parametrize("go", WAYS)
def test_manager_whose_root_goes_lets_lock_go_and_says_why(data_dir: Path, go: Callable[[Path], object]) -> None:
    with DataManager(data_dir) as dm:
        go(data_dir)
        before = tree(data_dir)
        eventually(lambda: dm.error)
        assert isinstance(dm.error, NoDataDirectoryError)
        eventually(lambda: not dm.reconciling)
        assert tree(data_dir) == before
    if go is replace:
        with DataManager(data_dir) as another:
            assert another.reconciling


@pytest.mark.parametrize("go", [rename, remove, replace_by_file])
def test_clients_of_a_root_that_has_gone_fail_clearly_and_make_nothing(
    data_dir: Path, layout: Layout, source: Source, go: Callable[[Path], object]
) -> None:
    chunk = source.chunk()
    with DataManager(data_dir, reconcile=False) as client:
        go(data_dir)
        before = tree(data_dir)
        asks = (
            lambda: client.download_chunk(chunk),
            lambda: client.delete_chunk(chunk.id),
            lambda: client.wait(chunk.id),
        )
        for ask in (*asks, lambda: client.wait(chunk.id), client.list_chunks, client.status):
            with pytest.raises(DataDirectoryError, match=r"is not a data directory|does not exist|Not a directory"):
                ask()
        done = fsdm("want", "-d", data_dir, "-", stdin=chunk.to_json())
        assert (done.returncode, "is not a data directory" in done.stderr) == (6, True), done.stderr
    assert tree(data_dir) == before


def test_root_that_goes_while_it_is_opened_is_told(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = Reconciler.open

    def opens_too_late(self: Reconciler) -> None:
        rename(data_dir)
        opens(self)

    monkeypatch.setattr(Reconciler, "open", opens_too_late)
    with pytest.raises(NoDataDirectoryError, match="is no longer the data directory"):
        DataManager(data_dir)
    assert not data_dir.exists()
