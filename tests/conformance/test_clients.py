"""The clients of tools/clients as they are kept, and the tools that the suite itself is built on."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import clients, gate
from tests.conformance.clients import CLIENTS, HERE, Client, make
from tests.support import PATIENCE_S, can_lock, process, python

VERBS = [
    "want FILE|-",
    "register [--exclusive] FILE|-",
    "delete ID",
    "list",
    "find DATASET BLOCK",
    "hold DATASET BLOCK -- CMD",
    "acquire [--timeout S] ID|DATASET BLOCK -- CMD",
]


def test_every_file_of_tools_clients_is_tested() -> None:
    named = {word.partition("{here}/")[2] for recipe in CLIENTS.values() for word in (*recipe.run, *recipe.build)}
    assert named - {""} == {path.name for path in HERE.iterdir()}


def test_every_client_says_how_it_is_called() -> None:
    for path in HERE.iterdir():
        head = "\n".join(path.read_text().splitlines()[:20])
        for verb in VERBS:
            assert verb in head, path.name


def test_shell_client_has_no_fault_that_shellcheck_knows() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine")
    done = subprocess.run(["shellcheck", HERE / "fsdm.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_client_without_its_compiler_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, tool in {"sh": "flock", "c": "cc", "java": "javac", "rust": "rustc", "go": "go"}.items():
        with pytest.raises(pytest.skip.Exception, match=f"{tool} is not on this machine"):
            make(name, tmp_path)


def test_client_that_does_not_compile_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENTS, "broken", clients.Recipe(("{out}/x",), ("sh", "-c", "echo no such type >&2; exit 1")))
    with pytest.raises(AssertionError, match="no such type"):
        make("broken", tmp_path)


def test_fcntl_lock_as_java_takes_it_protects_nothing(tmp_path: Path) -> None:
    with process(*python(LOCKF, tmp_path)):
        assert can_lock(str(tmp_path))


LOCKF = """
import fcntl, os, sys
fcntl.lockf(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""

TWO_LOCKS = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_SH)
fcntl.flock(fd, fcntl.LOCK_UN)
os.rename(sys.argv[1] + "/a", sys.argv[1] + "/b")
os.chdir(sys.argv[1])
os.unlink("b")
print("done")
"""


def test_gate_shows_each_call_before_it_is_made_and_what_it_is_on(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    python = Client([sys.executable, "-c", TWO_LOCKS], tmp_path)
    with python.gated(("flock", *gate.RENAMES, *gate.UNLINKS), tmp_path) as gated:
        seen = [
            (stop.path, stop.how, stop.renames, stop.unlinks, can_lock(str(tmp_path)), os.listdir(tmp_path))
            for stop in gated.stops()
        ]
        assert gated.result() == (0, "done\n")
    assert seen == [
        (str(tmp_path), fcntl.LOCK_SH, False, False, True, ["a"]),
        (str(tmp_path), fcntl.LOCK_UN, False, False, False, ["a"]),
        (str(tmp_path / "b"), 0, True, False, True, ["a"]),
        (str(tmp_path / "b"), 0, False, True, True, ["b"]),
    ]


def test_client_that_is_killed_at_the_gate_ends_the_stops(tmp_path: Path) -> None:
    python = Client([sys.executable, "-c", TWO_LOCKS], tmp_path)
    with python.gated(("flock",), tmp_path) as gated:
        for _ in gated.stops():
            gated.process.kill()
            gated.process.wait(PATIENCE_S)
        assert gated.result() == (-9, "")


def test_client_runs_where_the_kernel_gives_no_gate(tmp_path: Path) -> None:
    """A process has one gate: behind it, another one is refused, as it is in some containers."""
    inner = Client([sys.executable, "-c", BEHIND_A_SECOND_GATE], tmp_path)
    with inner.gated(("flock",)) as gated:
        assert list(gated.stops()) == []
        assert gated.result() == (0, "runs\nNone\n")


BEHIND_A_SECOND_GATE = """
import socket, subprocess
from tests.conformance import gate
ours, theirs = socket.socketpair()
subprocess.run(gate.command(theirs.fileno(), ("flock",), ["echo", "runs"]), pass_fds=[theirs.fileno()], check=True)
print(gate.receive(ours))
"""
