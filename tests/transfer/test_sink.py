"""A sink: whatever way the bytes came, all of them are in the file and under the digests."""

import ctypes
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.model.errors import StoppedError
from fsdm.transfer import sink as sink_module
from fsdm.transfer.sink import PIECE_BYTES, Sink, open_sink
from tests.support.chunks import content

POOL = content("a pool", 1 << 20)


@contextmanager
def a_sink(**kw: Any) -> Iterator[Sink]:
    with tempfile.TemporaryFile(buffering=0) as file:
        yield Sink(file.fileno(), **{"sha256": True, "writeback": False, **kw})


def pieces_of(piece: int, pread: int, writeback: int = 1 << 30) -> pytest.MonkeyPatch:
    """The sizes, small: what takes megabytes is seen after a few bytes."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sink_module, "PIECE_BYTES", piece)
    patch.setattr(sink_module, "WRITEBACK_BYTES", writeback)
    patch.setattr(sink_module, "READ_BYTES", pread)
    return patch


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, list[tuple[bool, int]]]:
    """The size of a piece, and how bytes arrive: through user space or not, and how many."""
    piece = draw(st.sampled_from([1, 100, 4095, 4096, 4097, 8192, 12288]))
    counts = st.one_of(
        st.integers(0, 3 * piece), st.sampled_from([piece - 1, piece, piece + 1, 2 * piece - 1, 2 * piece])
    )
    return piece, draw(st.lists(st.tuples(st.booleans(), counts), max_size=12))


def arrive(sink: Sink, how: list[tuple[bool, int]]) -> bytes:
    """Let bytes arrive in a sink; which they were."""
    at = 0
    for by_the_kernel, count in how:
        data = POOL[at : at + count]
        at += count
        if by_the_kernel:
            assert os.write(sink.fd, data) == count
            sink.took(count)
        else:
            sink.put(memoryview(data))
        assert sink.size == at
    return POOL[:at]


@settings(max_examples=150, deadline=None)
@given(arrivals(), st.sampled_from([1000, 4096, 5000]), st.booleans())
def test_the_digests_are_those_of_the_bytes_whatever_way_they_came(
    arrival: tuple[int, list[tuple[bool, int]]], pread: int, sha256: bool
) -> None:
    piece, how = arrival
    patch = pieces_of(piece, pread)
    try:
        with a_sink(sha256=sha256) as sink:
            data = arrive(sink, how)
            entry = sink.entry()
            assert os.pread(sink.fd, len(POOL), 0) == data
    finally:
        patch.undo()
    assert entry.size == len(data)
    assert entry.blake3 == blake3(data).hexdigest()
    assert entry.sha256 == (hashlib.sha256(data).hexdigest() if sha256 else None)


@settings(max_examples=100, deadline=None)
@given(arrivals(), st.sampled_from([1, 4096, 5000, 16384]))
def test_the_disk_is_started_on_every_byte_once_and_in_order_but_for_the_last_few(
    arrival: tuple[int, list[tuple[bool, int]]], writeback: int
) -> None:
    piece, how = arrival
    ranges: list[tuple[int, int, int]] = []
    patch = pieces_of(piece, 4096, writeback)
    try:
        patch.setattr(sink_module, "_sync_file_range", lambda *arguments: ranges.append(arguments[:3]))
        with a_sink(writeback=True) as sink:
            size, fd = len(arrive(sink, how)), sink.fd
    finally:
        patch.undo()
    started = 0
    for its_fd, offset, count in ranges:
        assert (its_fd, offset) == (fd, started)
        assert count >= writeback
        started += count
    assert 0 <= size - started < writeback


def test_no_disk_is_started_where_nothing_is_to_be_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "WRITEBACK_BYTES", 1)
    monkeypatch.setattr(sink_module, "_sync_file_range", lambda *_: pytest.fail("it was"))
    with a_sink(writeback=False) as sink:
        assert len(arrive(sink, [(True, 10), (False, 10)])) == sink.size == 20


def test_a_system_without_early_writeback_takes_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "WRITEBACK_BYTES", 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(sink_module, "_sync_file_range", sink_module._of_libc("sync_file_range"))
    with a_sink(writeback=True) as sink:
        data = arrive(sink, [(True, 10), (False, 10)])
        assert sink.entry().blake3 == blake3(data).hexdigest()


def test_early_writeback_of_this_system_is_a_hint_that_never_fails() -> None:
    with a_sink() as sink:
        sink.put(b"abc")
        assert sink_module._sync_file_range(sink.fd, 0, 3, 2) == 0
    assert sink_module._sync_file_range(-1, 0, 3, 2) == -1


def test_what_the_kernel_moved_is_hashed_while_more_is_coming() -> None:
    patch, seen = pieces_of(4096, 1000), []
    pread = os.pread
    patch.setattr(os, "pread", lambda fd, count, offset: seen.append(offset) or pread(fd, count, offset))
    try:
        with a_sink() as sink:
            arrive(sink, [(True, 4095)])
            assert seen == []
            os.write(sink.fd, b"x")
            sink.took(1)
            assert seen == [0, 1000, 2000, 3000, 4000]
            assert sink.entry().blake3 == blake3(POOL[:4095] + b"x").hexdigest()
            assert len(seen) == 5, "nothing is read twice"
    finally:
        patch.undo()


def test_a_read_that_gives_less_than_it_was_asked_for_loses_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: pread(fd, min(count, 7), offset))
    with a_sink() as sink:
        data = arrive(sink, [(True, 1000), (False, 5), (True, 3)])
        assert sink.entry().blake3 == blake3(data).hexdigest()


def test_a_write_that_takes_less_than_it_was_given_loses_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with a_sink() as sink:
        sink.put(POOL[:1000])
        assert sink.entry().blake3 == blake3(POOL[:1000]).hexdigest()
        assert os.pread(sink.fd, 2000, 0) == POOL[:1000]


def test_a_file_that_somebody_makes_shorter_is_an_error_and_no_endless_wait() -> None:
    with a_sink() as sink:
        arrive(sink, [(True, 100)])
        os.ftruncate(sink.fd, 50)
        with pytest.raises(OSError, match="shorter") as caught:
            sink.entry()
        assert caught.value.errno == errno.EIO


# ------------------------------------------------------------------------------------------------------ room beforehand


class Libc:
    """A C library whose fallocate says this."""

    def __init__(self, code: int) -> None:
        def fallocate(*arguments: int) -> int:
            self.called.append(arguments)
            ctypes.set_errno(code)
            return -1 if code else 0

        self.called: list[tuple[int, ...]] = []
        self.fallocate = fallocate


@pytest.mark.parametrize(("size", "reserved"), [(None, 0), (0, 0), (PIECE_BYTES - 1, 0), (PIECE_BYTES, 1)])
def test_room_is_reserved_for_what_is_announced_and_large(
    monkeypatch: pytest.MonkeyPatch, size: int | None, reserved: int
) -> None:
    libc = Libc(0)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
    monkeypatch.setattr(sink_module, "_fallocate", sink_module._of_libc("fallocate"))
    with a_sink() as sink:
        sink.expect(size)
        keep_size = 1
        assert libc.called == [(sink.fd, keep_size, 0, size)] * reserved


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_met_before_the_first_byte(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(sink_module, "_fallocate", Libc(code).fallocate)
    with a_sink() as sink, pytest.raises(OSError, match=os.strerror(code)) as caught:
        sink.expect(PIECE_BYTES)
    assert caught.value.errno == code


def test_a_file_that_does_not_fit_takes_no_room_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = sink_module._fallocate

    def reserve_some(*arguments: int) -> int:
        reserve(*arguments)
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(sink_module, "_fallocate", reserve_some)
    with a_sink() as sink:
        sink.put(b"abc")
        before = os.fstat(sink.fd).st_blocks
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            sink.expect(4 * PIECE_BYTES)
        assert os.fstat(sink.fd).st_blocks < before + PIECE_BYTES // 512
        assert sink.entry().size == 3


@pytest.mark.parametrize("libc", [Libc(errno.EOPNOTSUPP), Libc(errno.ENOSYS), Libc(errno.EFBIG), object()])
def test_a_file_system_that_reserves_nothing_is_as_good(monkeypatch: pytest.MonkeyPatch, libc: object) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
    monkeypatch.setattr(sink_module, "_fallocate", sink_module._of_libc("fallocate"))
    with a_sink() as sink:
        sink.expect(PIECE_BYTES)
        sink.put(b"abc")
        assert sink.entry().size == 3


def test_a_reserved_file_is_as_long_as_what_has_come() -> None:
    with a_sink() as sink:
        sink.expect(PIECE_BYTES)
        assert os.fstat(sink.fd).st_size == 0
        sink.put(b"abc")
        assert os.fstat(sink.fd).st_size == 3
        assert sink.entry().blake3 == blake3(b"abc").hexdigest()


# ------------------------------------------------------------------------------------------------------------ the files


def test_a_sink_opens_a_file_that_can_be_read_back_and_is_not_inherited(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/file", sha256=False, writeback=True)
    try:
        assert not os.get_inheritable(sink.fd)
        arrive(sink, [(True, 10), (False, 10)])
        assert sink.entry().blake3 == blake3(POOL[:20]).hexdigest()
        assert os.fstat(sink.fd).st_mode & 0o7133 == 0, "it is no program, and nobody else writes to it"
    finally:
        os.close(sink.fd)
    assert (tmp_path / "file").read_bytes() == POOL[:20]


def test_a_sink_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "new")
    for name in ("link", "nowhere"):
        with pytest.raises(OSError, match="symbolic links"):
            open_sink(f"{tmp_path}/{name}", sha256=False, writeback=False)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "new").exists()


# -------------------------------------------------------------------------------------------- what is there from before


@pytest.mark.parametrize("there", [0, 1, 4095, 4096, 10_000])
@pytest.mark.parametrize("sha256", [False, True])
def test_what_is_taken_over_is_under_the_digests_and_what_is_beyond_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, sha256: bool
) -> None:
    monkeypatch.setattr(sink_module, "PIECE_BYTES", 4096)
    (tmp_path / "file").write_bytes(POOL[:there] + b"beyond")
    sink = open_sink(f"{tmp_path}/file", sha256=sha256, writeback=True)
    try:
        sink.take_over(there, lambda: None)
        sink.cut(there)
        assert sink.size == there == os.fstat(sink.fd).st_size
        assert sink.blake3() == blake3(POOL[:there]).hexdigest()
        os.write(sink.fd, POOL[there : there + 100])
        sink.took(100)
        sink.put(POOL[there + 100 : there + 200])
        entry = sink.entry('"tag"')
        assert (entry.size, entry.etag) == (there + 200, '"tag"')
        assert entry.blake3 == blake3(POOL[: there + 200]).hexdigest()
        assert entry.sha256 == (hashlib.sha256(POOL[: there + 200]).hexdigest() if sha256 else None)
    finally:
        os.close(sink.fd)
    assert (tmp_path / "file").read_bytes() == POOL[: there + 200]


def test_what_is_behind_a_hole_has_a_digest_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "READ_BYTES", 100)
    (tmp_path / "file").write_bytes(POOL[:1000])
    sink, checks = open_sink(f"{tmp_path}/file", sha256=False, writeback=False), list[None]()
    try:
        for start, end, reads in ((500, 700, 2), (500, 700, 0), (500, 950, 3), (500, 501, 1), (300, 600, 3), (9, 9, 0)):
            del checks[:]
            between = sink.blake3_between(start, end, lambda: checks.append(None))
            assert between == blake3(POOL[start:end]).hexdigest()
            assert len(checks) == reads
        sink.take_over(400, lambda: None)
        sink.cut(950)
        assert os.fstat(sink.fd).st_size == 950
        sink.put(b"x" * 100)
        sink.took(450)
        assert sink.blake3() == blake3(POOL[:400] + b"x" * 100 + POOL[500:950]).hexdigest()
        with pytest.raises(OSError, match="became shorter"):
            sink.blake3_between(940, 951)
        sink.restart()
        os.pwrite(sink.fd, bytes(1000), 0)
        assert sink.blake3_between(500, 700) == blake3(bytes(200)).hexdigest()
    finally:
        os.close(sink.fd)


def test_taking_over_can_be_stopped_between_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "PIECE_BYTES", 4096)
    (tmp_path / "file").write_bytes(POOL[:20_000])
    asked: list[int] = []

    def check() -> None:
        asked.append(sink.size)
        if len(asked) == 3:
            raise StoppedError("stopped")

    sink = open_sink(f"{tmp_path}/file", sha256=False, writeback=False)
    try:
        with pytest.raises(StoppedError):
            sink.take_over(20_000, check)
        assert asked == [0, 4096, 8192]
    finally:
        os.close(sink.fd)


def test_a_file_shorter_than_what_is_to_be_taken_over_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    sink = open_sink(f"{tmp_path}/file", sha256=False, writeback=False)
    try:
        with pytest.raises(OSError, match="shorter"):
            sink.take_over(6, lambda: None)
    finally:
        os.close(sink.fd)


def test_a_sink_that_begins_again_is_like_a_new_one(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/file", sha256=True, writeback=True)
    try:
        arrive(sink, [(True, 5000), (False, 10)])
        sink.restart()
        assert sink.size == 0 == os.fstat(sink.fd).st_size
        data = arrive(sink, [(True, 20), (False, 10)])
        assert sink.entry().sha256 == hashlib.sha256(data).hexdigest()
        assert sink.entry().blake3 == blake3(data).hexdigest()
    finally:
        os.close(sink.fd)
    assert (tmp_path / "file").read_bytes() == data
