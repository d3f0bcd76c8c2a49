"""Re-hashing: every kind of damage is found and named, whatever else is there is left as it was, at the pace given."""

import ctypes
import errno
import functools
import hashlib
import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from fsdm.concurrency.rate_limit import BURST_S, Rate
from fsdm.model.errors import StoppedError
from fsdm.model.layout import Layout, Place
from fsdm.store.digests import BUFFER_BYTES
from fsdm.verify import page_cache
from fsdm.verify import rehash as module
from fsdm.verify.page_cache import PAGE, cached_run
from fsdm.verify.rehash import Pace, Rehash, is_leaving, rehash
from tests.support import PATIENCE_S
from tests.support.chunks import content, flip, put_chunk
from tests.support.locks import in_a_fork

NO_CAP = Rate(None)


def wrong(layout: Layout, place: Place, **pace: Any) -> list[str]:
    """What is found, as it is told."""
    return [str(each) for each in rehash(layout.path(place), place, Pace(NO_CAP, **pace))]


@pytest.fixture
def place(layout: Layout) -> Place:
    return put_chunk(layout, files={"a": content("a", 3 * BUFFER_BYTES + 7), "b": content("b", 100), "empty": b""})


@pytest.fixture
def data(layout: Layout, place: Place) -> str:
    return f"{layout.path(place)}/data"


def test_what_is_as_ready_says_is_right(layout: Layout, place: Place) -> None:
    assert wrong(layout, place) == []


@pytest.mark.parametrize("at", [0, BUFFER_BYTES - 1, BUFFER_BYTES, 3 * BUFFER_BYTES + 6])
def test_one_flipped_bit_is_found_wherever_it_is(layout: Layout, place: Place, data: str, at: int) -> None:
    flip(f"{data}/a", at)
    (told,) = wrong(layout, place)
    assert told.startswith("data/a ")
    assert "blake3" in told


def test_a_sha256_that_ready_has_is_compared_as_well(layout: Layout, place: Place, data: str) -> None:
    ready = f"{layout.path(place)}/READY"
    with open(ready) as file:
        document = json.load(file)
    document["files"]["b"]["sha256"] = hashlib.sha256(content("b", 100)).hexdigest()
    with open(ready, "w") as file:
        json.dump(document, file)
    assert wrong(layout, place) == []
    document["files"]["b"]["sha256"] = "0" * 64
    with open(ready, "w") as file:
        json.dump(document, file)
    (told,) = wrong(layout, place)
    assert told.startswith("data/b ")
    assert "sha256" in told


def _link(path: str) -> None:
    elsewhere = os.path.join(os.path.dirname(os.path.dirname(path)), "elsewhere")
    os.rename(path, elsewhere)
    os.symlink(elsewhere, path)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (os.unlink, "data/b is missing"),
        (lambda path: os.truncate(path, 99), "data/b has 99 bytes, READY says 100"),
        (lambda path: os.truncate(path, 101), "data/b has 101 bytes, READY says 100"),
        (_link, "data/b is not a file"),
        (lambda path: (os.unlink(path), os.mkfifo(path)), "data/b is not a file"),
        (lambda path: (os.unlink(path), os.mkdir(path)), "data/b is not a file"),
    ],
)
def test_a_file_that_is_none_or_of_another_size_is_named(
    layout: Layout, place: Place, data: str, harm: Callable[[str], object], why: str
) -> None:
    harm(f"{data}/b")
    assert wrong(layout, place) == [why]


def test_a_file_that_ready_does_not_name_is_wrong(layout: Layout, place: Place, data: str) -> None:
    with open(f"{data}/c.parquet", "w"):
        pass
    assert wrong(layout, place) == ["data/c.parquet is not in READY"]


def test_all_that_is_wrong_is_told(layout: Layout, place: Place, data: str) -> None:
    flip(f"{data}/a")
    os.unlink(f"{data}/b")
    assert [each.split()[0] for each in wrong(layout, place)] == ["data/b", "data/a"]


