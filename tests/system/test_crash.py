"""Kills and power failures everywhere in the lives of `tools/crash`, and known faults.

`FSDM_CRASH=long` tries more combinations of what a power failure may take, and all instants on a real file system.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fsdm.manager
import fsdm.reconcile.apply
import fsdm.reconcile.repair
import fsdm.store.data_dir
from fsdm.model.layout import READY
from fsdm.model.state import Marker
from fsdm.reconcile.actions import Done, Outcome, Publish, Stale
from fsdm.reconcile.apply import Applier
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.file_transfer import Transfer
from tests.support.mutants import Mutant, asides_left, marker_not_judged_aside, ready_before_the_files
from tools.crash.__main__ import main
from tools.crash.check import ViolationError
from tools.crash.disk import Disk
from tools.crash.image import KINDS, shut_down_everywhere, why_not
from tools.crash.kill import kill_everywhere
from tools.crash.life import Life
from tools.crash.lives import LIVES, Story
from tools.crash.power import fail_everywhere
from tools.crash.tap import Tap

pytestmark = pytest.mark.timeout(600)  # the machine may be busy

LONG = os.environ.get("FSDM_CRASH") == "long"
BOUND = 4096 if LONG else 16


@pytest.fixture
def scratch() -> Iterator[str]:
    """Where to work: in memory, where there is such a place."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fsdm-crash-", dir=where) as path:
        yield path


def skip_without(kind: str, scratch: str) -> None:
    """Skip the test where no image of such a file system can be mounted."""
    reason = why_not(kind, scratch)
    if reason is not None:
        pytest.skip(reason)


# ------------------------------------------------------------------------------------------------------ nothing is lost


@pytest.mark.parametrize("life", LIVES)
def test_kill_at_any_step_loses_nothing(life: str, scratch: str) -> None:
    assert kill_everywhere(life, scratch, print) > 4


@pytest.mark.parametrize("life", LIVES)
def test_power_failure_at_any_call_loses_nothing_durable(life: str, scratch: str) -> None:
    figures = fail_everywhere(life, scratch, BOUND)
    assert figures.calls > 10
    assert figures.different > figures.calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("life", LIVES if LONG else ["resume", "replace", "failover"])
def test_real_file_system_that_is_shut_down_loses_nothing_durable(kind: str, life: str, scratch: str) -> None:
    skip_without(kind, scratch)
    assert shut_down_everywhere(life, scratch, kind, print, every=1 if LONG else 7) > 5


