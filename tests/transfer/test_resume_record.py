"""What an attempt that did not end leaves in `partial/ID/PARTS`, and how the next one reads it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fsdm.model.documents import FileSource
from fsdm.model.errors import TransferError
from fsdm.model.parts import Extent, PartRecord
from fsdm.store.filesystem import FileSystem
from fsdm.transfer import resume_record as parts_module
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.resume_record import Parts, boot_id, url_mark
from tests.support import Source, expected
from tests.support.chunks import files_of
from tests.support.servers import fetch_all

pytestmark = pytest.mark.usefixtures("transport")

RECORD = PartRecord(url=url_mark("http://h/a"), validator='"a"', total=10, size=5, blake3=blake3(b"12345").hexdigest())


@pytest.fixture(autouse=True)
def _boots() -> Any:
    yield
    boot_id.cache_clear()


def reboot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None) -> None:
    if name is not None:
        (tmp_path / "boot_id").write_text(name + "\n")
    monkeypatch.setattr(parts_module, "BOOT_ID", f"{tmp_path}/boot_id")
    boot_id.cache_clear()


def parts_in(directory: Path, *names: str) -> Parts:
    return Parts(str(directory), names, FileSystem())


def test_what_was_saved_is_read_again_for_the_names_that_are_wanted(tmp_path: Path) -> None:
    parts = parts_in(tmp_path, "a", "b", "c")
    parts.of("a").record = parts.of("b").record = RECORD
    parts.save()
    again = parts_in(tmp_path, "a", "d")
    assert again.of("a").record == RECORD
    assert again.of("a").same_boot
    assert again.of("a").path == f"{tmp_path}/data/a"
    assert again.of("d").record is None
    with pytest.raises(KeyError):
        again.of("b")


@pytest.mark.parametrize(("before", "after"), [("one", "two"), (None, "one"), ("one", None), (None, None)])
def test_a_record_of_another_boot_or_of_an_unknown_one_is_known_to_be_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str | None
) -> None:
    (tmp_path / "partial").mkdir()
    reboot(monkeypatch, tmp_path, before)
    parts = parts_in(tmp_path / "partial", "a")
    parts.of("a").record = RECORD
    parts.save()
    (tmp_path / "boot_id").unlink(missing_ok=True)
    reboot(monkeypatch, tmp_path, after)
    again = parts_in(tmp_path / "partial", "a").of("a")
    assert again.record == RECORD
    assert not again.same_boot


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"files": 1}', b'{"files": {"a": {}}}', b'{"boot_id": 7, "files": {}}', b"\xff", b"x" * 100],
)
def test_a_document_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "PARTS").write_bytes(text)
    assert parts_in(tmp_path, "a").of("a").record is None


def test_record_of_an_older_or_a_newer_program_is_read(tmp_path: Path) -> None:
    parts = parts_in(tmp_path, "a")
    parts.of("a").record = replace(RECORD, size=1, holes=True, extents=(Extent(3, 4, RECORD.url),))
    parts.save()
    document = json.loads((tmp_path / "PARTS").read_bytes())
    (record,) = document["files"].values()
    extents = record.pop("extents")
    (tmp_path / "PARTS").write_text(json.dumps(document))
    assert parts_in(tmp_path, "a").of("a").record == replace(RECORD, size=1, holes=True)
    record["extents"], record["new"] = [{**extents[0], "new": 1}], {"of": "a newer one"}
    (tmp_path / "PARTS").write_text(json.dumps(document))
    assert parts_in(tmp_path, "a").of("a").record == parts.of("a").record


def test_a_document_is_not_read_through_a_symlink(tmp_path: Path) -> None:
    parts = parts_in(tmp_path, "a")
    parts.of("a").record = RECORD
    parts.save()
    (tmp_path / "PARTS").rename(tmp_path / "elsewhere")
    (tmp_path / "PARTS").symlink_to(tmp_path / "elsewhere")
    assert parts_in(tmp_path, "a").of("a").record is None


def test_a_url_is_told_from_another_one_by_what_is_asked_for() -> None:
    assert url_mark("http://h/a#x") == url_mark("http://h/a")
    assert len({url_mark(url) for url in ("http://h/a", "http://h/b", "https://h/a", "http://h/a?x")}) == 4
    assert len({url_mark(url) for url in ("s3://h/a", "s3://h/a#x", "s3://h/a#y")}) == 3, "a key may have a # in it"


# ----------------------------------------------------------------------------------------------------- of whole chunks


def test_the_files_that_came_are_kept_when_another_one_fails(source: Source, tmp_path: Path) -> None:
    chunk = source.chunk(files=3, size=2000)
    bare = {name: FileSource(url=file.url) for name, file in chunk.files.items()}  # nothing proves them but the record
    chunk = chunk.model_copy(update={"files": bare})
    broken = f"/{chunk.id}/traces.parquet"
    source.fault(broken, cut_at=500)
    with pytest.raises(TransferError, match=r"traces\.parquet"):
        fetch_all(HttpFetcher(), tmp_path, None, chunk=chunk)
    document = json.loads((tmp_path / "partial" / "PARTS").read_bytes())
    assert document["boot_id"] == boot_id()
    assert {name: (record["size"], record["complete"]) for name, record in document["files"].items()} == {
        "blocks.parquet": (2000, True),
        "logs.parquet": (2000, True),
        "traces.parquet": (500, False),
    }
    del source.faults[broken]
    asked = source.asked.copy()
    manifest = fetch_all(HttpFetcher(), tmp_path, None, chunk=chunk)
    assert source.asked - asked == {broken: 1}
    assert source.heads[broken][-1]["Range"] == "bytes=500-"
    assert files_of(tmp_path / "partial" / "data") == expected(chunk, source)
    assert manifest.satisfies(chunk)


def test_what_is_no_longer_wanted_goes_and_what_is_wanted_from_elsewhere_is_fetched(
    source: Source, tmp_path: Path
) -> None:
    chunk = source.chunk(files=3, size=2000)
    source.fault(f"/{chunk.id}/traces.parquet", status=503)
    with pytest.raises(TransferError, match="HTTP 503"):
        fetch_all(HttpFetcher(), tmp_path, None, chunk=chunk)
    other = source.put("/other", b"other bytes")
    changed = chunk.model_copy(update={"files": {"logs.parquet": FileSource(url=other)}})
    fetch_all(HttpFetcher(), tmp_path, None, chunk=changed)
    assert files_of(tmp_path / "partial" / "data") == {"logs.parquet": b"other bytes"}
