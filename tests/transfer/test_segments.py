"""A file over several connections: where that is tried, what it takes for granted, and what is left where it breaks."""

import hashlib
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.errors import HostError, StoppedError, TransferError
from fsdm.model.limits import PER_FILE
from fsdm.model.parts import PartRecord
from fsdm.store.filesystem import FileSystem
from fsdm.transfer import file_transfer as transfer
from fsdm.transfer import segments as ranges
from fsdm.transfer import source_fetch as source_fetch_module
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http import exchange
from fsdm.transfer.http.head import Head
from fsdm.transfer.resume_record import Part
from fsdm.transfer.segments import (
    LEAST_BYTES,
    PIECE_MAX_BYTES,
    PIECE_MIN_BYTES,
    Gain,
    Helpers,
    Pace,
    Piece,
    Pieces,
    Slice,
    joined,
)
from tests.support import PATIENCE_S, Fault, Source, etag_of, eventually
from tests.support.chunks import content
from tests.support.servers import CUT_SHORT, InThread, a_certificate, serving_with

pytestmark = pytest.mark.usefixtures("transport")

MB = 1_000_000
HOST = "http://h"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --------------------------------------------------------------------------------------------------------------- pieces


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 31), st.integers(1, 16))
def test_the_pieces_are_what_is_missing_in_its_order_and_without_a_gap(start: int, missing: int, workers: int) -> None:
    pieces, at = Pieces(start, start + missing, workers), start
    while (piece := pieces.take()) is not None:
        assert piece[0] == at
        assert at < piece[1] <= start + missing
        assert piece[1] == start + missing or PIECE_MIN_BYTES <= piece[1] - at <= PIECE_MAX_BYTES
        at = piece[1]
    assert at == start + missing


@given(st.integers(0, 1000), st.integers(1, 30 * PIECE_MIN_BYTES), st.randoms(use_true_random=False), st.data())
def test_what_is_in_line_ends_at_the_first_piece_that_has_not_come(
    start: int, missing: int, order: random.Random, data: st.DataObject
) -> None:
    pieces, taken, done = Pieces(start, start + missing, 4), list[tuple[int, int]](), set[int]()
    while (piece := pieces.take()) is not None:
        taken.append(piece)
    shuffled = order.sample(taken, len(taken))
    for piece in shuffled:
        pieces.came(piece)
        done.add(piece[0])
        if data.draw(st.booleans()):
            assert pieces.here()[0][1] == next((begin for begin, _ in taken if begin not in done), start + missing)
    assert pieces.here()[0][1] == start + missing


HOLES = st.lists(st.integers(0, 20 * PIECE_MIN_BYTES), unique=True, min_size=2, max_size=9).map(sorted)


@given(HOLES)
def test_the_pieces_fill_the_holes_and_nothing_else(bounds: list[int]) -> None:
    start, *more, total = bounds
    extents = list(zip(more[::2], more[1::2], strict=False))
    pieces, filled = Pieces(start, total, 4, extents), [(0, start), *extents]
    while (piece := pieces.take()) is not None:
        assert all(piece[1] <= begin or end <= piece[0] for begin, end in filled)
        filled.append(piece)
        pieces.came(piece)
    assert pieces.here() == [(0, total)]
    assert sum(end - begin for begin, end in filled) == total


@pytest.mark.parametrize("came", [0, 1, PIECE_MIN_BYTES])
def test_of_a_piece_that_is_given_back_the_rest_is_taken_next(came: int) -> None:
    pieces = Pieces(5, 3 * PIECE_MIN_BYTES, 1, [(2 * PIECE_MIN_BYTES + 9, 2 * PIECE_MIN_BYTES + 10)])
    first, second = pieces.take(), pieces.take()
    assert first is not None
    assert second is not None
    pieces.came((second[0], second[0] + came))
    pieces.give_back(second)
    after = pieces.take()
    assert after == ((second[0] + came, second[1]) if came < PIECE_MIN_BYTES else (second[1], second[1] + 4))


def test_nothing_is_begun_after_a_failure_and_the_first_one_counts() -> None:
    pieces, first = Pieces(0, 10 * PIECE_MIN_BYTES, 1), TransferError("the first")
    assert pieces.take() is not None
    pieces.failed(first)
    pieces.failed(TransferError("the second"))
    assert pieces.take() is None
    assert pieces.error is first


@pytest.mark.parametrize("start", [0, 3, 10])
def test_a_slice_fills_its_place_and_nothing_else(tmp_path: Path, start: int) -> None:
    (tmp_path / "file").write_bytes(b"." * 10)
    with Slice(str(tmp_path / "file"), (start, start + 3)) as place:
        place.put(b"ab")
        place.put(memoryview(b"c"))
    assert (place.size, place.here) == (3, (start, start + 3))
    assert (tmp_path / "file").read_bytes() == (b"." * start + b"abc").ljust(10, b".")


