"""The README is run as it stands: by copy and paste."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fsdm.verbs import VERBS
from tests.kit import an_id, content, entries

if TYPE_CHECKING:
    from tests.kit import Source

README = (Path(__file__).parent.parent / "README.md").read_text()


def _block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_python_example_runs_and_leaves_nothing(
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


def test_the_shell_example_runs(source: Source, tmp_path: Path) -> None:
    for name in ("block", "log"):
        source.put(f"/{name}.parquet", content(name, 3000))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ID": an_id(),
        "DATASET": "d" * 64,
        "SOURCE": source.url,
    }
    script = "set -em\n" + _block("sh") + "wait\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("blocks.parquet") == 3  # in READY, under flock(1), and under `fsdm hold`
    assert f"{environment['ID']}\tavailable" in done.stdout
    assert "deleted" in done.stderr
    assert "no chunks; reconciler: " in done.stderr


@pytest.mark.parametrize(("language", "client"), [("c", "fsdm.c"), ("js", "fsdm.mjs")])
def test_the_examples_in_other_languages_are_from_clients_that_are_tested(language: str, client: str) -> None:
    text = (Path(__file__).parent.parent / "tools" / "clients" / client).read_text()
    parts = re.split(r"\n\n(?=/\*\*)", _block(language).strip())
    assert [part for part in parts if part not in text] == []


def test_the_readme_names_every_verb_and_the_two_commands() -> None:
    verbs = re.search(r"`fsdm ((?:[a-z]+ \| )+[a-z]+)`", README)
    assert verbs is not None
    assert set(verbs[1].split(" | ")) == set(VERBS)
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert "python -m pytest -n auto" in README
    assert "python -m pytest -n auto" in ci
