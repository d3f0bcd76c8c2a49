"""Real processes for the tests: `fsdm` as a user runs it, and holders of a chunk in other languages."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S, eventually

FSDM = [sys.executable, "-m", "fsdm"]


def ran(
    *command: object,
    cwd: str | Path | None = None,
    stdin: str = "",
    timeout_s: float = 280.0,
    umask: int = -1,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whichever it is, and keep what it says."""
    options = {"cwd": cwd, "input": stdin, "timeout": timeout_s, "umask": umask, "env": {**os.environ, **environment}}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


def ran_by_shell(script: str, cwd: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script by bash, where `fsdm` and `python` are those of this test run."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return ran("bash", *options, "-c", script, cwd=cwd, PATH=path, **environment)


def fsdm(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    return ran(*FSDM, *arguments, stdin=stdin.decode(), timeout_s=120, **environment)


def fsdm_json(*arguments: object) -> Any:
    """Run one verb with `--json`, which must succeed, and parse what it prints."""
    done = fsdm(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def begun(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process, and kill it at the end of the block if it still runs."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A verb that keeps running; it is killed at the end of the block if it still does."""
    command = [*FSDM, *map(str, arguments)]
    with begun(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process


@contextmanager
def reconciling(data_dir: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`fsdm run`, once it has LOCK."""
    with running("run", "-d", data_dir, *arguments) as process:
        eventually(lambda: owner(data_dir) == process.pid, "the reconciler has LOCK")
        yield process


def owner(data_dir: Path) -> int | None:
    """The pid that LOCK names."""
    try:
        return int(json.loads((data_dir / "LOCK").read_bytes())["pid"])
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def begun_apart(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a session of its own; it and what it has started are killed at the end of the block."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True, **options}
    with begun([*map(str, command)], **options) as process:
        try:
            yield process
        finally:
            kill_group(process)


@contextmanager
def shell_holding(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """flock(1) with a shared lock on a chunk's directory, as any program may hold one."""
    with begun_apart(["flock", "-s", directory, "-c", "echo held; read line"]) as process:
        assert process.stdout.readline() == "held\n"
        yield process


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL, also to the command that flock(1) started: it has inherited the lock."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(PATIENCE_S)
