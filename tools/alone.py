"""Run drawn tests alone, each in a process of its own: one that leans on what another left behind fails here.

    python -m pytest -n auto -p tools.mutate.recorder --mutate-map .mutate
    python -m tools.alone --map .mutate --draw 20 --seed "$(git rev-parse HEAD)"

Only tests that passed, and quickly, are drawn. The exit code is 1 where one fails alone.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.mutate.recorder import recorded_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def drawn(tests: Iterable[str], count: int, seed: str) -> list[str]:
    """Draw so many tests by the seed."""
    return sorted(tests, key=lambda test: hashlib.sha256(f"{seed}\n{test}".encode()).digest())[:count]


def fails_alone(root: Path, test: str) -> str:
    """Run one test; return what is said where it fails, or is not there any more."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", test]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return "" if done.returncode == pytest.ExitCode.OK else done.stdout + done.stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests that are drawn; return 1 where one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.alone", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--map", required=True, metavar="DIR", help="the recorded tests")
    parser.add_argument("--root", default=".", metavar="DIR", help="the project")
    parser.add_argument("--draw", type=int, default=20, metavar="N", help="run so many (20)")
    parser.add_argument("--seed", default="", metavar="TEXT", help="the same text draws the same tests")
    parser.add_argument("--test-s", type=float, default=1.0, metavar="S", help="of those that took at most this (1)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="tests at a time (2)")
    asked = parser.parse_args(arguments)
    quick = [test for test, seconds in recorded_seconds(Path(asked.map)).items() if seconds <= asked.test_s]
    if not quick:
        sys.exit(f"{asked.map} has no quick test: record a map with pytest's --mutate-map")
    tests = drawn(quick, asked.draw, asked.seed)
    failed = 0
    with ThreadPoolExecutor(asked.workers) as workers:
        for test, said in zip(tests, workers.map(lambda test: fails_alone(Path(asked.root), test), tests), strict=True):
            if said:
                failed += 1
                print(f"it fails alone: {test}", said, sep="\n", flush=True)
    print(f"{len(tests)} tests alone, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
