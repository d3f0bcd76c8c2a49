"""A pytest plugin: which test runs through which line; and runs of the tests that are picked for one mutant.

Invariants. A test is in the map only where it passed. What runs at an import belongs to no test. With `--mutate-picked`
only the tests of that file run, in its order, and the first that fails is named in the file `….caught`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from tools.mutate.probes import Lines, Probes

if TYPE_CHECKING:
    from collections.abc import Generator

LINES: Final = "lines."  # a file of each process: its probes, and those that each test has reached
SECONDS: Final = "seconds."  # and one that says how long each test took, and whether it passed
TO_WORKERS: Final = "FSDM_MUTATE_PROBES"  # in the environment of those that pytest-xdist starts
PLUGINS: Final = "PYTEST_PLUGINS"

_PROBES: Final = pytest.StashKey[Probes]()


def recorded_seconds(directory: Path) -> dict[str, float]:
    """Return the tests of a map, which passed, and how long each took, in seconds."""
    found: dict[str, float] = {}
    for path in sorted(directory.glob(f"{SECONDS}*")):
        found |= json.loads(path.read_text())
    return found


def recorded_lines(directory: Path) -> dict[str, dict[int, set[str]]]:
    """Return the tests of a map, by the module and the line of a statement that they run."""
    found: dict[str, dict[int, set[str]]] = {}
    for path in sorted(directory.glob(f"{LINES}*")):
        record = json.loads(path.read_text())
        for test, hits in record["tests"].items():
            for module, line in (record["places"][hit] for hit in hits):
                found.setdefault(module, {}).setdefault(line, set()).add(test)
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this plugin's options to those of pytest."""
    group = parser.getgroup("mutate", "mutants")
    group.addoption("--mutate-map", metavar="DIR", help="record the lines of each test, into this directory")
    group.addoption("--mutate-lines", metavar="FILE", help="only these, as `python -m tools.mutate --lines` has them")
    group.addoption("--mutate-of", metavar="PATH", action="append", help="only those of the tests below it")
    group.addoption("--mutate-package", metavar="PATH", default="fsdm", help="the package whose lines are recorded")
    group.addoption("--mutate-picked", metavar="FILE", help="run the tests that this file names, in its order")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Plant the probes before anything imports the package.

    A worker of pytest-xdist imports this plugin too late, unless its environment says so; what the tests start is not
    to have that.
    """
    asked = early_config.known_args_namespace
    told = os.environ.pop(TO_WORKERS, None)
    if told is not None:
        del os.environ[PLUGINS]
        _plant(early_config, *json.loads(told))
    elif asked.mutate_map:
        lines = json.loads(Path(asked.mutate_lines).read_text()) if asked.mutate_lines else None
        _plant(early_config, str(early_config.rootpath), asked.mutate_package, lines)
        if asked.numprocesses:
            os.environ[TO_WORKERS] = json.dumps([str(early_config.rootpath), asked.mutate_package, lines])
            os.environ[PLUGINS] = __name__


def _plant(config: pytest.Config, root: str, package: str, lines: Lines | None) -> None:
    config.stash[_PROBES] = probes = Probes(Path(root), package, lines)
    probes.install()


def pytest_configure(config: pytest.Config) -> None:
    """Have a recorder, or a picker, as asked."""
    if config.getoption("mutate_map"):
        config.pluginmanager.register(_Recorder(config, config.stash[_PROBES]))
    if config.getoption("mutate_picked"):
        config.pluginmanager.register(_Picker(Path(config.getoption("mutate_picked"))))


class _Recorder:
    def __init__(self, config: pytest.Config, probes: Probes) -> None:
        self._dir = Path(config.getoption("mutate_map")).resolve()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._of = tuple(config.getoption("mutate_of") or [""])
        self._probes = probes
        self._hits: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """Record one test."""
        if not item.nodeid.startswith(self._of):
            return (yield)
        hits = self._probes.hits()
        try:
            return (yield)
        finally:
            self._hits[item.nodeid] = sorted(hits)
            self._probes.hits()  # of nobody, until the next test

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test took to set up, to run and to end."""
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was recorded; the process that only hands out the tests has nothing."""
        passed = self._hits.keys() - self._failed
        if not passed:
            return
        process = uuid4().hex
        record = {"places": self._probes.places, "tests": {test: self._hits[test] for test in passed}}
        (self._dir / f"{LINES}{process}").write_text(json.dumps(record))
        (self._dir / f"{SECONDS}{process}").write_text(json.dumps({test: self._seconds[test] for test in passed}))


class _Picker:
    def __init__(self, picked: Path) -> None:
        self._turn = {test: turn for turn, test in enumerate(picked.read_text().splitlines())}
        self._caught = picked.with_suffix(".caught")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave only those that are picked; one that is not there any more is not missed."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._turn), key=lambda item: self._turn[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first test that fails."""
        if report.failed and not self._caught.exists():
            self._caught.write_text(report.nodeid)
