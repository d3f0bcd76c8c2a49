"""The README is run as it stands: by copy and paste."""

import hashlib
import re
from pathlib import Path

import pytest

from fsdm.cli.commands import VERBS
from tests.support import Source, ran_by_shell
from tests.support.chunks import an_id, content, entries
from tests.support.pages import PAGES, ROOT, Section, like, played, sections, transcript

README = PAGES["README.md"].read_text(encoding="utf-8")

PAGE = sections("README.md")


def _block(language: str, page: list[Section] = PAGE) -> str:
    [found] = [block for section in page for block in section.of(language)]
    return found.text


def test_python_example_runs_and_leaves_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    log = content("log", 5000)
    source.put("/block.parquet", content("block", 3000))
    source.put("/log.parquet", log)
    names = {"SOURCE": source.url, "LOG_SIZE": len(log), "LOG_SHA256": hashlib.sha256(log).hexdigest()}
    exec(compile(_block("python"), "README.md", "exec"), names)  # the README's own code
    listed, held, left = capsys.readouterr().out.splitlines()
    assert listed == repr(["11" * 32])
    assert "blocks.parquet" in held
    assert "logs.parquet" in held
    assert left == "{}"
    assert entries(tmp_path / "data" / "want") == entries(tmp_path / "data" / "delete") == []


def test_shell_example_runs(source: Source, tmp_path: Path) -> None:
    for name in ("block", "log"):
        source.put(f"/{name}.parquet", content(name, 3000))
    chunk_id = an_id()
    script = _block("sh") + "wait\n"
    done = ran_by_shell(script, tmp_path, "-em", ID=chunk_id, DATASET="d" * 64, SOURCE=source.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("blocks.parquet") == 3  # in READY, under flock(1), and under `fsdm hold`
    assert f"{chunk_id}\tavailable" in done.stdout
    assert "deleted" in done.stderr
    assert "no chunks; reconciler: " in done.stderr


def test_five_minutes_show_what_is_printed(source: Source, tmp_path: Path) -> None:
    for name in ("block", "log"):
        source.put(f"/{name}.parquet", content(name, 3000))
    [tour] = [section for section in PAGE if section.title == "Five minutes"]
    steps = transcript(tour.of("console"))
    names = {"ID": "1" * 64, "DATASET": "d" * 64, "SOURCE": source.url, "LC_ALL": "C.UTF-8", "COLUMNS": "80"}
    done = ran_by_shell(played(steps), tmp_path, **names)
    *printed, rest = done.stdout.split("\x1e")
    assert done.stderr + rest == ""
    assert len(printed) == len(steps)
    for (command, shown), text in zip(steps, printed, strict=True):
        assert like(shown).fullmatch(text), f"$ {command}{text}"
    assert len(steps) > 8


def test_readme_names_every_verb_with_its_purpose() -> None:
    rows = re.findall(r"^\| `fsdm (\w+)` \| (.+) \|$", README, re.MULTILINE)
    assert sorted(row for row in rows if row[0] != "protocol" or "](" not in row[1]) == sorted(VERBS.items())


def test_two_commands_are_those_that_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert "python -m pytest -n auto" in README
    assert "python -m pytest -n auto" in ci


@pytest.mark.parametrize("page", PAGES)
def test_link_to_another_page_leads_there(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page].read_text(encoding="utf-8"))
    assert [link for link in links if not (PAGES[page].parent / link).exists()] == []
    assert page != "README.md" or {Path(link).name for link in links} == set(PAGES) - {"README.md"}
