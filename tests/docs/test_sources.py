"""sources.md: its tables are taken as they stand there, and its rows are the fields of a `Source`."""

import re
from pathlib import Path

import pytest

from fsdm import DataManager, Source
from fsdm.cli.config import parse_config
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import locate
from tests.support import ran_by_shell
from tests.support.pages import PAGES, sections

BLOCKS = {
    language: "\n".join(block.text for section in sections("sources.md") for block in section.of(language))
    for language in ("toml", "sh")
}
PYTHON = [block.text for section in sections("sources.md") for block in section.blocks if block.language == "python"]


def test_tables_of_the_page_can_be_taken_where_their_files_are(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    ran_by_shell(BLOCKS["sh"], tmp_path, "-eu", TOKEN="hush")
    assert (tmp_path / "data" / "lake.token").read_text() == "Authorization: Bearer hush\n"
    for name in ("vault.password", "vault.pem", "vault.key"):
        (tmp_path / "data" / name).touch(0o600)
    for name in ("lake.secret", "minio.secret", "box.sas", "gs.token"):
        (tmp_path / "data" / name).touch(0o600)
        (tmp_path / "data" / name).write_text("Authorization: Bearer hush\n")
    config = parse_config(BLOCKS["toml"].replace("/etc/ssl/", "").encode())
    sources = Sources(config["source"], str(tmp_path / "data"))
    assert sources.bounds_of("https://lake.example/public/x").rate.is_capped
    assert sources.of(locate("s3://here/a")).access.endpoint == "https://minio.example:9000"
    assert sources.bounds_of("https://vault.example:8443/").connections == 4


@pytest.mark.parametrize("text", PYTHON)
def test_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKE_TOKEN", "Bearer hush")
    names: dict[str, object] = {}
    exec(text, names)
    dm = names["dm"]
    assert isinstance(dm, DataManager)
    dm.close()


def test_rows_of_the_page_are_the_fields_of_a_source() -> None:
    rows = re.findall(r"^\| (`.*?) \| (`.*?) \|", PAGES["sources.md"].read_text(encoding="utf-8"), re.MULTILINE)
    keys, fields = (
        [name for cell in column for name in re.findall(r"`(.*?)`", cell)] for column in zip(*rows, strict=True)
    )
    assert fields == ["limit_rate" if field == "bytes_per_s" else field for field in Source.model_fields]
    assert keys == [field.replace("_", "-") for field in fields]