def test_command_line_tells_what_it_has_tried(capsys: pytest.CaptureFixture[str], scratch: str) -> None:
    assert main(["kill", "retiring", "--dir", scratch, "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "retiring: killed at 1, " in out
    assert " steps, " in out
    assert main(["power", "retiring", "--dir", scratch, "--bound", "1"]) == 0
    assert "states=" in capsys.readouterr().out
    assert os.listdir(scratch) == []


def test_command_line_says_where_something_does_not_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scratch: str
) -> None:
    no_fsync_of_a_file(monkeypatch)
    assert main(["power", "first_start", "--dir", scratch]) == 1
    assert "DOES NOT HOLD: first_start, power failed after " in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- what the model says


def states_of(root: Path, *deeds: Callable[[Path], None]) -> set[frozenset[tuple[str, bytes]]]:
    """List what a power failure may leave after these deeds, as the model has it."""
    disk = Disk(str(root))
    with Tap(str(root), before=lambda call: None, after=disk.did):
        for deed in deeds:
            deed(root)
    return {frozenset((path, data) for path, _, data in state.tree) for state in disk.states(1000)}


def written(name: str, *data: bytes, fsynced: bool = False) -> Callable[[Path], None]:
    def deed(root: Path) -> None:
        fd = os.open(root / name, os.O_WRONLY | os.O_CREAT)
        for part in data:
            os.write(fd, part)
        if fsynced:
            os.fsync(fd)
        os.close(fd)

    return deed


def synced(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_file_that_is_not_fsynced_may_be_whole_empty_zeros_or_a_part(tmp_path: Path) -> None:
    left = states_of(tmp_path, written("file", b"abcd", b"efgh"), synced)
    contents = {b"abcdefgh", b"", bytes(8), b"abcd", b"\0\0\0\0efgh"}
    assert left == {frozenset({("file", content)}) for content in contents}


def test_file_that_is_fsynced_may_lose_its_name_but_no_byte(tmp_path: Path) -> None:
    assert states_of(tmp_path, written("file", b"abcd", fsynced=True)) == {
        frozenset(),
        frozenset({("file", b"abcd")}),
    }


def test_rename_happens_or_does_not_and_names_come_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x")
    left = states_of(
        tmp_path, lambda root: os.rename(root / "old", root / "new"), lambda root: os.mkdir(root / "beside")
    )
    assert left == {
        frozenset({(name, b"x")} | beside) for name in ("old", "new") for beside in (set(), {("beside", b"")})
    }


def test_file_that_is_fsynced_with_its_directory_is_durable(tmp_path: Path) -> None:
    left = states_of(tmp_path, written("file", b"abcd", fsynced=True), synced)
    assert left == {frozenset({("file", b"abcd")})}


def test_write_that_goes_past_the_tap_is_found_out(monkeypatch: pytest.MonkeyPatch, scratch: str) -> None:
    def live(life: Life) -> None:
        Path(life.layout.root, "unseen").write_bytes(b"x")
        life.want("a1")

    monkeypatch.setitem(LIVES, "unseen", Story(live))
    with pytest.raises(AssertionError, match=r"create data/want"):
        fail_everywhere("unseen", scratch, BOUND)


# -------------------------------------------------------------------------------------------- known faults, to be found


def not_fsynced(put: pytest.MonkeyPatch, which: Callable[[str], bool]) -> None:
    """These directories are not fsynced."""
    fsync_dir = FileSystem.fsync_dir
    put.setattr(FileSystem, "fsync_dir", lambda self, path: None if which(path) else fsync_dir(self, path))


def no_fsync_of_a_file(put: pytest.MonkeyPatch) -> None:
    """No file is fsynced."""
    put.setattr(FileSystem, "fsync_file", lambda self, fd, path: None)


def no_fsync_of_data(put: pytest.MonkeyPatch) -> None:
    """The directory of a chunk's files is not fsynced."""
    not_fsynced(put, lambda path: "/partial/" in path and path.endswith("/data"))


def no_fsync_of_the_partial(put: pytest.MonkeyPatch) -> None:
    """READY may be there before `data` is."""
    not_fsynced(put, lambda path: "/partial/" in path and not os.path.exists(f"{path}/{READY}"))


def no_fsync_of_the_dataset(put: pytest.MonkeyPatch) -> None:
    """The directory that a chunk is renamed into is not fsynced."""
    not_fsynced(put, lambda path: os.path.basename(os.path.dirname(path)) == "chunks")


def no_fsync_of_chunks(put: pytest.MonkeyPatch) -> None:
    """The directory that a dataset is made in is not fsynced."""
    not_fsynced(put, lambda path: path.endswith("/chunks"))


def no_fsync_above_the_data_directory(put: pytest.MonkeyPatch) -> None:
    """The data directory itself may be lost."""
    put.setattr(fsdm.store.data_dir, "_make_root", lambda path, fs: os.makedirs(path, exist_ok=True))


def want_goes_before_the_dataset_is_fsynced(put: pytest.MonkeyPatch) -> None:
    """A published chunk is made durable only after its want has gone."""
    publish, fsync_dir = Applier._publish, FileSystem.fsync_dir

    def late(self: Applier, action: Publish) -> Outcome:
        waiting: list[str] = []
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                FileSystem,
                "fsync_dir",
                lambda fs, path: waiting.append(path) if "/chunks" in path else fsync_dir(fs, path),
            )
            outcome = publish(self, action)
        for path in waiting:
            self._fs.fsync_dir(path)
        return outcome

    put.setattr(Applier, "_publish", late)


def ready_is_not_durable(put: pytest.MonkeyPatch) -> None:
    """A partial is renamed before its READY is durable."""
    write = FileSystem.write

    def careless(self: FileSystem, path: str, data: bytes, *, durable: bool, **how: Any) -> None:
        write(self, path, data, durable=durable and not path.endswith(READY), **how)

    put.setattr(FileSystem, "write", careless)


def bytes_of_another_boot(put: pytest.MonkeyPatch) -> None:
    """Bytes that nothing proves are taken over, though the machine has been off since."""
    relied_on = Transfer._can_be_relied_on

    def careless(self: Transfer, *arguments: Any) -> bool:
        self._part.same_boot = True
        return relied_on(self, *arguments)

    put.setattr(Transfer, "_can_be_relied_on", careless)


def erased_before_it_is_out_of_sight(put: pytest.MonkeyPatch) -> None:
    """A directory in the trash is erased before its rename is durable."""

    def discard(self: Applier, path: str) -> None:
        trashed = self._fs.discard(path, self._layout.trash)
        if trashed:
            self._erase(trashed)
            self._fs.fsync_dir(os.path.dirname(path))

    put.setattr(Applier, "_discard", discard)


def opposite_may_come_back(put: pytest.MonkeyPatch) -> None:
    """A marker is removed for good before what has become of its opposite is durable."""

    def removed(self: Applier, path: str, judged: Marker, winner: tuple[str, Marker] | None) -> Outcome:
        if not fsdm.reconcile.apply.remove_marker(self._layout, self._fs, path, judged, winner):
            return Stale()
        self._fs.fsync_dir(os.path.dirname(path))
        return Done()

    put.setattr(Applier, "_removed", removed)


def want_is_not_kept(put: pytest.MonkeyPatch) -> None:
    """A want takes something away before it is durable itself."""
    put.setattr(Applier, "_keep_want", lambda self, chunk_id: None)


def want_goes_before_it_comes_back(put: pytest.MonkeyPatch) -> None:
    """WANT is taken from beside the files before it stands as a want."""
    back = fsdm.reconcile.repair.restore_want

    def late(layout: Any, fs: FileSystem, kept: str, chunk_id: str) -> None:
        fs.rename(kept, f"{layout.trash}/kept")
        back(layout, fs, f"{layout.trash}/kept", chunk_id)

    put.setattr(fsdm.reconcile.repair, "restore_want", late)


def a_want_that_came_back_stays_beside_a_delete(put: pytest.MonkeyPatch) -> None:
    """A want that came back is taken for a later intent than the delete that has come before it stood."""
    put.setattr(fsdm.reconcile.repair, "withdraw_restored_want", lambda *_: None)


def a_want_that_came_back_is_not_durable(put: pytest.MonkeyPatch) -> None:
    """WANT goes before the want that came of it is durable."""
    put.setattr(fsdm.reconcile.repair, "_make_durable", lambda *_: None)


KILLED: dict[Mutant, str] = {
    want_goes_before_it_comes_back: "damaged",
    a_want_that_came_back_stays_beside_a_delete: "quarantined_twice",
    ready_before_the_files: "first_start",
    marker_not_judged_aside: "overtaken",
    asides_left: "failover",
}
POWERLESS: dict[Mutant, str] = {
    no_fsync_of_a_file: "first_start",
    no_fsync_of_data: "first_start",
    no_fsync_of_the_partial: "first_start",
    no_fsync_of_the_dataset: "first_start",
    no_fsync_of_chunks: "first_start",
    no_fsync_above_the_data_directory: "first_start",
    want_goes_before_the_dataset_is_fsynced: "retire",
    ready_is_not_durable: "first_start",
    ready_before_the_files: "first_start",
    bytes_of_another_boot: "resume",
    erased_before_it_is_out_of_sight: "retiring",
    opposite_may_come_back: "retire",
    want_is_not_kept: "replace",
    a_want_that_came_back_is_not_durable: "damaged",
}


def name_of(mutant: Mutant) -> str:
    return mutant.__name__


@pytest.mark.parametrize("mutant", KILLED, ids=name_of)
def test_kill_finds_this_fault(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, scratch: str) -> None:
    mutant(monkeypatch)
    with pytest.raises(ViolationError):
        kill_everywhere(KILLED[mutant], scratch, print)


@pytest.mark.parametrize("mutant", POWERLESS, ids=name_of)
def test_power_failure_finds_this_fault(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, scratch: str) -> None:
    mutant(monkeypatch)
    with pytest.raises(ViolationError):
        fail_everywhere(POWERLESS[mutant], scratch, BOUND)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mutant", [want_is_not_kept, ready_is_not_durable], ids=name_of)
def test_real_file_system_finds_this_fault(
    mutant: Mutant, kind: str, monkeypatch: pytest.MonkeyPatch, scratch: str
) -> None:
    skip_without(kind, scratch)
    mutant(monkeypatch)
    with pytest.raises(ViolationError):
        shut_down_everywhere(POWERLESS[mutant], scratch, kind, print)
