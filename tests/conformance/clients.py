"""Clients as commands: how those of tools/clients are built, and how a test calls one."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsdm.store.flock import Claim
from tests.conformance import gate
from tests.support import PATIENCE_S, begun_apart, kill_group, ran

HERE = Path(__file__).parent.parent.parent / "tools" / "clients"

# fsdm's own command line is a client as it is, but that it says `ls`
FSDM = 'verb=$1; shift; [ "$verb" != list ] || verb=ls; exec "$0" -m fsdm "$verb" "$@"'


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a client is run, and built before; `{here}` is tools/clients, `{out}` a directory to build in."""

    run: tuple[str, ...]
    build: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # beyond what build and run call
    reads_keys: bool = False


CLIENTS: dict[str, Recipe] = {
    "fsdm": Recipe(("sh", "-c", FSDM, sys.executable), reads_keys=True),
    "sh": Recipe(("sh", "{here}/fsdm.sh"), needs=("flock",), reads_keys=True),
    "c": Recipe(
        ("{out}/fsdm-c",),
        ("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", "{out}/fsdm-c", "{here}/fsdm.c"),
        reads_keys=True,
    ),
    "rust": Recipe(
        ("{out}/fsdm-rust",), ("rustc", "--edition=2021", "-Dwarnings", "-o", "{out}/fsdm-rust", "{here}/fsdm.rs")
    ),
    "go": Recipe(("{out}/fsdm-go",), ("go", "build", "-o", "{out}/fsdm-go", "{here}/fsdm.go"), reads_keys=True),
    "java": Recipe(
        ("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "{out}", "Fsdm"),
        ("javac", "-Xlint:all", "-Werror", "-d", "{out}", "{here}/Fsdm.java"),
        ("flock",),
    ),
    "node": Recipe(("node", "{here}/fsdm.mjs"), needs=("flock",)),
    "perl": Recipe(("perl", "{here}/fsdm.pl")),
}


def make(name: str, out: Path) -> list[str]:
    """Build a client of tools/clients in `out`, and give its command; skip where a tool is missing."""
    recipe = CLIENTS[name]
    for tool in (*recipe.build[:1], *recipe.needs, *(recipe.run[:1] if "{" not in recipe.run[0] else ())):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine")
    # several workers of one test run share what is built
    with open(out / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if recipe.build and not (out / f"{name}.built").exists():
            done = subprocess.run(_filled(recipe.build, out), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            (out / f"{name}.built").touch()
    return _filled(recipe.run, out)


def _filled(words: tuple[str, ...], out: Path) -> list[str]:
    return [word.replace("{here}", str(HERE)).replace("{out}", str(out)) for word in words]


@dataclass(frozen=True, slots=True)
class Holder:
    """A client that holds a chunk: CMD is a shell that reads lines, and runs each."""

    process: subprocess.Popen[str]
    pid: int  # of CMD
    path: str  # as CMD was told it

    def ask(self, line: str) -> str:
        """Have CMD run a line of shell; the one line that it prints."""
        self._tell(line)
        return self.process.stdout.readline().rstrip("\n")

    def end(self) -> int:
        """Let CMD end; the client's exit code."""
        self._tell("exit")
        return self.process.wait(PATIENCE_S)

    def _tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


def held_by(process: subprocess.Popen[str]) -> Holder:
    """Wait until a client has its chunk, and runs SHELL."""
    pid, _, path = process.stdout.readline().rstrip("\n").partition(" ")
    assert path, f"it holds nothing, and ends with {process.wait(PATIENCE_S)}"
    return Holder(process, int(pid), path)


SHELL = 'echo "$$ $FSDM_CHUNK_PATH"; while read -r line; do eval "$line"; done'


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one data directory."""

    command: list[str]
    data_dir: Path
    patience_s: float = 60.0  # for one call

    def run(self, *arguments: object, stdin: bytes = b"", **how: Any) -> subprocess.CompletedProcess[str]:
        """Call it, to its end; it runs with a umask that lets others read."""
        how |= {"timeout_s": self.patience_s, "FSDM_DATA_DIR": str(self.data_dir)}
        return ran(*self.command, *arguments, stdin=stdin.decode(), umask=0o022, **how)

    def words(self, *arguments: object) -> list[str]:
        return [*self.command, *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FSDM_DATA_DIR": str(self.data_dir)}

    def want(self, document: bytes) -> None:
        self._must("want", "-", stdin=document)

    def register(self, document: bytes) -> None:
        self._must("register", "-", stdin=document)

    def delete(self, chunk_id: str) -> None:
        self._must("delete", chunk_id)

    def list(self) -> list[str]:
        return self._must("list").splitlines()

    def find(self, dataset: str, block: int) -> str | None:
        """The path that it prints, or None where it says that there is none."""
        done = self.run("find", dataset, block)
        if done.returncode == 3:
            assert done.stdout == ""
            return None
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    def _must(self, *arguments: object, stdin: bytes = b"") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def holding(self, dataset: str, block: int) -> AbstractContextManager[Holder]:
        """A client that holds the chunk; whatever is left of it is killed at the end."""
        return self._holding("hold", dataset, block)

    def acquiring(self, *what: object) -> AbstractContextManager[Holder]:
        """A client that has acquired a chunk, and holds it."""
        return self._holding("acquire", *what)

    @contextmanager
    def _holding(self, *arguments: object) -> Iterator[Holder]:
        with self.begun(*arguments, "--", "sh", "-c", SHELL) as process:
            yield held_by(process)

    @contextmanager
    def begun(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """Start it; whatever is left of it is killed at the end."""
        with begun_apart(self.words(*arguments), env=self.environment) as process:
            yield process

    @contextmanager
    def gated(self, calls: tuple[str, ...], *arguments: object) -> Iterator[Gated]:
        """Call it, stopped at each of these system calls; skips where nothing can be stopped."""
        ours, theirs = socket.socketpair()
        command = gate.command(theirs.fileno(), calls, self.words(*arguments))
        how: dict[str, Any] = {"pass_fds": [theirs.fileno()], "stdin": subprocess.DEVNULL, "env": self.environment}
        with ours, theirs, begun_apart(command, **how) as process:
            theirs.close()
            listener = gate.receive(ours)
            if listener is None:
                pytest.skip("this machine lets no process be stopped at its system calls (seccomp_unotify)")
            try:
                yield Gated(process, listener)
            finally:
                kill_group(process)  # before its stopped calls fail for want of a listener
                os.close(listener)


@dataclass(frozen=True, slots=True)
class Gated:
    """A client behind a gate."""

    process: subprocess.Popen[str]
    listener: int

    def stops(self) -> Iterator[gate.Cancellation]:
        return gate.stops(self.listener)

    def result(self) -> tuple[int, str]:
        """Its exit code and output, once all stops have been gone through; it can be had once."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out


@contextmanager
def claimed(directory: str) -> Iterator[None]:
    """Hold an exclusive lock, as the reconciler takes it."""
    claim = Claim(directory)
    try:
        assert claim.take()
        yield
    finally:
        claim.close()
