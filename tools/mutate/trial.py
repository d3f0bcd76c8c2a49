"""One trial: a copy of the project with one mutant in it, and the tests that run through that, until one fails.

Invariants. The checkout is only read: each trial has a copy of its own, which its tests and the programs that they
start import. A trial ends in time: what still runs then is killed, with all that it has started. A test that hangs
fails by its own time; a trial that is out of time without a failure has caught nothing, for the machine may be busy.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.mutate.mutants import Mutant

HERE: Final = Path(__file__).parents[2]
NOT_COPIED: Final = (".git", ".mutate", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build")
MARK: Final = "FSDM_MUTATE_TRIAL"  # in the environment of all that a trial starts


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on the time of a trial's tests: as recorded, each, and all with what starts them."""

    tests_s: float
    test_s: float
    all_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a trial: `by` is the test that failed, `late` where it was killed."""

    caught: bool
    by: str = ""
    late: bool = False
    said: str = ""


def pick(tests: Sequence[str], seconds: dict[str, float], at_most_s: float) -> list[str]:
    """Return the first tests, as many as take so long together; one at least."""
    picked: list[str] = []
    total = 0.0
    for test in tests:
        total += seconds[test]
        if picked and total > at_most_s:
            break
        picked.append(test)
    return picked


def run(root: Path, tests: Sequence[str], mutant: Mutant | None, bounds: Bounds) -> Outcome:
    """Run tests, in their order, in a copy of the project, with a mutant or as it is."""
    with tempfile.TemporaryDirectory(prefix="fsdm-mutate-", ignore_cleanup_errors=True) as scratch:
        copy, picked = Path(scratch, "copy"), Path(scratch, "picked.txt")
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        if mutant is not None:
            path = copy / mutant.module
            path.write_bytes(mutant.of(path.read_bytes()))
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
                compiled.unlink()
        picked.write_text("\n".join(tests))
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", f"--basetemp={scratch}/t"]
        command += ["-p", "no:randomly", "-p", "no:cacheprovider", "-p", "tools.mutate.recorder"]
        command += [f"--mutate-picked={picked}", f"--timeout={bounds.test_s}", *files]
        environment = {**os.environ, MARK: scratch, "PYTHONPATH": f"{copy}:{HERE}", "TMPDIR": scratch}
        environment.pop("PYTEST_ADDOPTS", None)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process compiles what it imports
        with Path(scratch, "said").open("w+") as said:
            late, code = _until_its_end(command, copy, environment, said, bounds.all_s)
            said.seek(0)
            text = said.read()
        _kill_marked(scratch)
        _unmount_below(scratch)
        with suppress(FileNotFoundError):
            return Outcome(True, picked.with_suffix(".caught").read_text(), late, text)
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise ValueError(f"none of these tests is there any more; record the map again: {' '.join(tests)}")
        return Outcome(not late and code != pytest.ExitCode.OK, "", late, text)


def _until_its_end(
    command: Sequence[str], cwd: Path, environment: dict[str, str], said: IO[str], at_most_s: float
) -> tuple[bool, int]:
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
    )
    try:
        return False, process.wait(at_most_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True, pytest.ExitCode.INTERRUPTED


def _kill_marked(scratch: str) -> None:
    """Kill what a trial has started and not ended; proc(5), environ."""
    mark = f"{MARK}={scratch}\0".encode()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another user's
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(int(pid), signal.SIGKILL)


def _unmount_below(scratch: str) -> None:
    """Unmount what a test that was killed has mounted."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for where in reversed(mounted):
        if where.startswith(f"{scratch}/"):
            subprocess.run(["umount", "--lazy", where], check=True)