def test_what_is_too_much_for_a_slice_is_counted_but_not_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"." * 10)
    with Slice(str(tmp_path / "file"), (2, 4)) as place:
        for _ in range(3):
            place.put(b"abc")
    assert (place.size, place.here) == (9, (2, 4))
    assert (tmp_path / "file").read_bytes() == b"..ab......"


def test_a_slice_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to(tmp_path / "other")
    (tmp_path / "other").touch()
    with pytest.raises(OSError, match="symbolic"):
        Slice(str(tmp_path / "file"), (0, 1))


# ---------------------------------------------------------------------------------------------------------------- gains


def flow(gain: Gain, clock: Clock, bytes_per_s: float, seconds: float) -> None:
    """Let so much come from a host."""
    for _ in range(round(seconds / 0.01)):
        clock.now += 0.01
        gain.took(round(bytes_per_s * 0.01))


def a_trial(gain: Gain, clock: Clock, several: float, one: float = 10 * MB) -> bool:
    """Whether the servers' rate over `several` connections, after one over one, is found to gain."""
    flow(gain, clock, one, 1.0)
    assert gain.may_split(), "it is to be tried"
    flow(gain, clock, several, ranges.TRIAL_S + 0.01)
    return gain.go_on()


@pytest.mark.parametrize(("several", "gains"), [(9 * MB, False), (11 * MB, False), (14 * MB, True), (40 * MB, True)])
def test_several_connections_are_kept_where_they_bring_a_quarter_more(
    clock: Clock, several: float, gains: bool
) -> None:
    gain = Gain(clock=clock)
    assert a_trial(gain, clock, several) is gains
    assert gain.may_split() is gains
    clock.now += ranges.REMEMBERED_S - 1
    assert gain.may_split() is gains
    assert gain.go_on() is gains


@pytest.mark.parametrize(("several", "gains"), [(11 * MB, False), (14 * MB, True)])
def test_a_transfer_that_has_just_begun_is_measured_from_its_first_bytes(
    clock: Clock, several: float, gains: bool
) -> None:
    gain = Gain(clock=clock)
    flow(gain, clock, 10 * MB, ranges.WARM_S - 0.02)
    assert not gain.may_split(), "connections that begin are slow"
    flow(gain, clock, 10 * MB, 0.04)
    assert gain.may_split()
    clock.now += 0.2  # new connections are made meanwhile
    flow(gain, clock, several, ranges.TRIAL_S - 0.1)
    assert gain.go_on() is gains


@pytest.mark.parametrize("several", [9 * MB, 40 * MB])
def test_after_a_while_it_is_tried_again(clock: Clock, several: float) -> None:
    gain = Gain(clock=clock)
    a_trial(gain, clock, several)
    clock.now += ranges.REMEMBERED_S
    assert a_trial(gain, clock, 40 * MB)
    clock.now += ranges.REMEMBERED_S
    assert not a_trial(gain, clock, 9 * MB)


def test_nothing_is_decided_before_the_trial_has_lasted(clock: Clock) -> None:
    gain = Gain(clock=clock)
    flow(gain, clock, 10 * MB, 1.0)
    assert gain.may_split()
    clock.now += ranges.TRIAL_S * 0.9
    assert gain.go_on(), "though nothing has come"


def test_files_that_begin_together_share_a_trial(clock: Clock) -> None:
    gain = Gain(clock=clock)
    flow(gain, clock, 10 * MB, 1.0)
    assert gain.may_split()
    flow(gain, clock, 40 * MB, ranges.TRIAL_S / 2)
    assert gain.may_split()
    flow(gain, clock, 40 * MB, ranges.TRIAL_S + 0.01)
    assert gain.go_on(), "measured against what came over one connection, not over the first file's four"


def test_a_trial_that_nobody_ended_is_begun_afresh(clock: Clock) -> None:
    gain = Gain(clock=clock)
    flow(gain, clock, 40 * MB, 1.0)
    assert gain.may_split()
    clock.now += 4 * ranges.TRIAL_S + 1
    assert a_trial(gain, clock, 20 * MB), "twice as much as by then"


def test_there_is_no_trial_where_all_connections_together_bring_what_a_disk_takes(clock: Clock) -> None:
    gain = Gain(clock=clock)
    assert not gain.may_split(), "nothing has come yet"
    flow(gain, clock, ranges.ENOUGH_BYTES_PER_S + MB, 1.0)
    assert not gain.may_split()
    flow(gain, clock, ranges.ENOUGH_BYTES_PER_S - MB, ranges.WARM_S + 0.01)
    assert gain.may_split()


def test_a_server_whose_pieces_do_not_fit_is_left_alone_for_a_while(clock: Clock) -> None:
    gain = Gain(clock=clock)
    assert a_trial(gain, clock, 40 * MB)
    gain.do_not_fit()
    assert not gain.may_split()
    assert not gain.go_on()
    clock.now += ranges.REMEMBERED_S + 1
    assert gain.may_split()


