"""indexes.md: its tables are taken as they stand there, and its program runs."""

from pathlib import Path

import pytest

from fsdm import DataManager, Index
from fsdm.cli.config import parse_config
from tests.support import PATIENCE_S, Source, eventually
from tests.support.chunks import a_want
from tests.support.pages import like, sections

SECTIONS = {section.title: section for section in sections("indexes.md")}
FIRST = SECTIONS["Indexes: which chunk holds this key, and where"]


def test_table_of_the_page_can_be_taken() -> None:
    [toml] = FIRST.of("toml")
    config = parse_config(toml.text.encode())
    assert [index.name for index in config["index"]] == ["tx", "cid"]
    assert config["index_jobs"] == 2


def test_python_of_the_page_runs_and_prints_what_it_shows(
    tmp_path: Path, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is in the extra `recipes`")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"hash": [f"0x{n:02x}" for n in range(100)]}), tmp_path / "blocks.parquet")
    url = source.put("/blocks.parquet", (tmp_path / "blocks.parquet").read_bytes())
    chunk = a_want(block_range=(0, 100), files={"blocks.parquet": url})
    section = SECTIONS["Reading one"]
    [python], [shown] = section.of("python"), section.of("text")
    with DataManager(tmp_path / "data", indexes=[Index(name="hash", indexer="parquet:hash")]) as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        with dm.find_chunk(chunk.dataset_id, 42) or pytest.fail("it is not here") as ref:
            eventually(lambda: ref.index("hash") is not None)
        exec(python.text, {"dm": dm, "DATASET": chunk.dataset_id})
    assert like(shown.text).fullmatch(capsys.readouterr().out)
