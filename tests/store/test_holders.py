"""Holders of a chunk by the kernel's own tables, and the ones that cannot be seen."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fsdm.client import Client
from fsdm.model.layout import Layout, Place
from fsdm.reconcile.watcher import Watcher
from fsdm.store import holders
from fsdm.store.flock import Claim
from fsdm.store.holders import COMMAND_MAX, Holders, look_for_holders
from fsdm.store.leader_lock import ReconcilerLock
from tests.support.chunks import an_id, put_chunk, touch_delete
from tests.support.locks import process, python
from tests.support.processes import fsdm, fsdm_json, shell_holding
from tests.support.waiting import PATIENCE_S, eventually

HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2:] == ["lock"]:
    fcntl.flock(fd, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""
LEAVE_IT_TO_A_CHILD = """
import fcntl, os, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_SH)
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=[fd])
print(child.pid, flush=True)
"""
ELSEWHERE_INODE = 12345  # of a pid namespace that is not the first


def of(layout: Layout, place: Place, proc: str = holders.PROC) -> Holders:
    return look_for_holders(layout, [place], proc=proc)[place]


def test_a_ref_of_this_process_is_found_with_its_command_user_and_start(layout: Layout, place: Place) -> None:
    with Client(layout.root) as client, client.find_chunk(place.dataset_id, 0):  # type: ignore[union-attr]
        (mine,) = of(layout, place).found
    assert (mine.pid, mine.mode, mine.inherited) == (os.getpid(), "shared", False)
    assert "pytest" in mine.command or "python" in mine.command
    assert mine.user
    assert mine.started_at is not None
    (boot_time,) = [line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime ")]
    made_at = os.stat(layout.root).st_ctime  # by this process, which had begun then
    assert int(boot_time.split()[1]) <= mine.started_at <= made_at + 1


def test_nobody_is_found_where_nobody_holds_it(layout: Layout, place: Place) -> None:
    assert of(layout, place).found == ()


def test_a_shell_and_the_command_that_it_started_both_hold(layout: Layout, place: Place) -> None:
    with shell_holding(layout.path(place)) as shell:  # type: ignore[arg-type]
        found = of(layout, place).found
    assert [holder.inherited for holder in found] == [False, True]
    assert found[0].pid == shell.pid
    assert found[0].command.startswith("flock -s")


def test_a_child_is_found_whose_parent_took_the_lock_and_has_ended(layout: Layout, place: Place) -> None:
    command, pipe = python(LEAVE_IT_TO_A_CHILD, layout.path(place)), subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait(PATIENCE_S)
        seen = of(layout, place)
        assert [(holder.pid, holder.inherited) for holder in seen.found] == [(child, True)]
        assert not any(str(parent.pid) in sentence for sentence in seen.unseen)


def test_who_has_the_directory_open_without_a_lock_holds_nothing(layout: Layout, place: Place) -> None:
    with process(*python(HOLD, layout.path(place))) as looker, process(*python(HOLD, layout.path(place), "lock")) as it:
        assert [holder.pid for holder in of(layout, place).found] == [it.pid]
        assert looker.pid != it.pid


def test_lock_on_a_failing_disk_hides_no_holder(
    layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if isinstance(path, str) and path.startswith("/proc/") and os.readlink(path) == str(elsewhere):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    with process(*python(HOLD, elsewhere, "lock")), process(*python(HOLD, layout.path(place), "lock")) as it:
        assert [holder.pid for holder in of(layout, place).found] == [it.pid]


def test_who_waits_for_a_lock_holds_nothing(layout: Layout, place: Place) -> None:
    with process(*python(HOLD, layout.path(place), "lock")) as holder:
        waiter = subprocess.Popen(["flock", "-x", layout.path(place), "true"])
        eventually(lambda: f"FLOCK  ADVISORY  WRITE {waiter.pid} " in Path("/proc/locks").read_text())
        assert [one.pid for one in of(layout, place).found] == [holder.pid]
    assert waiter.wait(PATIENCE_S) == 0


def test_claim_of_the_reconciler_is_no_holder(layout: Layout, place: Place) -> None:
    claim = Claim(layout.path(place))
    assert claim.take()
    (sitter,) = of(layout, place).found
    assert sitter.mode == "exclusive"
    lock = ReconcilerLock(layout)
    assert of(layout, place).found == ()
    claim.close()
    with Client(layout.root) as client, client.find_chunk(place.dataset_id, 0):  # type: ignore[union-attr]
        assert [holder.pid for holder in of(layout, place).found] == [os.getpid()]
    lock.close()


def test_many_chunks_take_one_walk_and_gone_ones_are_left_out(layout: Layout, place: Place) -> None:
    other, gone = put_chunk(layout, start=20, end=30), put_chunk(layout, start=40, end=50)
    os.rename(layout.path(gone), f"{layout.trash}/gone")
    with process(*python(HOLD, layout.path(other), "lock")) as it:
        seen = look_for_holders(layout, [place, other, gone])
    assert {at: [holder.pid for holder in one.found] for at, one in seen.items()} == {place: [], other: [it.pid]}


def test_a_look_is_no_event_for_who_watches_the_directory(layout: Layout, place: Place) -> None:
    rung: list[str | None] = []
    watch = Watcher(layout, rung.append)
    watch.start()
    watch.hold(place)
    of(layout, place)
    last = an_id()
    touch_delete(Path(layout.root), last)
    eventually(lambda: last in rung)
    assert place.chunk_id not in rung
    os.close(os.open(layout.path(place), os.O_RDONLY))  # as a ref is closed: that is an event
    eventually(lambda: place.chunk_id in rung)
    watch.stop()


def test_a_long_command_is_cut_in_its_middle(layout: Layout, place: Place) -> None:
    with process(*python(HOLD, layout.path(place), "lock")) as it:
        (found,) = of(layout, place).found
    assert found.pid == it.pid
    assert len(found.command) == COMMAND_MAX
    assert "…" in found.command
    assert found.command.endswith("lock")


class Proc:
    """A directory as proc(5) is, with processes that this user may not see."""

    def __init__(self, path: Path, layout: Layout, place: Place) -> None:
        self.path = path
        self.chunk = layout.path(place)
        self.look = lambda: of(layout, place, str(path))
        (path / "self" / "ns").mkdir(parents=True)
        (path / "self" / "ns" / "pid").write_text("")
        (path / "self" / "mountinfo").symlink_to("/proc/self/mountinfo")
        (path / "self" / "fdinfo").symlink_to("/proc/self/fdinfo")
        (path / "locks").write_text("")
        (path / "stat").write_text("cpu 1\nbtime 1000\n")

    def lock(self, pid: int) -> str:
        """A flock of a process on the chunk, in the kernel's table; the line."""
        found = os.stat(self.chunk)
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        line = f"FLOCK  ADVISORY  READ {pid} {device}:{found.st_ino} 0 EOF"
        with (self.path / "locks").open("a") as file:
            file.write(f"1: {line}\n")
        return line

    def process(self, pid: int, command: str, *, visible: bool = True) -> Path:
        """A process; where its descriptors are not visible, they cannot be listed."""
        directory = self.path / str(pid)
        directory.mkdir()
        (directory / "cmdline").write_text(command.replace(" ", "\0") + "\0" if command else "")
        (directory / "comm").write_text("worker\n")
        (directory / "status").write_text("Name:\tx\nUid:\t4000000000\t4000000000\n")
        (directory / "stat").write_text(f"{pid} (a ) b) S " + " ".join(["1"] * 18) + " 700 0 0\n")
        if visible:
            (directory / "fd").mkdir()
            (directory / "fdinfo").mkdir()
        return directory