def test_a_trial_that_breaks_has_gained_nothing_but_one_that_gained_is_not_forgotten(clock: Clock) -> None:
    gain = Gain(clock=clock)
    flow(gain, clock, 10 * MB, 1.0)
    assert gain.may_split()
    gain.broke()
    assert not gain.may_split()
    clock.now += ranges.REMEMBERED_S + 1
    assert a_trial(gain, clock, 40 * MB)
    gain.broke()
    assert gain.may_split()


# ----------------------------------------------------------------------------------------------------------------- pace


def test_a_connection_is_slow_where_less_came_than_a_disk_takes(clock: Clock) -> None:
    pace = Pace(clock=clock)
    clock.now += 10
    assert not pace.is_slow(1000), "the first bytes: before them the server was thinking"
    clock.now += ranges.LOOK_S / 2
    assert not pace.is_slow(1001), "too soon to tell"
    clock.now += ranges.LOOK_S
    assert pace.is_slow(MB)
    clock.now += ranges.LOOK_S
    assert not pace.is_slow(MB + round(ranges.SLOW_BYTES_PER_S * ranges.LOOK_S) + 1)
    clock.now += ranges.LOOK_S
    assert pace.is_slow(MB + round(ranges.SLOW_BYTES_PER_S * ranges.LOOK_S) + 2), "it is the last look that counts"


# -------------------------------------------------------------------------------------------------------------- helpers


def helping() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fsdm-range"]


@dataclass
class Crowd:
    """Work that waits until it is let go, and counts who does it."""

    here: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        self.here.append(threading.current_thread().name)
        assert self.gate.wait(PATIENCE_S)


def test_there_are_so_many_helpers_over_all_files_and_no_more(request: pytest.FixtureRequest) -> None:
    helpers, crowd = Helpers(4, 5), Crowd()
    request.addfinalizer(crowd.gate.set)
    files = [
        InThread(lambda: helpers.fetch_pieces(Pieces(0, 1, 1), crowd.work, crowd.work)),
        InThread(lambda: helpers.fetch_pieces(Pieces(0, 1, 1), crowd.work, crowd.work)),
        InThread(lambda: helpers.fetch_pieces(Pieces(0, 1, 1), crowd.work, crowd.work)),
    ]
    eventually(lambda: len(crowd.here) == 3 + 5, "all are at work")
    assert len(helping()) == 5
    crowd.gate.set()
    assert [file.join() for file in files] == [None] * 3
    assert helping() == []
    again = Crowd()
    file = InThread(lambda: helpers.fetch_pieces(Pieces(0, 1, 1), again.work, again.work))
    eventually(lambda: len(again.here) == 4, "their places are free again")
    again.gate.set()
    assert file.join() is None


def test_a_file_for_which_there_is_no_helper_comes_over_one_connection() -> None:
    crowd = Crowd()
    crowd.gate.set()
    Helpers(4, 0).fetch_pieces(Pieces(0, 1, 1), crowd.work, crowd.work)
    assert len(crowd.here) == 1


def test_where_no_more_threads_can_be_started_those_that_are_there_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers, crowd, left, start = Helpers(4, 3), Crowd(), [1], threading.Thread.start
    crowd.gate.set()

    def refuse(thread: threading.Thread) -> None:
        if not left.pop() if left else True:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        helpers.fetch_pieces(Pieces(0, 1, 1), crowd.work, crowd.work)
    assert len(crowd.here) == 2
    after = Crowd()
    file = InThread(lambda: helpers.fetch_pieces(Pieces(0, 1, 1), after.work, after.work))
    eventually(lambda: len(after.here) == 4, "no place was lost")
    after.gate.set()
    assert file.join() is None


@pytest.mark.parametrize("kind", [TransferError, StoppedError, OSError, KeyError])
def test_what_a_helper_raises_ends_the_others_and_is_raised_when_all_have_ended(kind: type[Exception]) -> None:
    pieces, first = Pieces(0, 100 * PIECE_MIN_BYTES, 1), kind("of a helper")
    failed, others = threading.Event(), []

    def help_out() -> None:
        if not failed.is_set():
            pieces.failed(first)
            failed.set()
        raise TransferError("a later one")

    def work() -> None:
        assert failed.wait(PATIENCE_S)
        others.append(pieces.take())

    with pytest.raises(kind, match="of a helper"):
        Helpers(4, 3).fetch_pieces(pieces, work, help_out)
    assert others == [None]
    assert helping() == []


def test_a_thread_that_is_interrupted_lets_its_helpers_begin_nothing_more() -> None:
    pieces, begun = Pieces(0, 100 * PIECE_MIN_BYTES, 1), threading.Event()
    taken: list[Piece | None] = []

    def help_out() -> None:
        begun.set()
        eventually(lambda: pieces.error, "it has been interrupted")
        taken.append(pieces.take())

    def work() -> None:
        assert begun.wait(PATIENCE_S)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Helpers(2, 1).fetch_pieces(pieces, work, help_out)
    assert taken == [None]
    assert helping() == []


