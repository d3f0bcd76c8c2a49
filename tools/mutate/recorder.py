"""A pytest plugin: which test runs through which line; and runs of the tests that are picked for one mutant.

Invariants. A test is in the map only where it passed. What runs at an import belongs to no test. With `--mutate-picked`
only the tests of that file run, in its order, and the first that fails is named in the file `….caught`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

LINES: Final = "lines."  # a file of coverage for each process
SECONDS: Final = "seconds."  # and one that says how long each test took, and whether it passed


def recorded_seconds(directory: Path) -> dict[str, float]:
    """Return the tests of a map, which passed, and how long each took, in seconds."""
    found: dict[str, float] = {}
    for path in sorted(directory.glob(f"{SECONDS}*")):
        found |= json.loads(path.read_text())
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this plugin's options to those of pytest."""
    group = parser.getgroup("mutate", "mutants")
    group.addoption("--mutate-map", metavar="DIR", help="record the lines of each test, into this directory")
    group.addoption("--mutate-of", metavar="PATH", action="append", help="only those of the tests below it")
    group.addoption("--mutate-package", metavar="PATH", default="fsdm", help="the package whose lines are recorded")
    group.addoption("--mutate-picked", metavar="FILE", help="run the tests that this file names, in its order")


def pytest_configure(config: pytest.Config) -> None:
    """Have a recorder, or a picker, as asked."""
    if config.getoption("mutate_map"):
        config.pluginmanager.register(_Recorder(config))
    if config.getoption("mutate_picked"):
        config.pluginmanager.register(_Picker(Path(config.getoption("mutate_picked"))))


class _Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self._dir = Path(config.getoption("mutate_map")).resolve()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._of = tuple(config.getoption("mutate_of") or [""])
        self._package = config.getoption("mutate_package")
        self._process = uuid4().hex
        self._coverage: coverage.Coverage | None = None
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """Record one test."""
        if not item.nodeid.startswith(self._of):
            return (yield)
        if self._coverage is None:
            include = f"{self._package}/*"
            path = str(self._dir / f"{LINES}{self._process}")
            self._coverage = coverage.Coverage(path, config_file=False, include=include, messages=False)
            self._coverage.set_option("run:disable_warnings", ["trace-changed", "no-data-collected"])
        self._coverage.start()
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.stop()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test took to set up, to run and to end."""
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was recorded; the process that only hands out the tests has nothing."""
        if self._coverage is not None:
            self._coverage.save()
            passed = {test: seconds for test, seconds in self._seconds.items() if test not in self._failed}
            (self._dir / f"{SECONDS}{self._process}").write_text(json.dumps(passed))


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
