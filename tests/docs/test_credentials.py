"""credentials.md: each of its tables is taken as it stands, and its token opens a server that wants one."""

from pathlib import Path

import pytest

from fsdm.cli.config import parse_config
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.http.target import locate
from tests.support import Fault, Source, fsdm, ran_by_shell
from tests.support.chunks import put_want
from tests.support.pages import PAGES, sections

SECTIONS = {section.title: section for section in sections("credentials.md")}
TOML = [block.text for section in SECTIONS.values() for block in section.of("toml")]
[TOKEN] = SECTIONS["A token"].of("toml")
[WRITTEN] = SECTIONS["A token"].of("sh")


@pytest.mark.parametrize("text", TOML)
def test_table_of_the_page_is_taken(tmp_path: Path, text: str) -> None:
    for name in ("lake.token", "vault.password", "inside-ca.pem", "me.pem", "me.key"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text("Authorization: hush\n")
    [source] = parse_config(text.encode())["source"]
    assert Sources([source], str(tmp_path)).of(locate(f"{source.match}file")) is not None


class Locked(Source):
    """Gives its files to who has the token."""

    def fault_for(self, path: str, data: bytes) -> Fault:
        return Fault(status=401 if self.heads[path][-1].get("Authorization") != "Bearer hush" else 200)


def test_token_of_the_page_mends_a_401(data_dir: Path, tmp_path: Path) -> None:
    with Locked() as source:
        assert fsdm("run", "--once", "-d", data_dir).returncode == 0
        chunk = put_want(data_dir, source.chunk(files=1))
        assert fsdm("run", "--once", "-d", data_dir).returncode == 4
        assert "fsdm docs credentials" in fsdm("explain", "-d", data_dir, chunk.id).stdout
        (data_dir / "config.toml").write_text(TOKEN.text.replace("https://lake.example", source.url))
        assert ran_by_shell(WRITTEN.text, tmp_path, "-eu", TOKEN="hush").returncode == 0
        fsdm("retry", "-d", data_dir, chunk.id)
        assert fsdm("run", "--once", "-d", data_dir).returncode == 0
    assert fsdm("docs", "credentials").stdout == PAGES["credentials.md"].read_text(encoding="utf-8")