# ------------------------------------------------------------------------------------------------------ whole transfers

SIZE = 900_000
SLOW_AT = 100_000
PIECE = 40_000
NEW = content("a large file", SIZE)
DIGEST = blake3(NEW).hexdigest()
SHA256 = hashlib.sha256(NEW).hexdigest()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Files of some hundred kB are large here, a trial does not end, and a transfer that broke ends its attempt."""
    if "part" not in request.fixturenames:
        return
    monkeypatch.setattr(ranges, "LOOK_S", 0.005)
    monkeypatch.setattr(ranges, "PIECE_MIN_BYTES", PIECE)
    monkeypatch.setattr(ranges, "PIECE_MAX_BYTES", PIECE)
    monkeypatch.setattr(ranges, "TRIAL_S", 1e9)
    monkeypatch.setattr(source_fetch_module, "LEAST_BYTES", PIECE)
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1 << 40)
    monkeypatch.setattr(exchange, "LOOK_S", 0.005)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(str(tmp_path / "file"))


@pytest.fixture
def fetcher() -> HttpFetcher:
    return HttpFetcher()


@pytest.fixture
def url(source: Source) -> str:
    source.fault("/file", drip_at=SLOW_AT)
    return source.put("/file", NEW)


def fetch(fetcher: HttpFetcher, url: str, part: Part, stop: Cancellation | None = None, **known: Any) -> FileEntry:
    return fetcher.fetch(FileSource(url=url, **known), part, FileSystem(), stop or Cancellation())


def is_new(part: Part, entry: object) -> bool:
    with open(part.path, "rb") as file:
        return file.read() == NEW and (getattr(entry, "size", entry), getattr(entry, "blake3", entry)) == (SIZE, DIGEST)


def asked(source: Source, path: str = "/file") -> list[str]:
    """The Range of each request, or ""."""
    return [head.get("Range", "") for head in source.heads.get(path, [])]


def pieces_asked(source: Source) -> list[Piece]:
    """The ranges with an end that were asked for, in the file's order."""
    spans = [span.removeprefix("bytes=").split("-") for span in asked(source)]
    return sorted((int(start), int(last) + 1) for start, last in filter(lambda s: len(s) == 2 and s[1], spans))


def without_an_end(source: Source, path: str = "/file") -> list[str]:
    return [span for span in asked(source, path) if not span or span.endswith("-")]