@pytest.fixture
def proc(layout: Layout, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    made = Proc(tmp_path / "proc", layout, place)
    monkeypatch.setattr(holders, "_FIRST_PID_NAMESPACE", os.stat(made.path / "self" / "ns" / "pid").st_ino)
    listdir = os.listdir

    def listed(path: str) -> list[str]:
        parent = os.path.dirname(path)
        if path.startswith(f"{made.path}/") and path.endswith("/fd") and not os.path.isdir(path):
            raise PermissionError(13, "may not", path) if os.path.isdir(parent) else FileNotFoundError(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listed)
    return made


def test_the_holder_of_another_user_is_known_by_the_kernels_table(proc: Proc) -> None:
    proc.process(50, "query --all", visible=False)
    proc.lock(50)
    seen = proc.look()
    assert [(holder.pid, holder.command, holder.user) for holder in seen.found] == [(50, "query --all", "4000000000")]
    assert seen.found[0].started_at == 1000 + 700 / os.sysconf("SC_CLK_TCK")
    assert seen.unseen == ("1 process may not be looked at by this user, and may have inherited a lock",)


def test_lock_of_an_ended_taker_is_told_without_a_holder(proc: Proc) -> None:
    proc.lock(51)
    seen = proc.look()
    assert seen.found == ()
    assert seen.unseen == ("pid 51 took a lock and has it no more; the one that inherited it cannot be seen",)


def test_reused_pid_is_not_taken_for_the_holder(proc: Proc) -> None:
    proc.process(52, "innocent")
    proc.lock(52)
    seen = proc.look()
    assert seen.found == ()
    assert "pid 52 took a lock and has it no more" in seen.unseen[0]


def test_container_tells_that_it_cannot_see_outside(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "_FIRST_PID_NAMESPACE", ELSEWHERE_INODE)
    seen = proc.look()
    assert seen.found == ()
    assert seen.unseen == ("processes outside this container (its pid namespace) cannot be seen from here",)


def test_a_process_without_a_command_line_is_called_by_its_name(proc: Proc) -> None:
    directory = proc.process(53, "")
    line = proc.lock(53)
    (directory / "fd" / "4").symlink_to(proc.chunk)
    (directory / "fdinfo" / "4").write_text(f"pos:\t0\nlock:\t1: {line}\n")
    assert [(holder.pid, holder.command) for holder in proc.look().found] == [(53, "[worker]")]


def test_unlocked_files_are_not_looked_at(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a server that is away: to stat it waits for ever."""
    directory = proc.process(58, "other")
    proc.lock(58)
    (directory / "fd" / "5").symlink_to("/far/away")
    (directory / "fdinfo" / "5").write_text("pos:\t0\n")
    really = os.stat

    def stat(path: str, **how: bool) -> os.stat_result:
        assert not str(path).endswith("/58/fd/5")
        return really(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    assert proc.look().found == ()


def test_processes_that_end_while_one_looks_spoil_nothing(proc: Proc) -> None:
    half_gone = proc.process(54, "gone")
    (half_gone / "fd" / "3").symlink_to(proc.chunk)  # and its fdinfo has gone
    (half_gone / "fd" / "4").symlink_to(proc.chunk)
    line = proc.lock(55)
    (half_gone / "fdinfo" / "4").write_text(f"lock:\t1: {line}\n")
    for name in ("cmdline", "comm", "status", "stat"):
        (half_gone / name).unlink()
    (proc.path / "56").mkdir()  # …/fd may not be listed, and nothing else is there
    (found,) = proc.look().found
    assert (found.pid, found.command, found.user) == (54, "not known: it has just ended", "not known")
    assert (found.started_at, found.inherited) == (None, True)


def test_a_device_is_compared_as_the_kernel_shows_it_not_as_stat_does(proc: Proc) -> None:
    """On btrfs and overlay stat(2) gives other numbers than those of the mount, with which locks are shown."""
    lines = (proc.path / "self" / "mountinfo").read_text().splitlines()
    (proc.path / "self" / "mountinfo").unlink()
    others = [" ".join([*line.split()[:2], "0:300", *line.split()[3:]]) for line in lines]
    (proc.path / "self" / "mountinfo").write_text("\n".join(others))
    proc.process(57, "other", visible=False)
    (proc.path / "locks").write_text(f"1: FLOCK  ADVISORY  READ 57 00:12c:{os.stat(proc.chunk).st_ino} 0 EOF\n")
    assert [holder.pid for holder in proc.look().found] == [57]


def test_holders_prints_a_line_for_each_holder(layout: Layout, data_dir: Path, place: Place) -> None:
    with process(*python(HOLD, layout.path(place), "lock")) as it:
        pid, user, since, command = fsdm("holders", "-d", data_dir, place.chunk_id).stdout.rstrip("\n").split("\t")
        told = fsdm_json("holders", "-d", data_dir, place.chunk_id)
    assert (pid, since[:2], command[: len(sys.executable)]) == (str(it.pid), "20", sys.executable)
    assert user
    assert "\\n" in command  # a script on a command line moves no cursor
    assert told["id"] == place.chunk_id
    assert [holder["pid"] for holder in told["holders"]] == [it.pid]
    done = fsdm("holders", "-d", data_dir, place.chunk_id)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no process " in done.stderr
    assert fsdm_json("holders", "-d", data_dir, place.chunk_id)["holders"] == []


def test_holders_exits_with_3_without_chunk_and_with_2_without_id(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "fsdm.json").write_text('{"format": 1}')
    done = fsdm("holders", "-d", data_dir, "a" * 64)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no chunk " in done.stderr
    assert fsdm("holders", "-d", data_dir, "../x").returncode == 2
