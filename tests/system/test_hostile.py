"""Entries of `want/` and `delete/` that are half-written, malformed, foreign, huge or malicious."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import WANT_MAX_BYTES
from tests.support import PATIENCE_S, Source, eventually
from tests.support.chunks import an_id, bring, chunk_dir, entries, failure, put_want, touch_delete


def _document(source: Source, **changes: object) -> bytes:
    return json.dumps(json.loads(source.chunk().to_json()) | {"id": None} | changes).encode()


WRONG_DOCUMENTS = {
    "empty": (b"", "EOF"),
    "half": (b'{"dataset_id": "', "EOF"),
    "not an object": (b'["a"]', "object"),
    "a number": (b"7", "object"),
    "not JSON": (b"\x00\xff\xfe", "Invalid JSON"),
    "deep": (b"[" * 100_000, "recursion"),
    "no files": (b'{"dataset_id": "%s", "block_range": [0, 1], "files": {}}' % (b"d" * 64), "at least one file"),
    "escaping name": (
        b'{"dataset_id": "%s", "block_range": [0, 1], "files": {"../x": "http://h/"}}' % (b"d" * 64),
        "contains '/' or NUL",
    ),
    "file URL": (
        b'{"dataset_id": "%s", "block_range": [0, 1], "files": {"x": "file:///etc/passwd"}}' % (b"d" * 64),
        "must begin with http://",
    ),
    "other id": (
        b'{"id": "%s", "dataset_id": "%s", "block_range": [0, 1], "files": {"x": "http://h/"}}'
        % (b"e" * 64, b"d" * 64),
        "but the marker is called",
    ),
    "reversed": (b'{"dataset_id": "%s", "block_range": [2, 1], "files": {"x": "http://h/"}}' % (b"d" * 64), "reversed"),
    "huge number": (
        b'{"dataset_id": "%s", "block_range": [0, 1%s], "files": {"x": "http://h/"}}' % (b"d" * 64, b"0" * 5000),
        "out of range",
    ),
}


@pytest.fixture
def good(dm: DataManager, source: Source) -> Iterator[None]:
    """After whatever the test put there, a good want still converges."""
    yield
    chunk = source.chunk(start=1000, end=1001)
    bring(dm, chunk)


@pytest.mark.usefixtures("good")
def test_malformed_want_is_explained_and_can_be_mended_in_place(
    dm: DataManager, data_dir: Path, source: Source
) -> None:
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


@pytest.mark.usefixtures("good")
def test_want_that_is_written_slowly_is_taken_when_it_is_whole(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    text = chunk.to_json()
    with (data_dir / "want" / chunk.id).open("wb", buffering=0) as file:
        for at in range(0, len(text), 40):
            file.write(text[at : at + 40])
            dm.reconciler.loop.wakeup.notify(chunk.id)
    assert dm.wait(chunk.id, PATIENCE_S)
    assert failure(data_dir, chunk.id) is None


@pytest.mark.usefixtures("good")
def test_entries_that_are_no_files_are_never_read_and_never_lost(
    dm: DataManager, data_dir: Path, source: Source, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    chunk = source.chunk()
    outside.write_bytes(chunk.to_json())
    for directory in ("want", "delete"):
        kinds = {name: an_id() for name in ("directory", "FIFO", "symbolic link", "socket")}
        here = data_dir / directory
        (here / kinds["directory"]).mkdir()
        (here / kinds["directory"] / "file").write_text("kept")
        os.mkfifo(here / kinds["FIFO"])
        (here / kinds["symbolic link"]).symlink_to(outside)
        with socket.socket(socket.AF_UNIX) as sock:
            old = os.getcwd()
            os.chdir(here)  # a socket's path is short
            sock.bind(kinds["socket"])
            os.chdir(old)
        for kind, chunk_id in kinds.items():
            told = eventually(lambda chunk_id=chunk_id: failure(data_dir, chunk_id))
            assert kind in told["error"]
            assert told["kind"] == "marker"
            assert os.path.lexists(here / chunk_id)
        assert (here / kinds["directory"] / "file").read_text() == "kept"
    assert outside.read_bytes() == chunk.to_json()
    assert dm.list_chunks() == []


@pytest.mark.usefixtures("good")
def test_want_over_the_limit_is_not_read(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    marker = data_dir / "want" / chunk.id
    marker.write_bytes(chunk.to_json() + b" " * (2 * WANT_MAX_BYTES))
    assert "more than the 1048576" in eventually(lambda: failure(data_dir, chunk.id))["error"]
    assert marker.stat().st_size > WANT_MAX_BYTES


@pytest.mark.usefixtures("good")
def test_names_that_are_no_ids_are_left_alone_and_shown(dm: DataManager, data_dir: Path) -> None:
    names = ["README", "A" * 64, "a" * 63, "a" * 65, "ä" * 32, "a" * 63 + "\n"]
    for name in names:
        (data_dir / "want" / name).write_text("{}")
        (data_dir / "delete" / name).write_text("")
    for name in (".hidden", "backup~", ".swp"):
        (data_dir / "want" / name).write_text("{}")
    shown = {oddity.path for oddity in dm.status().oddities}
    assert shown == {f"{data_dir}/{directory}/{name}" for directory in ("want", "delete") for name in names}


@pytest.mark.usefixtures("good")
def test_directory_in_the_place_of_a_delete_is_explained_and_counts(
    dm: DataManager, data_dir: Path, source: Source
) -> None:
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


def test_symlinks_in_the_place_of_directories_of_a_chunk_are_not_followed(
    dm: DataManager, data_dir: Path, source: Source, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "READY").write_text("{}")
    chunk = source.chunk()
    place = chunk_dir(data_dir, chunk)
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    (data_dir / "partial" / chunk.id).symlink_to(outside)
    assert dm.find_chunk(chunk.dataset_id, 0) is None
    eventually(lambda: not os.path.lexists(place) and not entries(data_dir / "partial"), "what was planted is cleared")
    touch_delete(data_dir, chunk.id)
    eventually(lambda: not entries(data_dir / "delete"))
    assert entries(outside) == ["READY"]
