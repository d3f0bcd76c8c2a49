"""Digests: those of all bytes that were put in, and a buffer for each thread."""

import hashlib
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from fsdm.model.documents import FileEntry, FileSource, Manifest
from fsdm.store.digests import BUFFER_BYTES, Digests, digest_of, thread_buffer, with_digests
from tests.support.chunks import a_want, content

BYTES = b"some bytes" * 1000


@pytest.mark.parametrize("sha256", [True, False])
def test_digests_are_those_of_all_pieces_in_order(sha256: bool) -> None:
    digests = Digests(sha256=sha256)
    for piece in (BYTES[:7], memoryview(BYTES)[7:]):
        digests.update(piece)
    assert digests.blake3 == blake3(BYTES).hexdigest()
    assert digests.sha256 == (hashlib.sha256(BYTES).hexdigest() if sha256 else None)


@pytest.mark.parametrize(
    ("changes", "why"), [({}, None), ({"blake3": "0" * 64}, "the blake3 "), ({"sha256": "0" * 64}, "the sha256 ")]
)
def test_a_digest_that_ready_does_not_say_is_named(changes: dict[str, str], why: str | None) -> None:
    digests = Digests(sha256=True)
    digests.update(BYTES)
    said = {"size": len(BYTES), "blake3": digests.blake3, "sha256": digests.sha256, **changes}
    found = digests.difference(FileEntry(**said))
    assert (found is None) if why is None else (found is not None and why in found and "0" * 64 in found)


@pytest.mark.parametrize("size", [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 2 * BUFFER_BYTES])
def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = content("a file", size)
    (tmp_path / "file").write_bytes(data)
    assert digest_of(f"{tmp_path}/file", "blake3") == blake3(data).hexdigest()
    assert digest_of(f"{tmp_path}/file", "sha256") == hashlib.sha256(data).hexdigest()


def test_a_missing_file_or_a_symlink_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_of(f"{tmp_path}/file", "blake3")
    (tmp_path / "link").symlink_to(__file__)
    with pytest.raises(OSError, match="symbolic"):
        digest_of(f"{tmp_path}/link", "blake3")


def test_each_thread_has_a_buffer_of_its_own_that_is_kept_and_grows() -> None:
    buffers: list[memoryview] = []

    def take() -> None:
        buffers.extend(thread_buffer(size) for size in (100, 50, 200))

    for thread in [threading.Thread(target=take) for _ in range(2)]:
        thread.start()
        thread.join()
    assert [len(buffer) for buffer in buffers] == [100, 50, 200] * 2
    objects = [id(buffer.obj) for buffer in buffers]
    assert objects[0] == objects[1]
    assert len(set(objects)) == 4


def test_sha256_is_added_where_the_want_gives_one_and_ready_does_not(tmp_path: Path) -> None:
    sha256, other = hashlib.sha256(BYTES).hexdigest(), "0" * 64
    given = {"both": (other, sha256), "want": (None, sha256), "ready": (other, None), "neither": (None, None)}
    (tmp_path / "data").mkdir()
    for name in given:
        (tmp_path / "data" / name).write_bytes(BYTES)
    sources = {name: FileSource(url="http://a/b", sha256=wanted) for name, (_, wanted) in given.items()}
    chunk = a_want().model_copy(update={"files": sources})
    entry = FileEntry(size=len(BYTES), blake3=blake3(BYTES).hexdigest())
    entries = {name: entry.model_copy(update={"sha256": said}) for name, (said, _) in given.items()}
    found = with_digests(Manifest.of(chunk, entries), chunk, str(tmp_path))
    assert {name: file.sha256 for name, file in found.files.items()} == {
        "both": other, "want": sha256, "ready": other, "neither": None,
    }  # fmt: skip
