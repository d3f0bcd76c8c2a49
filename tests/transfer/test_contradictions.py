"""Answers that contradict themselves, the record or the request: joined where they fit, else asked for plainly."""

import gc
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.errors import TransferError
from fsdm.model.parts import PartRecord
from fsdm.store.filesystem import FileSystem
from fsdm.transfer import segments, source_fetch
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http import exchange
from fsdm.transfer.resume_record import Part, url_mark
from fsdm.transfer.segments import Piece, Pieces
from tests.support import PATIENCE_S, Fault, etag_of
from tests.support.chunks import content
from tests.support.servers import answering
from tests.support.source import Source

pytestmark = pytest.mark.usefixtures("transport")

SIZE = 300_000
DATA = content("a file", SIZE)
HALF = SIZE // 2
PROOF = {"sha256": hashlib.sha256(DATA).hexdigest()}


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(str(tmp_path / "file"))


def fetch(url: str, part: Part, fetcher: HttpFetcher | None = None, **known: Any) -> FileEntry:
    source = FileSource(url=url, **known)
    return (fetcher or HttpFetcher()).fetch(source, part, FileSystem(), Cancellation())


def half(part: Part, url: str, **record: Any) -> Part:
    """The first half of the file is here."""
    with open(part.path, "wb") as file:
        file.write(DATA[:HALF])
    part.record = PartRecord(**{"url": url_mark(url), "validator": etag_of(DATA), "total": SIZE, **record})
    part.same_boot = True
    return part


def is_whole(part: Part) -> bool:
    with open(part.path, "rb") as file:
        return file.read() == DATA


def ranges(source: Source) -> list[str | None]:
    return [head.get("Range") for head in source.heads["/file"]]


