"""indexes.md: its tables are taken as they stand there, and its program runs."""

import importlib.util
from pathlib import Path

import pytest

from fsdm import DataManager, Index
from fsdm.cli.config import parse_config
from tests.support import PATIENCE_S, Source, eventually, ran_by_shell
from tests.support.chunks import a_want, chunk_dir
from tests.support.pages import like, sections

SECTIONS = {section.title: section for section in sections("indexes.md")}
FIRST = SECTIONS["Indexes: which chunk holds this key, and where"]


def _spoil_all_but(path: Path, row_group: int) -> None:
    """Overwrite the values of all other row groups of a Parquet file."""
    import pyarrow.parquet as pq

    metadata = pq.ParquetFile(path).metadata
    with path.open("r+b") as file:
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups) if number != row_group):
            for column in (group.column(number) for number in range(group.num_columns)):
                file.seek(column.dictionary_page_offset or column.data_page_offset)
                file.write(b"\xff" * column.total_compressed_size)


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

    table = pa.table({"hash": [f"0x{n:02x}" for n in range(100)], "number": list(range(100))})
    pq.write_table(table, tmp_path / "blocks.parquet", row_group_size=10)
    url = source.put("/blocks.parquet", (tmp_path / "blocks.parquet").read_bytes())
    chunk = a_want(block_range=(0, 100), files={"blocks.parquet": url})
    pages = [SECTIONS[title] for title in ("Reading one", "Finding the chunks of a key")]
    if all(map(importlib.util.find_spec, ("duckdb", "polars"))):  # of the extra `recipes` as well
        pages.append(SECTIONS["The row of a key, and little else"])
    shown = "".join(block.text for page in pages for block in page.of("text"))
    with DataManager(tmp_path / "data", indexes=[Index(name="hash", indexer="parquet:hash")]) as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        with dm.find_chunk(chunk.dataset_id, 42) or pytest.fail("it is not here") as ref:
            eventually(lambda: ref.index("hash") is not None)
        eventually(lambda: (tmp_path / "data" / "index" / "hash").exists() and any(dm.find_key("hash", b"0x2a")))
        for block in (block for page in pages for block in page.of("python")):
            exec(block.text, {"dm": dm, "DATASET": chunk.dataset_id})
        assert like(shown).fullmatch(capsys.readouterr().out)
        if len(pages) == 3:  # once more, where nothing can be read but the row group that is named
            _spoil_all_but(chunk_dir(tmp_path / "data", chunk) / "data" / "blocks.parquet", 4)
            [block] = pages[2].of("python")
            exec(block.text, {"dm": dm, "DATASET": chunk.dataset_id})
            assert capsys.readouterr().out == pages[2].of("text")[0].text
        finds, acquires = (block.text for block in pages[1].of("sh"))
        held = ran_by_shell(acquires, tmp_path, "-eu").stdout
        assert held == f"{chunk_dir(tmp_path / 'data', chunk)}/data\n"
        printed = ran_by_shell(finds, tmp_path, "-eu").stdout
        assert printed.startswith(f"{tmp_path}/data/chunks/{chunk.dataset_id}/")
        assert '"row_group": 4, "row": 2' in printed
