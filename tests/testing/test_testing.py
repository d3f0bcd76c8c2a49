"""Chunks for the tests of others: as if they had been downloaded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm import (
    ChunkFailedError,
    DataManager,
    InvalidInputError,
    NotAvailableError,
    ReconcilerRunsError,
    TransferError,
)
from fsdm.testing import ChunkDirectory, StubFetcher
from tests.support import PATIENCE_S, fsdm
from tests.support.chunks import a_want, an_id, files_of

pytest_plugins = ("fsdm.testing.plugin",)

DATASET = "d" * 64
FILES = {"a": b"one", "b": b""}


@pytest.fixture
def held(fsdm_dir: ChunkDirectory) -> Iterator[DataManager]:
    with fsdm_dir.manager({"lake://a": b"1234", "lake://b": TransferError("the lake is dry")}) as dm:
        yield dm


def test_chunk_that_was_put_is_whole_for_every_reader(fsdm_dir: ChunkDirectory) -> None:
    chunk_id = fsdm_dir.put(DATASET, range(3, 9), FILES)
    with fsdm_dir.client() as client, client.hold_chunk(DATASET, 8) as ref:
        assert (ref.id, ref.block_range, files_of(ref.path)) == (chunk_id, range(3, 9), FILES)
    assert fsdm("verify", "-d", fsdm_dir.path).returncode == 0


def test_id_follows_from_dataset_and_range_or_is_given(fsdm_dir: ChunkDirectory, tmp_path: Path) -> None:
    twin = ChunkDirectory(tmp_path / "twin")
    assert fsdm_dir.put(DATASET, (0, 5), FILES) == twin.put(bytes.fromhex(DATASET), range(5), {"other": b""})
    assert twin.put(DATASET, range(5, 9), FILES, chunk_id=b"1" * 32) == "31" * 32
    with pytest.raises(InvalidInputError, match=r"^chunk_id: 3131.* is there already"):
        twin.put(DATASET, range(5, 9), FILES, chunk_id="31" * 32)


@pytest.mark.parametrize(
    ("dataset", "blocks", "files", "said"),
    [
        ("d", range(3), FILES, "^dataset_id: "),
        (DATASET, range(3, 3), FILES, "^block_range: must not be empty"),
        (DATASET, range(3), {}, "^files: a chunk has at least one file"),
        (DATASET, range(3), {"../a": b""}, "^files: the file name '../a' contains "),
    ],
)
def test_what_is_no_chunk_is_not_put(
    fsdm_dir: ChunkDirectory, dataset: str, blocks: range, files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        fsdm_dir.put(dataset, blocks, files)
    with fsdm_dir.client() as client:
        assert client.list_chunks() == []


def test_chunk_is_removed_at_once(fsdm_dir: ChunkDirectory) -> None:
    chunk_id = fsdm_dir.put(DATASET, range(3), FILES)
    with fsdm_dir.client() as client:
        fsdm_dir.remove(chunk_id)
        assert client.list_chunks() == []
    with pytest.raises(NotAvailableError, match="there is no chunk"):
        fsdm_dir.remove(chunk_id)


def test_nothing_is_put_beside_a_reconciler(fsdm_dir: ChunkDirectory, held: DataManager) -> None:
    for call in (lambda: fsdm_dir.put(DATASET, range(3), FILES), lambda: fsdm_dir.remove(an_id())):
        with pytest.raises(ReconcilerRunsError, match="is reconciled by pid"):
            call()
    assert held.list_chunks() == []


def test_manager_fetches_from_memory_alone(held: DataManager) -> None:
    here = a_want(files={"a": {"url": "lake://a", "size": 4}})
    held.download_chunk(here)
    assert held.wait(here.id, PATIENCE_S)
    for url, said in (("lake://b", "the lake is dry"), ("http://127.0.0.1:1/", "the test has no file http://")):
        chunk = a_want(files={"a": url})
        held.download_chunk(chunk)
        with pytest.raises(ChunkFailedError, match=said):
            held.wait(chunk.id, PATIENCE_S)


def test_stub_tells_what_it_was_asked_for(fsdm_dir: ChunkDirectory) -> None:
    stub, chunk = StubFetcher({"lake://a": b"1"}), a_want(files={"a": "lake://a"})
    with DataManager(fsdm_dir.path, fetcher=stub) as dm:
        dm.download_chunk(chunk)
        dm.wait(chunk.id, PATIENCE_S)
    assert stub.asked == ["lake://a"]
