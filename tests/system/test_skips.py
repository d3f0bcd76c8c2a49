"""A skip on CI is one that is expected, or it fails the run."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.processes import ran
from tests.support.skips import EXPECTED

REPOSITORY = Path(__file__).parents[2]
TESTS = """\
import pytest

def test_good():
    assert True

@pytest.mark.parametrize("reason", REASONS)
def test_skipped(reason):
    pytest.skip(reason)

@pytest.mark.xfail
def test_that_is_to_fail():
    assert False
"""


@pytest.mark.parametrize(
    ("reasons", "ci", "fails", "workers"),
    [
        (["no 1.5 here"], "true", False, 0),
        (["no 1.5 here", "no tool"], "true", True, 2),
        (["no 1x5 here"], "true", True, 0),
        (["no 1.5 here, no"], "true", True, 0),
        (["no tool"], "", False, 0),
    ],
)
def test_only_expected_skips_pass(tmp_path: Path, reasons: list[str], ci: str, fails: bool, workers: int) -> None:
    (tmp_path / "test_it.py").write_text(TESTS.replace("REASONS", repr(reasons)))
    (tmp_path / "expected.toml").write_text('[[skip]]\nreason = "no 1\\\\.5 here"\nwhy = "of the kernel"\n')
    command = (sys.executable, "-m", "pytest", "-n", workers, "-p", "tests.support.skips", "-p", "no:cacheprovider")
    done = ran(*command, "--expected-skips", "expected.toml", cwd=tmp_path, PYTHONPATH=REPOSITORY, CI=ci)
    assert done.returncode == int(fails), done.stdout
    assert ("skips that expected_skips.toml does not name" in done.stdout) is fails
    assert all((f"Skipped: {reason}" in done.stdout) is fails for reason in reasons if reason != "no 1.5 here")


def test_module_that_is_skipped_as_a_whole_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\npytest.skip('no tool', allow_module_level=True)\n")
    (tmp_path / "test_other.py").write_text("def test_good():\n    assert True\n")
    command = (sys.executable, "-m", "pytest", "-n", 0, "-p", "tests.support.skips", "-p", "no:cacheprovider")
    done = ran(*command, cwd=tmp_path, PYTHONPATH=REPOSITORY, CI="true")
    assert done.returncode == 1
    assert "test_it.py: Skipped: no tool" in done.stdout


def test_each_expected_skip_has_a_reason_and_says_why() -> None:
    entries = tomllib.loads(EXPECTED.read_text())["skip"]
    assert entries
    for entry in entries:
        assert set(entry) == {"reason", "why"}
        re.compile(entry["reason"])
        assert entry["why"].strip()
