"""The page for contributors: its verb is added, its commands run, its suites are there."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ran
from tests.support.pages import PAGES, ROOT, sections

PAGE = {section.title: section for section in sections("contributing.md")}
SUITES = re.findall(r"^\| .*? \| `(.*?)` \|", PAGE["The suites"].text, re.MULTILINE)


def _python(at: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ran(sys.executable, *arguments, cwd=at)


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """A copy of the sources, to change."""
    for name in ("fsdm", "tests", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_verb_of_the_page_can_be_added_as_the_page_says(fork: Path) -> None:
    for block in PAGE["Adding a verb"].of("python"):
        if file := block.says("file"):
            (fork / file).write_text(block.text)
        else:
            table = fork / str(block.says("line"))
            head, brace, tail = table.read_text().rpartition("}\n")
            table.write_text(head + block.text + brace + tail)
    done = _python(fork, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_count.py")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = _python(fork, "-m", "fsdm", "count", "--help").stdout
    assert "--at-least N" in shown
    assert "fsdm count -d data" in shown
    assert ".SS fsdm count" in _python(fork, "-m", "fsdm", "man").stdout
    rules = ("tests/system/test_architecture.py",)
    done = _python(fork, "-m", "pytest", "-q", "-p", "no:cacheprovider", *rules)
    assert done.returncode == 0, done.stdout
    for check in (["ruff", "check"], ["ruff", "format", "--check"]):
        pytest.importorskip("ruff", reason="ruff is in the extra `dev`")
        done = _python(fork, "-m", *check, "fsdm/cli/commands/count.py", "tests/test_count.py")
        assert done.returncode == 0, done.stdout


def test_case_of_the_page_can_be_added_as_the_page_says(fork: Path) -> None:
    [block] = PAGE["Adding a case"].of("python")
    table = fork / str(block.says("row"))
    head, brace, tail = table.read_text().partition("\n}\n")
    table.write_text(f"{head}\n{block.text}{brace[1:]}{tail}")
    [words] = re.findall(r"^    python (-m pytest .*)$", PAGE["Adding a case"].text, re.MULTILINE)
    done = _python(fork, *shlex.split(words), "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_what_is_to_be_run_before_a_commit_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for block in PAGE["Beginning"].of("sh"):
        assert block.how == ("once",)
    [_, before] = PAGE["Beginning"].of("sh")
    for command in before.text.strip().split(" && "):
        as_in_ci = re.escape(command).replace("format", "format --check")
        assert re.search(rf"^{as_in_ci}( --dist worksteal --durations \d+ .+)?$", ci, re.MULTILINE), command
    assert "'.[dev]'" in ci


@pytest.mark.parametrize("suite", SUITES)
def test_suite_of_the_page_is_there(suite: str) -> None:
    words = [word for word in shlex.split(suite) if "=" not in word]
    assert words.pop(0) == "python"
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
        return
    done = _python(ROOT, *words, "--help")
    assert done.returncode == 0, done.stderr


def test_tables_of_the_page_are_there() -> None:
    rows = re.findall(r"^\|.*\| `(\w+)` in `(tests/[\w/.]+)` \|$", PAGES["contributing.md"].read_text(), re.MULTILINE)
    assert len(rows) >= 9
    for name, where in rows:
        files = [ROOT / where] if where.endswith(".py") else sorted((ROOT / where).glob("*.py"))
        defined = rf"^(class |def )?{name}\b.*[:=({{]"
        assert any(re.search(defined, file.read_text(), re.MULTILINE) for file in files), (name, where)


def test_every_python_tool_that_has_a_command_of_its_own_is_on_the_page() -> None:
    tools = {path.parent.name for path in (ROOT / "tools").glob("*/__main__.py")}
    tools |= {path.stem for path in (ROOT / "tools").glob("*.py") if path.stem != "__init__"}
    text = PAGES["contributing.md"].read_text()
    assert len(tools) >= 4
    assert {tool for tool in tools if f"python -m tools.{tool}" not in text} == set()


def test_changelog_has_the_version_that_this_is() -> None:
    titles = [section.title for section in sections("CHANGELOG.md") if section.level == 2]
    assert titles[0] == "[Unreleased]"
    scm = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
    assert f"[{scm['fallback_version']}]" in titles[1]
