"""languages.md: its code is that of the clients, and its commands run."""

import re
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.model.layout import Layout
from tests.support import Source, ran_by_shell
from tests.support.chunks import chunk_dir
from tests.support.indexes import put_index, put_run
from tests.support.pages import ROOT, sections

CLIENTS = ROOT / "tools" / "clients"
BLOCKS = [block for section in sections("languages.md") for block in section.blocks]


@pytest.mark.parametrize(("language", "client"), [("c", "fsdm.c"), ("js", "fsdm.mjs"), ("go", "fsdm.go")])
def test_code_is_from_clients_that_are_tested(language: str, client: str) -> None:
    text = (CLIENTS / client).read_text()
    blocks = [block.text for block in BLOCKS if block.language == language]
    parts = [part for block in blocks for part in re.split(r"\n\n(?=/\*\*)", block.strip())]
    assert parts
    assert [part for part in parts if part not in text] == []


def test_commands_of_the_page_run(tmp_path: Path, source: Source) -> None:
    chunk = source.chunk(start=0, end=10, files=1)
    (tmp_path / "chunk.json").write_bytes(chunk.to_json())
    names = {"FSDM": f"sh {CLIENTS}/fsdm.sh", "FSDM_DATA_DIR": "data", "DATASET": chunk.dataset_id}
    acquire, find, _ = [block.text for block in BLOCKS if block.language == "sh"]
    with DataManager(tmp_path / "data"):
        assert ran_by_shell(acquire, tmp_path, "-eu", **names).stdout == "blocks.parquet\n"
    assert sum(source.asked.values()) == 1
    layout = Layout(tmp_path / "data")
    put_index(layout, chunk.place, [b"\x2a", b"other"])
    put_run(layout, chunk.place)
    assert ran_by_shell(find, tmp_path, "-eu", **names).stdout == f"{chunk_dir(tmp_path / 'data', chunk)}/data\n"
