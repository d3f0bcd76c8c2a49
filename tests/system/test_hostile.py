"""Entries of `want/` and `delete/` that are half-written, malformed, foreign, huge or malicious."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import WANT_MAX_BYTES
from tests.support import PATIENCE_S, Source, eventually
from tests.support.chunks import KINDS_OF_NO_FILE, an_id, bring, chunk_dir, entries, failure, put_want, touch_delete


def _document(block_range: str = "[0, 1]", files: str = '{"x": "http://h/"}', begin: str = "{") -> bytes:
    return f'{begin}"dataset_id": "{"d" * 64}", "block_range": {block_range}, "files": {files}}}'.encode()


WRONG_DOCUMENTS = {
    "empty": (b"", "EOF"),
    "half": (b'{"dataset_id": "', "EOF"),
    "not an object": (b'["a"]', "object"),
    "a number": (b"7", "object"),
    "not JSON": (b"\x00\xff\xfe", "Invalid JSON"),
    "deep": (b"[" * 100_000, "recursion"),
    "no files": (_document(files="{}"), "at least one file"),
    "escaping name": (_document(files='{"../x": "http://h/"}'), "contains '/' or NUL"),
    "no URL": (_document(files='{"x": "/etc/passwd"}'), "must begin with http://"),
    "other id": (_document(begin=f'{{"id": "{"e" * 64}", '), "but the marker is called"),
    "reversed": (_document("[2, 1]"), "reversed"),
    "huge number": (_document(f"[0, 1{'0' * 5000}]"), "out of range"),
}


@pytest.fixture(autouse=True)
def good(dm: DataManager, source: Source) -> Iterator[None]:
    """After whatever the test put there, a good want still converges."""
    yield
    chunk = source.chunk(start=1000, end=1001)
    bring(dm, chunk)


def test_malformed_want_is_explained_and_mended_in_place(dm: DataManager, data_dir: Path, source: Source) -> None:
    wrong = {an_id(): case for case in WRONG_DOCUMENTS.values()}
    for chunk_id, (text, _) in wrong.items():
        (data_dir / "want" / chunk_id).write_bytes(text)
    for chunk_id, (text, why) in wrong.items():
        told = eventually(lambda chunk_id=chunk_id: failure(data_dir, chunk_id))
        assert told["kind"] == "want"
        assert why in told["error"], told
        assert (data_dir / "want" / chunk_id).read_bytes() == text
        assert dm.status().chunks[chunk_id].error == told["error"]
    mended = next(iter(wrong))
    put_want(data_dir, source.chunk(id=mended))
    assert dm.wait(mended, PATIENCE_S)
    eventually(lambda: failure(data_dir, mended) is None)


def test_want_that_is_written_slowly_is_taken_when_it_is_whole(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    text = chunk.to_json()
    with (data_dir / "want" / chunk.id).open("wb", buffering=0) as file:
        for at in range(0, len(text), 40):
            file.write(text[at : at + 40])
            dm.reconciler.loop.wakeup.notify(chunk.id)
    assert dm.wait(chunk.id, PATIENCE_S)
    assert failure(data_dir, chunk.id) is None


def test_entries_that_are_no_files_are_never_read_nor_lost(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    wrong = {data_dir / where / an_id(): kind.values for where in ("want", "delete") for kind in KINDS_OF_NO_FILE}
    for path, (make, _) in wrong.items():
        make(str(path))
        if make is os.mkdir:
            (path / "file").write_text("kept")
    (data_dir / "outside").write_bytes(chunk.to_json())  # where the symlinks lead
    for path, (make, why) in wrong.items():
        told = eventually(lambda path=path: failure(data_dir, path.name))
        assert (told["kind"], why in told["error"]) == ("marker", True)
        assert os.path.lexists(path)
        assert make is not os.mkdir or (path / "file").read_text() == "kept"
    assert (data_dir / "outside").read_bytes() == chunk.to_json()
    assert dm.list_chunks() == []


def test_want_over_the_limit_is_not_read(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    marker = data_dir / "want" / chunk.id
    marker.write_bytes(chunk.to_json() + b" " * (2 * WANT_MAX_BYTES))
    assert "more than the 1048576" in eventually(lambda: failure(data_dir, chunk.id))["error"]
    assert marker.stat().st_size > WANT_MAX_BYTES


def test_names_that_are_no_ids_are_left_alone_and_shown(dm: DataManager, data_dir: Path) -> None:
    names = ["README", "A" * 64, "a" * 63, "a" * 65, "ä" * 32, "a" * 63 + "\n"]
    for name in names:
        (data_dir / "want" / name).write_text("{}")
        (data_dir / "delete" / name).write_text("")
    for name in (".hidden", "backup~", ".swp"):
        (data_dir / "want" / name).write_text("{}")
    shown = {oddity.path for oddity in dm.status().oddities}
    assert shown == {f"{data_dir}/{directory}/{name}" for directory in ("want", "delete") for name in names}


def test_directory_in_place_of_a_delete_is_told_and_counts(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    bring(dm, chunk)
    marker = data_dir / "delete" / chunk.id
    marker.mkdir()
    assert dm.find_chunk(chunk.dataset_id, 0) is None
    assert "is a directory" in eventually(lambda: failure(data_dir, chunk.id))["error"]
    with pytest.raises(DataDirectoryError, match="in the way"):
        dm.delete_chunk(chunk.id)
    marker.rmdir()
    eventually(lambda: failure(data_dir, chunk.id) is None)
    assert dm.list_chunks() == [chunk.id]


def test_delete_is_not_held_up_by_a_want_that_cannot_be_read(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    bring(dm, chunk)
    touch_delete(data_dir, chunk.id)
    (data_dir / "want" / chunk.id).write_bytes(b"{")
    eventually(lambda: not entries(data_dir / "delete"))
    assert not chunk_dir(data_dir, chunk).exists()
