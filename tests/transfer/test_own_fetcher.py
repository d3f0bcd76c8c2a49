"""A fetcher of a program's own: what it may do, and what is said where it does something else."""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fsdm import (
    Cancellation,
    ChunkFailedError,
    DataManager,
    Fetcher,
    FileEntry,
    FileSource,
    FileSystem,
    FsdmError,
    InvalidInputError,
    Part,
    StoppedError,
    TransferError,
)
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.own_fetcher import OwnFetcher, looked_at
from tests.support import PATIENCE_S
from tests.support.chunks import a_want, content, files_of

DATA = content("the file")
BLAKE3 = blake3(DATA).hexdigest()
URL = "shelf://top/row?token=hush"


class Shelf:
    """Does what it is told to: writes, and returns or raises."""

    def __init__(self, then: Callable[[], Any] = lambda: None, data: bytes | None = DATA) -> None:
        self.then, self.data = then, data

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry | None:
        assert source.urls[0].startswith("shelf://top/")
        if self.data is not None:
            Path(part.path).write_bytes(self.data)
        return self.then()  # type: ignore[no-any-return]


def fetch(fetcher: Fetcher, tmp_path: Path, **known: Any) -> FileEntry:
    stop = Cancellation()
    return OwnFetcher(fetcher).fetch(FileSource(url=URL, **known), Part(str(tmp_path / "file")), FileSystem(), stop)


def test_chunk_comes_by_urls_of_a_scheme_of_ones_own(data_dir: Path) -> None:
    chunk = a_want(files={"a": "shelf://top/a", "b": {"url": "shelf://top/b", "size": len(DATA)}})
    with DataManager(data_dir, fetcher=Shelf()) as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        with dm.hold_chunk(chunk.dataset_id, 0) as ref:
            assert files_of(ref.path) == {"a": DATA, "b": DATA}


def test_file_is_measured_whatever_is_returned(tmp_path: Path) -> None:
    entry = fetch(Shelf(), tmp_path, sha256=None)
    assert (entry.size, entry.blake3, entry.sha256, entry.etag) == (len(DATA), BLAKE3, None, None)
    said = FileEntry(size=len(DATA), blake3=BLAKE3, etag='"7"')
    assert fetch(Shelf(lambda: said), tmp_path).etag == '"7"'


class LibraryError(Exception):
    """An error of some library."""


def raised(error: BaseException) -> Callable[[], None]:
    def then() -> None:
        raise error

    return then


def other_entry(**other: Any) -> Callable[[], FileEntry]:
    return lambda: FileEntry(**{"size": len(DATA), "blake3": BLAKE3, **other})


NONSENSE = [
    (Shelf(lambda: "done"), {}, "the fetcher Shelf returned str, neither None nor a FileEntry", False, "defect"),
    (Shelf(data=None), {}, "the fetcher Shelf put no file at part.path", False, "defect"),
    (Shelf(other_entry(size=5)), {}, "1000 bytes came, 5 the fetcher Shelf says", False, "size"),
    (Shelf(other_entry(blake3="0" * 64)), {}, "the blake3 is [0-9a-f]{64}, 0{64} the fetcher", False, "digest"),
    (Shelf(other_entry(sha256="0" * 64)), {}, "the sha256 is [0-9a-f]{64}, 0{64} the fetcher", False, "digest"),
    (Shelf(), {"size": 7}, "1000 bytes came, 7 are wanted", False, "size"),
    (Shelf(), {"blake3": "0" * 64}, "the blake3 is [0-9a-f]{64}, 0{64} is wanted", False, "digest"),
    (Shelf(), {"sha256": "0" * 64}, "the sha256 is [0-9a-f]{64}, 0{64} is wanted", False, "digest"),
    (Shelf(raised(KeyError("hush"))), {}, "the fetcher Shelf raised KeyError$", False, "defect"),
    (Shelf(raised(LibraryError("hush"))), {}, "the fetcher Shelf raised LibraryError$", False, "defect"),
    (Shelf(raised(ConnectionError("hush"))), {}, "the fetcher Shelf met a ConnectionError$", True, "connection"),
    (
        Shelf(raised(OSError(errno.ECONNRESET, "hush"))),
        {},
        r"the fetcher Shelf met a ConnectionResetError \(Connection reset by peer\)$",
        True,
        "connection",
    ),
]


@pytest.mark.parametrize(("fetcher", "known", "said", "transient", "cause"), NONSENSE, ids=[row[2] for row in NONSENSE])
def test_nonsense_of_a_fetcher_is_named(
    tmp_path: Path, fetcher: Shelf, known: Any, said: str, transient: bool, cause: str
) -> None:
    with pytest.raises(TransferError, match=f"^shelf://top/row: {said}") as e:
        fetch(fetcher, tmp_path, **known)
    assert (e.value.transient, e.value.cause) == (transient, cause)
    assert "hush" not in str(e.value)


@pytest.mark.parametrize("made", [os.mkdir, lambda path: os.symlink("/etc/passwd", path)], ids=["directory", "symlink"])
def test_what_is_put_in_place_of_a_file_is_none(tmp_path: Path, made: Callable[[str], None]) -> None:
    made(str(tmp_path / "file"))
    with pytest.raises(TransferError, match=r"put no file at part\.path"):
        fetch(Shelf(data=None), tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "bad"), MemoryError(), StoppedError("stopped"),
        TransferError("there is none", transient=True),
    ],
)  # fmt: skip
def test_what_a_fetcher_may_raise_goes_on(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as e:
        fetch(Shelf(raised(error)), tmp_path)
    assert e.value is error


def test_defect_of_a_fetcher_is_told_at_once_and_its_traceback_logged(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chunk = a_want(files={"a": "shelf://top/a"})
    with caplog.at_level(logging.ERROR, "fsdm"), DataManager(data_dir, fetcher=Shelf(raised(KeyError("x")))) as dm:
        dm.download_chunk(chunk)
        with pytest.raises(ChunkFailedError, match="the fetcher Shelf raised KeyError") as e:
            dm.wait(chunk.id, PATIENCE_S)
    assert "its traceback is in the log" in e.value.failure.hint
    [record] = [record for record in caplog.records if "the fetcher Shelf has failed" in record.getMessage()]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@pytest.mark.parametrize("fetcher", [object(), Shelf, 7, print])
def test_what_cannot_fetch_is_refused(data_dir: Path, fetcher: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^fetcher: must have a method fetch\(source, part, fs, stop\); "):
        DataManager(data_dir, fetcher=fetcher)


def test_bytes_that_a_fetcher_counts_are_told() -> None:
    counting = Shelf()
    assert OwnFetcher(counting).received_bytes is None
    counting.received_bytes = 7  # type: ignore[attr-defined]
    assert OwnFetcher(counting).received_bytes == 7


def test_own_fetcher_of_fsdm_is_used_as_it_is() -> None:
    own = HttpFetcher()
    assert looked_at(own) is own
    assert issubclass(TransferError, FsdmError)
