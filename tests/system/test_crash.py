"""Kills and power failures everywhere in the lives of `tools/crash`, and known faults.

`FSDM_CRASH=long` tries more combinations of what a power failure may take, and all instants on a real file system.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm.index.gathering import Gathering, Merge
from fsdm.model.layout import READY, Layout, Place
from fsdm.model.state import Marker
from fsdm.reconcile.actions import Done, Outcome, Publish, Stale
from fsdm.reconcile.apply import Applier
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import remove_marker
from fsdm.transfer.file_transfer import Transfer
from tests.support import mutants
from tests.support.filesystems import MEMORY
from tests.support.mutants import Mutant, around, replaced
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
    with tempfile.TemporaryDirectory(prefix="fsdm-crash-", dir=MEMORY) as path:
        yield path


def skip_without(kind: str, scratch: str) -> None:
    """Skip the test where no image of such a file system can be mounted."""
    reason = why_not(kind, scratch)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("life", LIVES)
def test_kill_at_any_step_loses_nothing(life: str, scratch: str) -> None:
    assert kill_everywhere(life, scratch, print) > 4


@pytest.mark.parametrize("life", LIVES)
def test_power_failure_at_any_call_loses_nothing_durable(life: str, scratch: str) -> None:
    figures = fail_everywhere(life, scratch, BOUND)
    assert figures.calls > 10
    assert figures.states > 20 * figures.calls
    assert figures.different >= 10


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
    NO_FSYNC_OF_A_FILE(monkeypatch)
    assert main(["power", "first_start", "--dir", scratch]) == 1
    assert "DOES NOT HOLD: first_start, power failed after " in capsys.readouterr().out


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
    left = states_of(tmp_path, written("file", b"abcd", fsynced=True))
    assert left == {frozenset(), frozenset({("file", b"abcd")})}


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
    with pytest.raises(AssertionError, match=r"unlink data/want"):  # what was created there goes again
        fail_everywhere("unseen", scratch, BOUND)


def not_fsynced(which: Callable[[str], bool]) -> Mutant:
    """Do not fsync these directories."""
    return around("store.filesystem.FileSystem.fsync_dir", lambda fsync, fs, path: which(path) or fsync(fs, path))


def late_fsync(publish: Callable[..., Outcome], self: Applier, action: Publish) -> Outcome:
    waiting: list[str] = []
    with pytest.MonkeyPatch.context() as inner:
        around(
            "store.filesystem.FileSystem.fsync_dir",
            lambda fsync, fs, path: waiting.append(path) if "/chunks" in path else fsync(fs, path),
        )(inner)
        outcome = publish(self, action)
    for path in waiting:
        self.fs.fsync_dir(path)
    return outcome


def ready_is_not_durable(write: Any, self: FileSystem, path: str, data: bytes, *, durable: bool, **how: Any) -> None:
    write(self, path, data, durable=durable and not path.endswith(READY), **how)


def bytes_of_another_boot(relied_on: Callable[..., bool], self: Transfer, *arguments: Any) -> bool:
    self._part.same_boot = True
    return relied_on(self, *arguments)


def extents_without_proof(relied_on: Callable[..., bool], self: Transfer, *arguments: Any) -> bool:
    relied = relied_on(self, *arguments)
    record = self._part.record
    if record is not None and self.size == record.size:
        self._extents = [(extent.start, extent.end) for extent in record.extents if extent.start < extent.end]
    return relied


def erased_before_it_is_out_of_sight(self: Applier, path: str, **_: bool) -> None:
    trashed = self.fs.discard(path, self.layout.trash)
    if trashed:
        self.erase(trashed, None)
        self.fs.fsync_dir(os.path.dirname(path))


def opposite_may_come_back(self: Applier, path: str, judged: Marker, winner: tuple[str, Marker] | None) -> Outcome:
    if not remove_marker(self.layout, self.fs, path, judged, winner):
        return Stale()
    self.fs.fsync_dir(os.path.dirname(path))
    return Done()


def want_goes_before_it_comes_back(restore: Any, layout: Layout, fs: FileSystem, kept: str, chunk_id: str) -> None:
    fs.rename(kept, f"{layout.trash}/kept")
    restore(layout, fs, f"{layout.trash}/kept", chunk_id)


def runs_go_first(
    merge: Callable[..., list[Place]], gathering: Gathering, due: Merge, go_on: Callable[[], None]
) -> list[Place]:
    for name in due.runs:
        gathering.fs.unlink(f"{gathering.directory}/{name}")
    return merge(gathering, due, go_on)


NO_FSYNC_OF_A_FILE = replaced("store.filesystem.FileSystem.fsync_file", lambda self, fd, path: None)
# each fault, and a life that finds it: by a kill, or by a power failure
KILLED: dict[str, tuple[Mutant, str]] = {
    "runs go before what they are merged into is there": (
        around("index.gathering.Gathering.merge", runs_go_first),
        "indexed",
    ),
    "WANT is taken before it stands as a want": (
        around("reconcile.repair.restore_want", want_goes_before_it_comes_back),
        "damaged",
    ),
    "a want that came back is taken for later than the delete": (
        replaced("reconcile.repair.withdraw_restored_want", lambda *_: None),
        "quarantined_twice",
    ),
    "READY comes before the files": (mutants.ready_before_the_files, "first_start"),
    "a marker is not judged out of reach": (mutants.marker_not_judged_aside, "overtaken"),
    "a start leaves the markers that were left aside": (mutants.asides_left, "failover"),
}
WANT_IS_NOT_KEPT = replaced("reconcile.apply.Applier._keep", lambda self, path: None), "replace"
READY_IS_NOT_DURABLE = around("store.filesystem.FileSystem.write", ready_is_not_durable), "first_start"
POWERLESS: dict[str, tuple[Mutant, str]] = {
    "no file is fsynced": (NO_FSYNC_OF_A_FILE, "first_start"),
    "the directory of the files is not fsynced": (
        not_fsynced(lambda path: "/partial/" in path and path.endswith("/data")),
        "first_start",
    ),
    "READY may be there before data/ is": (
        not_fsynced(lambda path: "/partial/" in path and not os.path.exists(f"{path}/{READY}")),
        "first_start",
    ),
    "the dataset is not fsynced": (
        not_fsynced(lambda path: os.path.basename(os.path.dirname(path)) == "chunks"),
        "first_start",
    ),
    "chunks/ is not fsynced": (not_fsynced(lambda path: path.endswith("/chunks")), "first_start"),
    "the data directory itself may be lost": (
        replaced("store.data_dir._make_root", lambda path, fs: os.makedirs(path, exist_ok=True)),
        "first_start",
    ),
    "a want goes before its chunk is durable": (around("reconcile.apply.Applier._publish", late_fsync), "retire"),
    "a partial is renamed before READY is durable": READY_IS_NOT_DURABLE,
    "READY comes before the files": (mutants.ready_before_the_files, "first_start"),
    "bytes of another boot are taken over": (
        around("transfer.file_transfer.Transfer._can_be_relied_on", bytes_of_another_boot),
        "resume",
    ),
    "extents count without their digests": (
        around("transfer.file_transfer.Transfer._can_be_relied_on", extents_without_proof),
        "pieces",
    ),
    "what goes to the trash is erased before its rename is durable": (
        replaced("reconcile.apply.Applier._discard", erased_before_it_is_out_of_sight),
        "retiring",
    ),
    "a marker goes before its opposite has gone durably": (
        replaced("reconcile.apply.Applier._removed", opposite_may_come_back),
        "retire",
    ),
    "a want takes something away before it is durable": WANT_IS_NOT_KEPT,
    "WANT goes before the want that came of it is durable": (
        replaced("reconcile.repair._make_durable", lambda *_: None),
        "damaged",
    ),
}


@pytest.mark.parametrize(("mutant", "life"), KILLED.values(), ids=KILLED)
def test_kill_finds_this_fault(mutant: Mutant, life: str, monkeypatch: pytest.MonkeyPatch, scratch: str) -> None:
    mutant(monkeypatch)
    with pytest.raises(ViolationError):
        kill_everywhere(life, scratch, print)


@pytest.mark.parametrize(("mutant", "life"), POWERLESS.values(), ids=POWERLESS)
def test_power_failure_finds_fault(mutant: Mutant, life: str, monkeypatch: pytest.MonkeyPatch, scratch: str) -> None:
    mutant(monkeypatch)
    with pytest.raises(ViolationError):
        fail_everywhere(life, scratch, BOUND)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mutant", "life"), [WANT_IS_NOT_KEPT, READY_IS_NOT_DURABLE], ids=["want", "READY"])
def test_real_file_system_finds_this_fault(
    mutant: Mutant, life: str, kind: str, monkeypatch: pytest.MonkeyPatch, scratch: str
) -> None:
    skip_without(kind, scratch)
    mutant(monkeypatch)
    with pytest.raises(ViolationError):
        shut_down_everywhere(life, scratch, kind, print)
