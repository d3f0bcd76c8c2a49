"""A pytest plugin: on CI, a skip that `expected_skips.toml` does not name fails the run.

Elsewhere a skip says that a tool, a right or a kernel is missing. On CI all of that is to be there, so that a skip is a
test that was lost.
"""

import os
import re
import tomllib
from pathlib import Path

import pytest

EXPECTED = Path(__file__).parents[1] / "expected_skips.toml"


class Skips:
    """The skips of a run that nobody expects."""

    def __init__(self, expected: Path) -> None:
        self._expected = [re.compile(entry["reason"]) for entry in tomllib.loads(expected.read_text())["skip"]]
        self._unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(one.fullmatch(reason.removeprefix("Skipped: ")) for one in self._expected):
            self._unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._unexpected:
            terminalreporter.section(f"skips that {EXPECTED.name} does not name", red=True)
            for one in self._unexpected:
                terminalreporter.line(one)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--expected-skips", metavar="FILE", default=str(EXPECTED), help="fail on CI for any other skip")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(Path(config.getoption("--expected-skips"))))
