"""cache.md: what it shows runs as it stands there."""

import contextlib
import io
from pathlib import Path

from fsdm import DataManager
from tests.support import ran_by_shell
from tests.support.pages import sections
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S

BLOCKS = [block for section in sections("cache.md") for block in section.blocks]
PYTHON = [block.text for block in BLOCKS if block.language == "python"]
SHELL = [block.text for block in BLOCKS if block.language == "sh"]


def test_python_of_the_page_runs(dm: DataManager, source: Source) -> None:
    chunk = source.chunk(start=10, end=20, files=1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for text in PYTHON:
            exec(text, {"dm": dm, "chunk": chunk})
    assert said.getvalue() == "['blocks.parquet']\n", "what was used within the hour is not evicted"
    assert dm.list_chunks() == [chunk.id]


def test_shell_of_the_page_runs(tmp_path: Path, dm: DataManager, source: Source) -> None:
    assert str(dm.layout.root) == str(tmp_path / "data")
    chunk = source.chunk(start=10, end=20, files=1)
    dm.register(chunk)
    (text,) = SHELL
    done = ran_by_shell(text, tmp_path, "-eu", DATASET=chunk.dataset_id, ID=chunk.id)
    assert done.stdout == f"blocks.parquet\n{chunk.id}\tavailable\n", done.stderr
    assert dm.wait(chunk.id, PATIENCE_S)
    assert sum(source.asked.values()) == 1
