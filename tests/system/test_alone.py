"""Tests that are run alone: one that leans on its neighbour is found, and one that does not passes."""

import json
from pathlib import Path

import pytest

from tools.alone import drawn, main

LEANS = """\
STATE = []

def test_first() -> None:
    STATE.append(1)

def test_second() -> None:
    assert STATE == [1]
"""


def alone(project: Path, seconds: dict[str, float], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    (project / "map").mkdir()
    (project / "map/seconds.1").write_text(json.dumps(seconds))
    return main(["--root", str(project), "--map", str(project / "map")]), capsys.readouterr().out


def test_one_that_leans_on_another_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_them.py").write_text(LEANS)
    names = ("test_them.py::test_first", "test_them.py::test_second", "test_them.py::test_slow")
    code, told = alone(tmp_path, dict(zip(names, (0.1, 1.0, 1.1), strict=True)), capsys)
    assert code == 1
    failed = [line for line in told.splitlines() if "fails alone" in line]
    assert failed == ["it fails alone: test_them.py::test_second"]
    assert "assert [] == [1]" in told
    assert told.endswith("2 tests alone, 1 failed\n")


def test_one_that_leans_on_none_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_them.py").write_text(LEANS)
    assert alone(tmp_path, {"test_them.py::test_first": 0.1}, capsys) == (0, "1 tests alone, 0 failed\n")


def test_without_a_quick_test_nothing_is_said_to_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="has no quick test"):
        alone(tmp_path, {"test_them.py::test_slow": 5.0}, capsys)


def test_another_seed_draws_others() -> None:
    every = [str(number) for number in range(100)]
    assert drawn(every, 5, "a") == drawn(every[::-1], 5, "a")
    assert drawn(every, 5, "a") != drawn(every, 5, "b")
