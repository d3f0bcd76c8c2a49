"""The command line stays fast: what is heavy is loaded where it is used; what a process takes of a core is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fsdm.cli.commands import VERBS
from fsdm.model.layout import Layout, Place
from tests.support.chunks import an_id

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {
    "asyncio",
    "blake3",
    "prometheus_client",
    "pydantic",
    "requests",
    "rich",
    "shtab",
    "ssl",
    "urllib3",
    "watchdog",
}


def _loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules, file=sys.stderr)"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return set(done.stderr.splitlines()[-1].split())


def test_the_help_of_no_verb_loads_what_is_heavy() -> None:
    loaded = _loaded("from fsdm.cli.main import build_parser; build_parser().format_help()")
    assert {f"fsdm.cli.commands.{name}" for name in VERBS} <= loaded
    assert loaded & HEAVY == set()


def test_the_package_by_itself_loads_nothing() -> None:
    assert {name for name in _loaded("import fsdm") if name.startswith("fsdm")} == {"fsdm"}
    assert "pydantic" in _loaded("import fsdm; fsdm.DataChunk")


def _cpu_s(*arguments: str) -> float:
    """What a whole process takes of a core; the clock on the wall says how busy the machine is."""
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "fsdm", *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_take_a_tenth_of_a_second_of_a_core_at_most(argument: str) -> None:
    assert min(_cpu_s(argument) for _ in range(10)) <= 0.1


def test_a_list_of_5000_takes_a_quarter_of_a_second_of_a_core_at_most(layout: Layout, data_dir: Path) -> None:
    for start in range(5000):
        path = layout.path(Place.of("d" * 64, range(start, start + 1), an_id()))
        os.makedirs(path)
        os.close(os.open(f"{path}/READY", os.O_CREAT | os.O_WRONLY))
    assert min(_cpu_s("ls", "-d", str(data_dir)) for _ in range(7)) <= 0.25