def test_a_ready_or_a_directory_of_files_that_is_none_is_told(layout: Layout, place: Place, data: str) -> None:
    shutil.rmtree(data)
    assert wrong(layout, place) == ["data is missing, or is no directory"]
    os.symlink(layout.root, data)
    assert wrong(layout, place) == ["data is missing, or is no directory"]
    with open(f"{layout.path(place)}/READY", "w"):
        pass
    assert wrong(layout, place) == ["READY is not a manifest"]


def test_a_ready_of_another_chunk_is_told(layout: Layout, place: Place) -> None:
    other = put_chunk(layout, start=50, end=60)
    os.replace(f"{layout.path(other)}/READY", f"{layout.path(place)}/READY")
    (told,) = wrong(layout, place)
    assert told.startswith("READY speaks of ")


@pytest.mark.parametrize("code", sorted(module.UNREADABLE))
def test_what_a_disk_loses_is_damage(layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset >= BUFFER_BYTES:
            raise OSError(code, os.strerror(code))
        return preadv(fd, buffers, offset, flags)

    preadv = os.preadv
    monkeypatch.setattr(module.os, "preadv", fail)
    assert wrong(layout, place) == [f"data/a cannot be read: {os.strerror(code)}"]


def test_what_may_not_be_read_is_no_damage(layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module.os, "preadv", refuse)
    with pytest.raises(PermissionError):
        wrong(layout, place)


def test_a_file_that_ends_while_it_is_read_is_wrong(layout: Layout, place: Place, data: str) -> None:
    told = wrong(layout, place, progress=lambda count: os.truncate(f"{data}/a", BUFFER_BYTES))
    assert told == [f"data/a ends after {BUFFER_BYTES} bytes of {3 * BUFFER_BYTES + 7}"]


def test_every_byte_is_told_of_and_it_is_asked_before_each_block_whether_to_go_on(layout: Layout, place: Place) -> None:
    read: list[int] = []

    def check() -> None:
        if len(read) == 2:
            raise StoppedError("enough")

    assert wrong(layout, place, progress=read.append) == []
    assert sum(read) == 3 * BUFFER_BYTES + 107
    read.clear()
    with pytest.raises(StoppedError):
        wrong(layout, place, progress=read.append, check=check)
    assert len(read) == 2


def test_files_are_read_in_several_threads(layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    meet = threading.Barrier(2, timeout=PATIENCE_S)
    pace = Pace(NO_CAP, check=lambda: (meet.wait(), None)[1])
    with closing(Rehash(layout.path(place), place, pace)) as files:
        assert files.size_bytes == 3 * BUFFER_BYTES + 107
        monkeypatch.setattr(module, "BUFFER_BYTES", 4 * BUFFER_BYTES)  # each file is one block
        monkeypatch.setattr(module, "thread_buffer", lambda _: memoryview(bytearray(4 * BUFFER_BYTES)))
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(files.file, ("a", "b"))) == [None, None]


def test_no_more_is_read_than_the_rate_allows(layout: Layout, place: Place) -> None:
    now, cap = [0.0], 1_000_000.0
    rate = Rate(cap, clock=lambda: now[0])

    def wait(seconds: float) -> None:
        assert 0 < seconds <= module.WAIT_S
        now[0] += seconds

    assert rehash(layout.path(place), place, Pace(rate, wait=wait)) == []
    size = 3 * BUFFER_BYTES + 107
    assert size / cap - BURST_S <= now[0] <= size / cap + 0.1


def test_while_it_waits_for_its_rate_it_can_be_stopped(layout: Layout, place: Place) -> None:
    waits: list[float] = []

    def check() -> None:
        if len(waits) == 3:
            raise StoppedError("enough")

    with pytest.raises(StoppedError):
        rehash(layout.path(place), place, Pace(Rate(1.0, clock=lambda: 0.0), check=check, wait=waits.append))


def _resident(path: str) -> list[int]:
    """The pages of a file that are in the page cache: mincore(2), which reads none of them in."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as pages:
        vector = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector) == 0
        return [index for index, page in enumerate(vector) if page & 1]


def _forget(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if _resident(path):
        pytest.skip("this file system keeps all in its page cache")


def _read_in(path: str, *pages: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for page in pages:
        os.pread(fd, 1, page * mmap.PAGESIZE)
    os.close(fd)


LAST_PAGE = -(-(3 * BUFFER_BYTES + 7) // mmap.PAGESIZE) - 1


@pytest.mark.parametrize(
    "pages",
    [(), (0,), (1,), (255, 256), (300, 301, 400), (LAST_PAGE,), tuple(range(LAST_PAGE + 1))],
    ids=["none", "first", "second", "over a block's end", "some", "last", "all"],
)
@pytest.mark.parametrize("bytes_per_s", [None, 12_345_677.0], ids=["whole blocks", "odd blocks"])
def test_the_page_cache_is_left_as_it_was(
    layout: Layout, place: Place, data: str, pages: tuple[int, ...], bytes_per_s: float | None
) -> None:
    _forget(f"{data}/a")
    _read_in(f"{data}/a", *pages)
    assert _resident(f"{data}/a") == list(pages)
    assert rehash(layout.path(place), place, Pace(Rate(bytes_per_s))) == []
    assert _resident(f"{data}/a") == list(pages), "what was not there is not there now, and what was still is"


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENOMEM])
def test_file_that_cannot_be_mapped_is_read_all_the_same(
    layout: Layout, place: Place, data: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(code, os.strerror(code))

    flip(f"{data}/a", BUFFER_BYTES)
    monkeypatch.setattr(page_cache.mmap, "mmap", refuse)
    (told,) = wrong(layout, place)
    assert "blake3" in told


def test_run_ends_where_the_page_cache_does_and_begins_within_a_page(data: str, place: Place) -> None:
    _forget(f"{data}/a")
    _read_in(f"{data}/a", 2, 3)
    with open(f"{data}/a", "rb") as file:
        run = functools.partial(cached_run, file.fileno())
        assert run(0, BUFFER_BYTES) == (False, 2 * PAGE)
        assert run(PAGE + 5, BUFFER_BYTES) == (False, PAGE - 5)
        assert run(2 * PAGE + 5, BUFFER_BYTES) == (True, 2 * PAGE - 5)
        assert run(2 * PAGE + 5, 7) == (True, 7)
        assert run(4 * PAGE, BUFFER_BYTES) == (False, BUFFER_BYTES)


def test_a_chunk_that_is_deleted_or_out_of_service_is_leaving(layout: Layout, place: Place) -> None:
    assert not is_leaving(layout, place)
    with open(layout.delete_marker(place.chunk_id), "w"):
        pass
    assert is_leaving(layout, place)
    os.unlink(layout.delete_marker(place.chunk_id))
    os.unlink(f"{layout.path(place)}/READY")
    assert is_leaving(layout, place)


def test_no_descriptor_is_left(layout: Layout, place: Place, data: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    flip(f"{data}/a")
    wrong(layout, place)
    with pytest.raises(StoppedError):
        wrong(layout, place, check=_stop)
    shutil.rmtree(data)
    wrong(layout, place)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_directory_is_closed_once_also_where_it_has_descriptor_0(layout: Layout, place: Place) -> None:
    def reads() -> str:
        os.close(0)
        files = Rehash(layout.path(place), place, Pace(NO_CAP))
        wrong = [files.file(name) for name in files.names]
        files.close()
        again = os.open(os.devnull, os.O_RDONLY)
        files.close()
        os.fstat(again)
        return f"{again} {set(wrong)}"

    assert in_a_fork(reads) == "0 {None}"


def _stop() -> None:
    raise StoppedError("stopped")
