"""habits.md: its list of URLs becomes chunks, its table is taken, and it names what there is."""

from pathlib import Path

import pytest

from fsdm import Client
from fsdm.cli.config import parse_config
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import locate
from tests.support import Source, fsdm, ran_by_shell
from tests.support.chunks import content
from tests.support.pages import PAGES, sections

SECTIONS = {section.title: section for section in sections("habits.md")}
[LIST] = SECTIONS["From aria2"].of("sh")
[TABLE] = SECTIONS["From hf"].of("toml")


def test_list_of_urls_becomes_chunks(data_dir: Path, tmp_path: Path, source: Source) -> None:
    urls = [source.put(f"/in/{name}", content(name)) for name in ("a.parquet", "b.parquet")]
    (tmp_path / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
    assert fsdm("run", "--once", "-d", data_dir).returncode == 0
    done = ran_by_shell(LIST.text, tmp_path, "-eu")
    assert done.returncode == 0, done.stderr
    assert fsdm("run", "--once", "-d", data_dir).returncode == 0
    with Client(data_dir) as client:
        [dataset] = {place.dataset_id for place in client.available_places()}
        for block, name in enumerate(("a.parquet", "b.parquet")):
            with client.hold_chunk(dataset, block) as ref:
                assert (ref.path / name).read_bytes() == content(name)


def test_table_of_the_page_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_AUTHORIZATION", "Bearer hf_hush")
    [source] = parse_config(TABLE.text.encode())["source"]
    assert Sources([source], str(tmp_path)).of(locate("https://huggingface.co/gpt2/resolve/main/a")) is not None


def test_pages_that_it_names_are_there() -> None:
    text = PAGES["habits.md"].read_text(encoding="utf-8")
    assert {f"({page})" for page in PAGES if f"({page})" in text} >= {"(cache.md)", "(credentials.md)", "(sources.md)"}