def open_files(path: str) -> int:
    """How many descriptors of this process are of a file."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}") == path
        except FileNotFoundError:
            continue
    return count


@pytest.fixture(params=["http", "https"])
def over(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """A source that speaks one of the schemes."""
    tls = None
    if request.param == "https":
        certificate = a_certificate(tmp_path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
        tls = serving_with(certificate)
    with Source(tls) as source:
        yield source


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"blake3": DIGEST, "size": SIZE}])
def test_slow_file_comes_over_several_connections(
    over: Source, fetcher: HttpFetcher, part: Part, known: dict[str, Any]
) -> None:
    source, together = over, threading.Barrier(PER_FILE, timeout=PATIENCE_S)
    first = iter(range(PER_FILE))

    def piece(start: int, end: int) -> None:
        if next(first, None) is not None:
            together.wait()

    source.fault("/file", drip_at=SLOW_AT, piece=piece)
    entry = fetch(fetcher, source.put("/file", NEW), part, **known)
    assert is_new(part, entry)
    assert entry.sha256 == known.get("sha256")
    taken = pieces_asked(source)
    assert asked(source)[0] == ""
    assert len(taken) == len(asked(source)) - 1
    assert taken[0][0] > 0, "what had come before is kept"
    assert [start for start, _ in taken[1:]] == [end for _, end in taken[:-1]]
    assert taken[-1][1] == SIZE
    assert helping() == []
    assert open_files(part.path) == 0


def test_connections_of_the_helpers_serve_the_next_file(
    source: Source, url: str, fetcher: HttpFetcher, part: Part
) -> None:
    assert is_new(part, fetch(fetcher, url, part))
    assert 1 < len(fetcher.engine._idle) <= PER_FILE


def test_what_an_earlier_attempt_left_is_gone_on_with_in_pieces(
    source: Source, url: str, fetcher: HttpFetcher, part: Part
) -> None:
    source.fault("/file", cut_at=SLOW_AT)
    with pytest.raises(TransferError, match=CUT_SHORT):
        fetch(HttpFetcher(per_file=1), url, part)  # a busy machine looks like a slow server
    source.fault("/file", drip_at=SLOW_AT)
    assert is_new(part, fetch(fetcher, url, part))
    assert asked(source)[1] == f"bytes={SLOW_AT}-"
    assert pieces_asked(source)[0][0] > SLOW_AT


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}])
def test_a_piece_is_of_the_version_that_is_here_where_the_server_says_which(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, known: dict[str, Any]
) -> None:
    assert is_new(part, fetch(fetcher, url, part, **known))
    assert {head.get("If-Range") for head in source.heads["/file"]} == {None, source.heads["/file"][-1]["If-Range"]}


# ------------------------------------------------------------------------------------------------------ where it is not


@pytest.mark.parametrize(
    ("how", "fault", "known"),
    [
        ({}, {"headers": {"Accept-Ranges": "none"}}, {"sha256": SHA256}),
        ({}, {"headers": {"Accept-Ranges": ""}}, {}),
        ({}, {"headers": {"ETag": ""}}, {}),  # nothing says of which version a piece would be
        ({}, {"headers": {"ETag": 'W/"weak"'}}, {"size": SIZE}),
        ({}, {"no_length": True}, {}),  # nobody knows how much is missing
        ({"per_file": 1}, {}, {}),
        ({"bytes_per_s": 1e12}, {}, {}),
    ],
)
def test_a_slow_file_comes_over_one_connection_where_there_is_a_reason(
    source: Source, url: str, part: Part, how: dict[str, Any], fault: dict[str, Any], known: dict[str, Any]
) -> None:
    source.fault("/file", drip_at=SLOW_AT, drips=30, **fault)
    assert is_new(part, fetch(HttpFetcher(**how), url, part, **known))
    assert asked(source) == [""]


@pytest.mark.parametrize("fault", [{"headers": {"ETag": ""}}, {"headers": {"ETag": 'W/"weak"'}}])
def test_a_digest_in_the_want_is_as_good_as_a_validator(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, fault: dict[str, Any]
) -> None:
    source.fault("/file", drip_at=SLOW_AT, **fault)
    assert is_new(part, fetch(fetcher, url, part, sha256=SHA256))
    assert pieces_asked(source)


def test_too_little_is_missing_to_be_worth_it(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LEAST_BYTES == 2 << 20
    monkeypatch.setattr(source_fetch_module, "LEAST_BYTES", SIZE - SLOW_AT + 1)
    monkeypatch.setattr(ranges.Pace, "is_slow", lambda _, size: size > SLOW_AT)  # not before, on a busy machine
    source.fault("/file", drip_at=SLOW_AT, drips=30)
    assert is_new(part, fetch(fetcher, url, part))
    assert asked(source) == [""]


def test_server_that_gives_no_more_over_several_connections_gets_no_helpers(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "TRIAL_S", 0.0)
    monkeypatch.setattr(ranges, "GAIN", float("inf"))
    assert is_new(part, fetch(fetcher, url, part))
    assert pieces_asked(source)[-1][1] == SIZE, "this thread has brought the rest"
    assert not fetcher.hosts.get(url).gain.may_split()
    source.fault("/other", drip_at=SLOW_AT, drips=30)
    fetch(fetcher, source.put("/other", NEW), Part(part.path + "2"))
    assert asked(source, "/other") == [""]


# ----------------------------------------------------------------------------------------------- pieces that do not fit

Wrong = Callable[[int, int], dict[str, Any]]  # by the first byte of a piece and the one behind it: see `Fault`


def spanning(start: int, end: int, total: object = SIZE) -> dict[str, Any]:
    return {"headers": {"Content-Range": f"bytes {start}-{end - 1}/{total}"}}


MISFITS: dict[str, Wrong] = {  # in what a piece is wrong that is right otherwise
    "all of another version": lambda start, end: {"headers": {"ETag": '"other"'}},
    "a part of another version": lambda start, end: {"headers": {"etag": '"other"'}},  # beside the right one
    "of another total": lambda start, end: spanning(start, end, SIZE + 1),
    "of an unknown total": lambda start, end: spanning(start, end, "*"),
    "from elsewhere": lambda start, end: spanning(0, end - start),
    "a byte earlier": lambda start, end: spanning(start - 1, end - 1),
    "from a byte earlier on": lambda start, end: spanning(start - 1, end),
    "shorter than asked": lambda start, end: spanning(start, end - 1),
    "longer than asked": lambda start, end: spanning(start, end + 1),
    "of another length than its range": lambda start, end: {"headers": {"Content-Length": "1"}},
    "without a range": lambda start, end: {"headers": {"Content-Range": ""}},
    "all of it": lambda start, end: {"no_ranges": True},
    "416": lambda start, end: {"ranged": (416, {"Content-Range": f"bytes */{SIZE}"})},
    "chunked and shorter": lambda start, end: {"chunked": NEW[start : end - 1]},
    "chunked and longer": lambda start, end: {"chunked": NEW[start:end] + b"x"},
    "chunked and empty": lambda start, end: {"chunked": b""},
    "chunked and endless": lambda start, end: {"chunked": NEW[start:end] + bytes(2000), "stall_at": end - start + 1000},
}


def misfit(wrong: Wrong) -> Callable[[int, int], Fault | None]:
    """The second piece and all after it are not what was asked for."""
    seen = threading.Event()

    def piece(start: int, end: int) -> Fault | None:
        if not seen.is_set():
            seen.set()
            return None
        how = wrong(start, end)
        if "Content-Range" in (headers := how.get("headers", {})):  # its body is the one that it says
            how = {"ranged": (206, {"ETag": etag_of(NEW)} | headers)}
        return Fault(**how)

    return piece


@pytest.mark.parametrize("wrong", MISFITS.values(), ids=MISFITS)
def test_a_piece_that_does_not_fit_has_the_file_fetched_afresh_over_one_connection(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, wrong: Wrong
) -> None:
    source.fault("/file", drip_at=SLOW_AT, drips=60, piece=misfit(wrong))
    assert is_new(part, fetch(fetcher, url, part))
    assert without_an_end(source) == ["", ""]
    assert asked(source)[-1] == "", "and it is not tried again"
    assert helping() == []
    assert open_files(part.path) == 0
    source.fault("/other", drip_at=SLOW_AT, drips=30)
    fetch(fetcher, source.put("/other", NEW), Part(part.path + "2"))
    assert asked(source, "/other") == [""], "this server is not trusted with pieces for a while"


def test_pieces_may_come_in_chunks(source: Source, url: str, fetcher: HttpFetcher, part: Part) -> None:
    source.faults["/file"].piece = lambda start, end: Fault(chunked=NEW[start:end])
    assert is_new(part, fetch(fetcher, url, part))
    assert without_an_end(source) == [""]


def test_file_whose_pieces_do_not_fit_is_begun_afresh_once(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "REMEMBERED_S", 0.0)
    source.fault("/file", drip_at=SLOW_AT, drips=60, piece=misfit(MISFITS["all of it"]))
    assert is_new(part, fetch(fetcher, url, part))
    assert without_an_end(source) == ["", ""]


def test_pieces_that_do_not_add_up_to_the_digest_are_fetched_afresh_once(
    source: Source, url: str, fetcher: HttpFetcher, part: Part
) -> None:
    other = Fault(body=bytes(SIZE), headers={"ETag": etag_of(NEW)})
    source.fault("/file", drip_at=SLOW_AT, drips=60, piece=lambda start, end: other)
    assert is_new(part, fetch(fetcher, url, part, sha256=SHA256))
    assert pieces_asked(source)[-1][1] == SIZE, "all of them came"
    assert without_an_end(source) == ["", ""]
    assert asked(source)[-1] == "", "for its ranges may be what is wrong"


# --------------------------------------------------------------------------------------------------- pieces that break

HOLE = 400_000
BREAKS: dict[str, dict[str, Any]] = {
    "busy": {"status": 503},
    "cut": {"cut_at": PIECE // 2},
    "cut before a byte": {"cut_at": 0},
    "silent": {"stall_at": PIECE // 2},
}
SAID = {"busy": "HTTP 503", "cut": CUT_SHORT, "cut before a byte": CUT_SHORT, "silent": "not a byte for 1 s"}


def breaking(name: str) -> Callable[[int, int], Fault | None]:
    """The piece with the byte HOLE breaks; the others come."""
    return lambda start, end: Fault(**BREAKS[name]) if start <= HOLE < end else None


def piece_of_the_hole(source: Source) -> Piece:
    return next((start, end) for start, end in pieces_asked(source) if start <= HOLE < end)


def kept(part: Part) -> list[Piece]:
    """What the record says is in the file; it is, and has these digests."""
    record = part.record
    assert record is not None
    with open(part.path, "rb") as file:
        there = file.read()
    assert record.blake3 == blake3(NEW[: record.size]).hexdigest()
    known = [(0, record.size), *((extent.start, extent.end) for extent in record.extents)]
    assert [blake3(NEW[start:end]).hexdigest() for start, end in known[1:]] == [it.blake3 for it in record.extents]
    assert all(there[start:end] == NEW[start:end] for start, end in known)
    assert record.holes == (len(known) > 1)
    assert len(there) >= known[-1][1]
    return known


def written(record: PartRecord | None) -> int:
    """The bytes that a record knows."""
    assert record is not None
    return record.size + sum(extent.end - extent.start for extent in record.extents)


def missing(known: list[Piece], size: int = SIZE) -> list[Piece]:
    """The holes between what is known, up to the file's end."""
    spans = pairwise([*known, (size, size)])
    return [(end, after[0]) for (_, end), after in spans if end < after[0]]