def answer(body: bytes, status: str = "200 OK", **fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


# ------------------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("length", ["+10", "1_0", "-5", "0x0a", "10 10", "10, 11", "", "99999999999999999999"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_length_that_is_none_is_refused(part: Part, length: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    with answering([head.encode() + b"0123456789"]) as (url, _), pytest.raises(TransferError, match="Content-Length"):
        fetch(url, part)
    gc.collect()  # urllib3 leaves the socket of two lengths to the garbage collector


@pytest.mark.parametrize("span", ["0-+9/10", "0-9/1_0", "-0-9/10", "0-9/-10"])
def test_range_with_a_number_that_is_none_is_refused(part: Part, span: str) -> None:
    with (
        answering([answer(b"0123456789", "206 P", Content_Range=f"bytes {span}")]) as (url, _),
        pytest.raises(TransferError, match="a part that nobody asked for"),
    ):
        fetch(url, part)


UNENDED = b"HTTP/1.0 200 OK\r\n\r\n" + DATA


@pytest.mark.parametrize(("known", "unproven"), [({}, True), ({"size": SIZE}, None), (PROOF, None)])
def test_file_whose_end_nothing_proves_is_said_to_be_unproven(
    part: Part, known: dict[str, Any], unproven: bool | None
) -> None:
    with answering([UNENDED]) as (url, _):
        assert fetch(url, part, **known).unproven is unproven
        assert fetch(url, part, **known).unproven is unproven, "it was here already"


def test_file_whose_end_nothing_proves_can_be_refused(part: Part) -> None:
    known: dict[str, Any]
    with answering([UNENDED] * 4) as (url, _):
        with pytest.raises(TransferError, match="has no length") as caught:
            fetch(url, part, HttpFetcher(require_length=True))
        assert not caught.value.transient
        for limits, known in (({"require_length": True}, PROOF), ({"require_length": True}, {"size": SIZE}), ({}, {})):
            Path(part.path).unlink(missing_ok=True)
            part.record = None
            assert fetch(url, part, HttpFetcher(**limits), **known).size == SIZE


# ------------------------------------------------------------------------------------------------- parts of any status


@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content"])
def test_part_that_fits_is_joined_whatever_its_status(part: Part, status: str) -> None:
    rest = answer(DATA[HALF:], status, Content_Range=f"Bytes {HALF}-{SIZE - 1}/{SIZE}", ETag=etag_of(DATA))
    with answering([rest]) as (url, asked):
        assert fetch(url, half(part, url)).size == SIZE
    assert is_whole(part)
    assert len(asked) == 1


@pytest.mark.parametrize("span", [f"bytes 0-999/{SIZE}", f"bytes 5-1004/{SIZE}", "bytes 0-999/*", "nonsense"])
def test_part_that_does_not_fit_is_not_published_for_the_whole_though_it_says_200(part: Part, span: str) -> None:
    misfit = answer(b"x" * 1000, Content_Range=span, ETag=etag_of(DATA))
    with answering([misfit, answer(DATA)]) as (url, asked):
        assert fetch(url, half(part, url)).size == SIZE
    assert is_whole(part)
    assert [b"Range: " in request for request in asked] == [True, False]


@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content"])
def test_part_that_nobody_asked_for_is_gone_on_from_where_it_is_the_beginning(part: Part, status: str) -> None:
    first = answer(DATA[:1000], status, Content_Range=f"bytes 0-999/{SIZE}", ETag=etag_of(DATA))
    rest = answer(DATA[1000:], "206 P", Content_Range=f"bytes 1000-{SIZE - 1}/{SIZE}", ETag=etag_of(DATA))
    with answering([first, rest]) as (url, asked):
        assert fetch(url, part).size == SIZE
    assert is_whole(part)
    assert b"Range: bytes=1000-" in asked[1]


def test_whole_file_that_says_206_unasked_is_taken(part: Part) -> None:
    with answering([answer(DATA, "206 P", Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}")]) as (url, _):
        assert fetch(url, part).size == SIZE
    assert is_whole(part)


@pytest.mark.parametrize("span", [f"bytes 5-1004/{SIZE}", "bytes 0-999/*", "nonsense", f"bytes 0-99/{SIZE}"])
def test_part_that_nobody_asked_for_is_no_file(part: Part, span: str) -> None:
    with (
        answering([answer(b"x" * 1000, Content_Range=span)]) as (url, _),
        pytest.raises(TransferError, match="HTTP 200, a part that nobody asked for") as caught,
    ):
        fetch(url, part)
    assert not caught.value.transient


def test_beginning_that_cannot_be_gone_on_from_is_no_file(part: Part) -> None:
    with (
        answering([answer(DATA[:1000], Content_Range=f"bytes 0-999/{SIZE}")]) as (url, _),
        pytest.raises(TransferError, match=f"1000 bytes came, {SIZE} are wanted"),
    ):
        fetch(url, part)


def test_other_length_of_the_very_version_that_is_here_is_asked_for_again(part: Part) -> None:
    short = answer(b"x" * 1000, ETag=etag_of(DATA))
    with answering([short, answer(DATA, ETag=etag_of(DATA))]) as (url, asked):
        assert fetch(url, half(part, url)).size == SIZE
    assert is_whole(part)
    assert [b"Range: " in request for request in asked] == [True, False]


def test_other_length_of_the_very_version_is_not_published_at_once(part: Part) -> None:
    short = answer(b"x" * 1000, ETag=etag_of(DATA))
    with answering([short] * 3) as (url, _):
        with pytest.raises(TransferError, match="of a version that had another length") as caught:
            fetch(url, half(part, url))
        assert caught.value.transient
        assert fetch(url, part).size == 1000, "a server that insists is believed by the next attempt"


# ---------------------------------------------------------------------------------- from the clever request to a plain


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_server_that_refuses_a_range_is_asked_for_the_whole(source: Source, part: Part, status: int) -> None:
    url = source.put("/file", DATA)
    source.fault("/file", ranged=(status, {}))
    fetch(url, half(part, url))
    assert is_whole(part)
    assert ranges(source) == [f"bytes={HALF}-", None]


def test_what_is_here_is_kept_until_the_plain_request_is_answered(source: Source, part: Part) -> None:
    url = source.put("/file", DATA)
    source.fault("/file", status=403)  # a signed URL that has expired
    with pytest.raises(TransferError, match="HTTP 403") as caught:
        fetch(url, half(part, url))
    assert not caught.value.transient
    assert ranges(source) == [f"bytes={HALF}-", None]
    del source.faults["/file"]
    fetch(url, part)
    assert is_whole(part)
    assert ranges(source)[2:] == [f"bytes={HALF}-"]


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (503, 1)])
def test_other_refusals_are_of_the_whole_file(source: Source, part: Part, status: int, asked: int) -> None:
    url = source.put("/file", DATA)
    source.fault("/file", status=status)
    with pytest.raises(TransferError, match=f"HTTP {status}"):
        fetch(url, half(part, url))
    assert len(ranges(source)) == asked


def test_digest_tells_where_validators_differ_from_node_to_node(source: Source, part: Part) -> None:
    url = source.put("/file", DATA)
    assert fetch(url, half(part, url, validator='"another node"'), **PROOF).size == SIZE
    assert is_whole(part)
    assert ranges(source) == [f"bytes={HALF}-", f"bytes={HALF}-"]
    assert ["If-Range" in head for head in source.heads["/file"]] == [True, False]


def test_digest_tells_where_a_part_has_another_validator(part: Part) -> None:
    rest = answer(DATA[HALF:], "206 P", Content_Range=f"bytes {HALF}-{SIZE - 1}/{SIZE}", ETag='"other"')
    with answering([rest]) as (url, _):
        assert fetch(url, half(part, url), **PROOF).size == SIZE
    assert is_whole(part)
    assert part.record is not None
    assert part.record.validator is None, "of which version the bytes are, no validator says any more"


def test_whole_file_is_taken_where_no_range_is_given_though_the_want_has_a_digest(source: Source, part: Part) -> None:
    url = source.put("/file", DATA)
    source.fault("/file", no_ranges=True)
    fetch(url, half(part, url), **PROOF)
    assert is_whole(part)
    assert len(ranges(source)) == 2


# ----------------------------------------------------------------------------------------------------------- progress


def test_server_that_gives_little_at_a_time_is_asked_on_at_once(part: Part) -> None:
    step = 32_000
    answers = [
        answer(
            DATA[at : at + step],
            "206 P",
            Content_Range=f"bytes {at}-{min(at + step, SIZE) - 1}/{SIZE}",
            ETag=etag_of(DATA),
        )
        for at in range(0, SIZE, step)
    ]
    with answering(answers) as (url, asked):
        assert fetch(url, part).size == SIZE
    assert is_whole(part)
    assert len(asked) == len(answers)


def test_server_that_gives_next_to_nothing_at_a_time_is_below_the_floor(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def one(at: int) -> bytes:
        return answer(DATA[at : at + 1], "206 P", Content_Range=f"bytes {at}-{at}/{SIZE}", ETag=etag_of(DATA))

    class Ticking(source_fetch.Floor):
        def took(self, count: int) -> bool:
            now[0] += 30.0
            return super().took(count)

    monkeypatch.setattr(source_fetch, "Floor", lambda floor: Ticking(floor, clock=lambda: now[0]))
    with answering(map(one, range(100))) as (url, asked), pytest.raises(TransferError, match="bytes a second"):
        fetch(url, part)
    assert len(asked) == 2


@pytest.mark.parametrize(("status", "fields"), [(202, {"Retry-After": "7"}), (403, {"Retry-After": "7"})])
def test_retry_after_is_heeded_on_any_status_and_for_the_host(
    source: Source, part: Part, status: int, fields: dict[str, str]
) -> None:
    fetcher, url = HttpFetcher(), source.put("/file", DATA)
    source.fault("/file", status=status, headers=fields)
    with pytest.raises(TransferError, match=f"HTTP {status}") as caught:
        fetch(url, part, fetcher)
    assert (caught.value.transient, caught.value.retry_after_s, caught.value.hint) == (True, 7.0, "")
    with pytest.raises(TransferError, match="left alone for a while"):
        fetch(source.put("/other", DATA), part, fetcher)
    assert source.asked == {"/file": 1}


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_slowed_down_to_without_being_told_for_how_long(source: Source, part: Part, status: int) -> None:
    fetcher, url = HttpFetcher(), source.put("/file", DATA)
    source.fault("/file", status=status)
    for _ in range(50):
        with pytest.raises(TransferError, match=f"HTTP {status}"):
            fetch(url, part, fetcher)
    assert source.asked["/file"] <= 3


# ------------------------------------------------------------------------------------------------- a helper is refused


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of some hundred kB are large here, and a trial does not end."""
    for module, name, value in (
        (segments, "PIECE_MIN_BYTES", 40_000),
        (segments, "PIECE_MAX_BYTES", 40_000),
        (segments, "LOOK_S", 0.005),
        (segments, "TRIAL_S", 1e9),
        (source_fetch, "LEAST_BYTES", 40_000),
        (source_fetch, "WORTH_BYTES", 1000),
        (exchange, "LOOK_S", 0.005),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("status", [400, 403, 429])
def test_refused_piece_ends_the_splitting_and_not_the_file(
    source: Source, part: Part, small_pieces: None, status: int
) -> None:
    refused = iter([Fault(status=status)])
    fetcher, url = HttpFetcher(per_file=2), source.put("/file", DATA)
    source.fault("/file", drip_at=50_000, drips=30, piece=lambda *_: next(refused, None))
    assert fetch(url, part, fetcher).size == SIZE
    assert is_whole(part)
    assert next(refused, None) is None
    assert not fetcher.hosts.get(url).gain.may_split(), "for a while, which is longer than a backoff"


def test_piece_of_a_refused_helper_is_brought_by_the_first_connection(
    source: Source, part: Part, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, bring_one = threading.Event(), source_fetch.SourceFetch._bring_one

    def refuse_helpers(self: source_fetch.SourceFetch, pieces: Pieces, piece: Piece) -> None:
        if threading.current_thread().name == "fsdm-range":
            refused.set()
            raise TransferError("HTTP 429", transient=True)
        assert refused.wait(PATIENCE_S)
        bring_one(self, pieces, piece)

    monkeypatch.setattr(source_fetch.SourceFetch, "_bring_one", refuse_helpers)
    url = source.put("/file", DATA)
    source.fault("/file", drip_at=50_000, drips=30)
    assert fetch(url, part, HttpFetcher(per_file=2)).size == SIZE
    assert is_whole(part)
    assert [asked for asked in ranges(source) if asked is None or asked.endswith("-")] == [None], "none is lost"


UNCLEAR = "a Transfer-Encoding that requests does not take off|is not clear about the end of its body"


@pytest.mark.parametrize(
    "field",
    ["Transfer-Encoding: ,", "Transfer-Encoding: ", "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_framing_that_two_readers_may_read_differently_is_refused(part: Part, field: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{field}\r\n\r\n"
    with (
        answering([head.encode() + b"4\r\nbody\r\n0\r\n\r\n"]) as (url, _),
        pytest.raises(TransferError, match=UNCLEAR),
    ):
        fetch(url, part)
    assert not os.path.exists(part.path) or os.path.getsize(part.path) == 0


def test_answer_without_a_length_is_as_long_as_its_version_was(part: Part) -> None:
    head = "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: {}\r\n\r\n"
    same, other = head.format(etag_of(DATA)).encode(), head.format('"other"').encode()
    with answering([same + DATA[: HALF + 10], same + DATA, other + DATA[: HALF + 10]]) as (url, _):
        with pytest.raises(TransferError, match=f"{HALF + 10} bytes came, {SIZE} are wanted"):
            fetch(url, half(part, url))
        assert not fetch(url, part).unproven
        assert is_whole(part)
        entry = fetch(url, half(part, url))
    assert (entry.size, entry.unproven) == (HALF + 10, True), "another version has a length of its own"