def spans_asked(source: Source, since: int) -> list[Piece]:
    """The ranges that were asked for since so many requests, joined."""
    spans = [span.removeprefix("bytes=").split("-") for span in asked(source)[since:]]
    return [span for span in joined((int(start), int(last or SIZE - 1) + 1) for start, last in spans) if span[1]]


@pytest.mark.parametrize("one_connection", [False, True])
@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}])
@pytest.mark.parametrize("name", BREAKS)
def test_where_a_piece_breaks_all_that_came_is_kept_and_the_holes_are_asked_for(
    source: Source, url: str, part: Part, name: str, known: dict[str, Any], one_connection: bool
) -> None:
    fetcher = HttpFetcher(idle_timeout_s=1.0)  # of a piece: a busy machine is no silent server
    source.fault("/file", drip_at=SLOW_AT, piece=breaking(name))
    with pytest.raises(TransferError, match=SAID[name]) as caught:
        fetch(fetcher, url, part, **known)
    assert caught.value.transient
    assert helping() == []
    assert open_files(part.path) == 0
    here, before = kept(part), source.asked["/file"]
    start, end = piece_of_the_hole(source)
    assert not any(a < end and start + BREAKS[name].get("cut_at", PIECE // 2) < b for a, b in here)
    assert os.path.getsize(part.path) == here[-1][1]
    if one_connection:
        del source.faults["/file"]
    else:
        source.fault("/file", drip_at=PIECE // 4)
    assert is_new(part, fetch(HttpFetcher(per_file=1 if one_connection else PER_FILE), url, part, **known))
    assert spans_asked(source, before) == missing(here)


def test_where_a_piece_breaks_after_some_have_come_the_rest_is_asked_for_at_once(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1000)
    source.fault("/file", drip_at=SLOW_AT, drips=60, piece=breaking("cut"))
    assert is_new(part, fetch(fetcher, url, part))
    assert without_an_end(source)[0] == ""
    start, _ = piece_of_the_hole(source)
    assert f"bytes={start + PIECE // 2}-" in {span[: span.index("-") + 1] for span in asked(source)[1:]}
    assert fetcher.hosts.get(url).gain.may_split() is False, "over one connection: the trial has failed"


def test_what_came_behind_a_hole_is_progress_and_the_rest_is_asked_for_at_once(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.fault("/file", cut_at=SLOW_AT)
    with pytest.raises(TransferError, match=CUT_SHORT):
        fetch(HttpFetcher(per_file=1), url, part)
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 4 * PIECE)
    begun = threading.Event()

    def piece(start: int, end: int) -> Fault | None:
        if begun.is_set():
            return None
        begun.set()
        eventually(lambda: os.path.getsize(part.path) == SIZE, "all that is behind it has come")
        return Fault(cut_at=0)

    source.fault("/file", drip_at=1000, piece=piece)
    assert is_new(part, fetch(fetcher, url, part))


def test_a_piece_that_is_refused_until_later_is_not_asked_for_at_once(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1000)
    source.faults["/file"].piece = lambda start, end: Fault(status=503, headers={"Retry-After": "60"})
    with pytest.raises(TransferError) as caught:
        fetch(fetcher, url, part)
    assert caught.value.retry_after_s == 60
    assert without_an_end(source) == [""]


def test_refusal_behind_refused_pieces_may_pass(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that allows one connection a client may still count those that have ended."""
    monkeypatch.setattr(source_fetch_module, "LINGER_S", 0.0)
    fault = source.faults["/file"]

    def piece(start: int, end: int) -> Fault:
        fault.status = 403
        return Fault(status=403)

    fault.piece = piece
    with pytest.raises(TransferError, match="403") as caught:
        fetch(fetcher, url, part)
    assert caught.value.transient
    fault.status = 200
    asked_before = len(pieces_asked(source))
    assert is_new(part, fetch(fetcher, url, part))
    assert len(pieces_asked(source)) == asked_before


def test_a_disk_that_refuses_a_piece_is_no_fault_of_the_transfer(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Slice, *args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Slice, "__init__", refuse)
    with pytest.raises(OSError, match="No space left"):
        fetch(fetcher, url, part)
    assert helping() == []
    assert open_files(part.path) == 0


# ------------------------------------------------------------------------------------------------------- stops, crashes


@pytest.fixture
def held() -> Iterator[list[Fault]]:
    """What stalls, until the test has ended."""
    held: list[Fault] = []
    yield held
    for fault in held:
        fault.gate.set()


def stalling(held: list[Fault]) -> Fault:
    held.append(Fault(stall_at=PIECE // 2))
    return held[-1]


def test_a_stop_ends_all_connections_of_a_file_at_once(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, held: list[Fault]
) -> None:
    stop = Cancellation()
    source.faults["/file"].piece = lambda start, end: stalling(held)
    transfer = InThread(lambda: fetch(fetcher, url, part, stop))
    eventually(lambda: sum(fault.stalled.is_set() for fault in held) == PER_FILE, "all four wait")
    stop.set()
    assert isinstance(transfer.join(), StoppedError)
    assert helping() == []
    assert open_files(part.path) == 0
    here, before = kept(part), source.asked["/file"]
    assert 1 <= len(here) <= PER_FILE
    assert fetcher.hosts.get(url).gain.may_split(), "it says nothing of the server"
    del source.faults["/file"]
    assert is_new(part, fetch(fetcher, url, part))
    assert spans_asked(source, before) == missing(here)


@pytest.mark.parametrize("checkpoint", [1, 1 << 40])
@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}])
@pytest.mark.parametrize("same_boot", [True, False])
def test_after_a_crash_amid_pieces_only_what_the_record_proves_is_taken_over(
    source: Source,
    url: str,
    fetcher: HttpFetcher,
    part: Part,
    held: list[Fault],
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: int,
    known: dict[str, Any],
    same_boot: bool,
) -> None:
    monkeypatch.setattr(transfer, "RECORD_BYTES", 1)
    monkeypatch.setattr(transfer, "HOLES_CHECKPOINT_BYTES", checkpoint)
    saved, stop = list[PartRecord | None](), Cancellation()
    source.faults["/file"].piece = lambda start, end: stalling(held) if start <= HOLE < end else None
    part.save = lambda: saved.append(part.record)
    running = InThread(lambda: fetch(fetcher, url, part, stop, **known))
    eventually(lambda: held and held[0].stalled.is_set(), "there is a hole")
    eventually(lambda: os.path.getsize(part.path) == SIZE, "and what is behind it has come")
    if checkpoint == 1:
        eventually(lambda: written(saved[-1]) >= SIZE - PIECE, "it is written down")
    after = Part(shutil.copy(part.path, part.path + ".crashed"), saved[-1], same_boot=same_boot)
    stop.set()
    assert isinstance(running.join(), StoppedError)
    assert after.record is not None
    assert after.record.holes
    begun = pieces_asked(source)[0][0]
    here = kept(after) if checkpoint == 1 else [(0, begun)]
    assert after.record.size == here[0][1]
    assert sum(end - start for start, end in here) >= (SIZE - PIECE if checkpoint == 1 else begun)
    del source.faults["/file"]
    before = source.asked["/file"]
    assert is_new(after, fetch(HttpFetcher(), url, after, **known))
    assert spans_asked(source, before) == missing(here)


def test_how_far_the_pieces_are_in_line_is_written_down_now_and_then(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RECORD_BYTES", 1)
    monkeypatch.setattr(transfer, "HOLES_CHECKPOINT_BYTES", 3 * PIECE)
    saved: list[PartRecord | None] = []
    part.save = lambda: saved.append(part.record)
    assert is_new(part, fetch(fetcher, url, part))
    amid = [record for record in saved if record is not None and record.holes]
    assert amid[0].size == pieces_asked(source)[0][0], "before the first piece"
    assert len(amid) >= 2
    assert all(record.blake3 == blake3(NEW[: record.size]).hexdigest() for record in amid)
    assert part.record is not None
    assert (part.record.holes, part.record.complete) == (False, True)


def test_a_disk_that_is_full_amid_a_piece_keeps_what_has_come(
    source: Source, url: str, fetcher: HttpFetcher, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Slice.put

    def refuse(self: Slice, data: bytes | memoryview) -> None:
        if self.here[0] <= HOLE < self.here[0] + PIECE:
            eventually(lambda: os.path.getsize(part.path) == SIZE, "the pieces behind it have come")
            raise OSError(28, "No space left on device")
        put(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Slice, "put", refuse)
        with pytest.raises(OSError, match="No space left"):
            fetch(fetcher, url, part)
    here, before = kept(part), source.asked["/file"]
    start, _ = piece_of_the_hole(source)
    assert here[0][1] == start
    assert here[-1][1] == SIZE
    assert is_new(part, fetch(fetcher, url, part))
    assert spans_asked(source, before) == missing(here)


def test_what_comes_while_another_thread_counts_is_counted_by_that_one(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "HOLES_CHECKPOINT_BYTES", 1)
    file = transfer.Transfer(FileSource(url=f"{HOST}/file", sha256=SHA256), part, FileSystem(), durable=False)
    file.accept(f"{HOST}/file", Head.of(200, {"Content-Length": str(SIZE)}.items()), ranged=False)
    pieces = file.split(1)
    first, second = pieces.take(), pieces.take()
    assert first is not None
    assert second is not None

    def come(piece: Piece) -> None:
        with file.open_slice(piece) as place:
            place.put(NEW[slice(*piece)])
        pieces.came(piece)
        file.advance(pieces)

    def meanwhile() -> None:
        part.save = lambda: None
        come(first)
        assert file.size == 0, "one at a time"

    part.save = meanwhile
    come(second)
    assert file.size == second[1]
    file.mend(pieces)
    file.close()
    assert kept(part) == [(0, second[1])]


def test_a_host_that_stalls_pieces_is_told_of(source: Source, url: str, part: Part) -> None:
    source.faults["/file"].piece = lambda start, end: Fault(stall_at=0)
    with pytest.raises(HostError, match="not a byte"):
        fetch(HttpFetcher(idle_timeout_s=0.2), url, part)
