"""Resuming, over a real HTTP server: only what is missing is fetched, and no file is of two versions."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.errors import StoppedError, TransferError
from fsdm.model.parts import Extent, PartRecord
from fsdm.store.filesystem import FileSystem
from fsdm.transfer import file_transfer as transfer_module
from fsdm.transfer import source_fetch as source_fetch_module
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.resume_record import Part, url_mark
from tests.support import PATIENCE_S, Fault, Source, etag_of, eventually
from tests.support.chunks import content
from tests.support.servers import InThread, answering

pytestmark = pytest.mark.usefixtures("transport")

SIZE = 300_000
NEW, OLD = content("the new version", SIZE), content("the old version", SIZE)
HALF = SIZE // 2
SHA256 = hashlib.sha256(NEW).hexdigest()
PROOF = {"sha256": SHA256}


@pytest.fixture
def url(source: Source) -> str:
    return source.put("/file", NEW)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(str(tmp_path / "file"))


def fetch(urls: str | list[str], part: Part, stop: Cancellation | None = None, **known: Any) -> FileEntry:
    urls = [urls] if isinstance(urls, str) else urls
    source = FileSource(url=urls[0], mirrors=tuple(urls[1:]) or None, **known)
    return HttpFetcher().fetch(source, part, FileSystem(), stop or Cancellation())


def left(part: Part, data: bytes, url: str, *, same_boot: bool = True, **record: Any) -> Part:
    """What an earlier attempt has left: bytes, and what was known of them."""
    with open(part.path, "wb") as file:
        file.write(data)
    known = {"url": url_mark(url), "validator": etag_of(NEW), "total": SIZE, **record}
    part.record, part.same_boot = PartRecord(**known), same_boot
    return part


def ranges(source: Source, path: str = "/file") -> list[str | None]:
    """The Range of each request."""
    return [head.get("Range") for head in source.heads.get(path, [])]


def is_new(part: Part, entry: FileEntry) -> bool:
    with open(part.path, "rb") as file:
        data = file.read()
    return data == NEW and (entry.size, entry.blake3) == (SIZE, blake3(NEW).hexdigest())


# ----------------------------------------------------------------------------------------------- only what is missing


@pytest.mark.parametrize("known", [{}, {"size": SIZE}, PROOF])
def test_only_what_is_missing_is_fetched(source: Source, url: str, part: Part, known: dict[str, Any]) -> None:
    entry = fetch(url, left(part, NEW[:HALF], url), **known)
    assert is_new(part, entry)
    assert entry.etag == etag_of(NEW)
    assert ranges(source) == [f"bytes={HALF}-"]
    assert source.heads["/file"][0]["If-Range"] == etag_of(NEW)


def test_a_connection_that_breaks_is_followed_by_another_one_from_where_it_broke(
    source: Source, url: str, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1000)
    source.fault("/file", cut_at=100_000)  # of each answer
    assert is_new(part, fetch(url, part))
    assert ranges(source) == [None, "bytes=100000-", "bytes=200000-"]


def test_a_connection_that_brings_next_to_nothing_before_it_breaks_ends_the_attempt(
    source: Source, url: str, part: Part
) -> None:
    source.fault("/file", cut_at=1000)
    with pytest.raises(TransferError) as caught:
        fetch(url, part)
    assert (caught.value.transient, caught.value.cause) == (True, "connection")
    assert source.asked["/file"] == 1
    assert part.record is not None
    assert (part.record.size, part.record.blake3) == (1000, blake3(NEW[:1000]).hexdigest())
    del source.faults["/file"]
    assert is_new(part, fetch(url, part))
    assert ranges(source) == [None, "bytes=1000-"]


def test_what_a_stop_cut_is_gone_on_with(source: Source, url: str, part: Part) -> None:
    fault, stop = source.fault("/file", stall_at=HALF), Cancellation()
    transfer = InThread(lambda: fetch(url, part, stop))
    assert fault.stalled.wait(PATIENCE_S)
    eventually(lambda: os.path.exists(part.path), "the head has come")
    stop.set()
    assert isinstance(transfer.join(), StoppedError)
    here = os.path.getsize(part.path)
    del source.faults["/file"]
    assert is_new(part, fetch(url, part))
    assert ranges(source) == [None, f"bytes={here}-" if here else None]


@pytest.mark.parametrize("known", [{}, {"size": SIZE}, PROOF])
def test_a_file_that_is_whole_is_not_asked_for_again(
    source: Source, url: str, part: Part, known: dict[str, Any]
) -> None:
    assert is_new(part, fetch(url, left(part, NEW, url), **known))
    assert source.asked == {}


@pytest.mark.parametrize(
    ("known", "mirrors", "asked"),
    [({}, [], [None]), ({}, ["http://elsewhere.example/file"], []), (PROOF, [], [])],
    ids=["none of its URLs", "one of its URLs", "a digest"],
)
def test_whole_file_counts_where_it_came_from_a_url_of_the_want_or_has_its_digest(
    source: Source, url: str, part: Part, known: dict[str, Any], mirrors: list[str], asked: list[str | None]
) -> None:
    left(part, NEW, "http://elsewhere.example/file", etag='"its own"')
    entry = fetch([url, *mirrors], part, **known)
    assert is_new(part, entry)
    assert ranges(source) == asked
    assert entry.etag == (etag_of(NEW) if asked else '"its own"')


def test_a_whole_file_of_unknown_length_is_whole_where_its_record_says_so(source: Source, url: str, part: Part) -> None:
    digest = blake3(NEW).hexdigest()
    left(part, NEW, url, total=None, size=SIZE, blake3=digest, complete=True)
    assert is_new(part, fetch(url, part))
    assert source.asked == {}
    left(part, NEW[:HALF], url, total=None, size=SIZE, blake3=digest, complete=True)
    assert is_new(part, fetch(url, part)), "half of it is gone again"


def test_a_file_without_a_record_is_gone_on_with_where_the_want_has_a_digest(
    source: Source, url: str, part: Part
) -> None:
    with open(part.path, "wb") as file:
        file.write(NEW[:HALF])
    assert is_new(part, fetch(url, part, **PROOF))
    assert ranges(source) == [f"bytes={HALF}-"]


def test_a_file_without_a_record_and_without_a_digest_is_fetched_afresh(source: Source, url: str, part: Part) -> None:
    with open(part.path, "wb") as file:
        file.write(NEW[:HALF])
    assert is_new(part, fetch(url, part))
    assert ranges(source) == [None]


# ------------------------------------------------------------------------------------------- never of two versions


@pytest.mark.parametrize("total", [SIZE, SIZE + 5])
def test_a_file_that_has_changed_is_fetched_afresh(source: Source, url: str, part: Part, total: int) -> None:
    assert is_new(part, fetch(url, left(part, OLD[:HALF], url, validator=etag_of(OLD), total=total)))
    assert ranges(source) == [f"bytes={HALF}-"], "the server sends all of it, for the ETag is another one"


REST = f"bytes {HALF}-{SIZE - 1}/{SIZE}"
ON, LATER = "Wed, 01 Jan 2020 00:00:00 GMT", "Wed, 01 Jan 2020 00:00:01 GMT"
BY_TAG, BY_DATE, NO_TOTAL = {}, {"validator": ON}, {"total": None}
PARTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {  # what the record says, and in what a part is wrong
    "a byte earlier": (BY_TAG, {"Content-Range": f"bytes {HALF - 1}-{SIZE - 1}/{SIZE}"}),
    "a byte later": (BY_TAG, {"Content-Range": f"bytes {HALF + 1}-{SIZE - 1}/{SIZE}"}),
    "from the beginning": (BY_TAG, {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}),
    "of another total": (BY_TAG, {"Content-Range": f"bytes {HALF}-{SIZE}/{SIZE + 1}"}),
    "of no total": (BY_TAG, {"Content-Range": f"bytes {HALF}-{SIZE - 1}/*"}),
    "of a total that nothing tells": (NO_TOTAL, {"Content-Range": f"bytes {HALF}-{SIZE - 1}/*"}),
    "shorter than its range": (BY_TAG, {"Content-Length": "7"}),
    "of another unit": (BY_TAG, {"Content-Range": REST.replace("bytes", "items")}),
    "without a range": (BY_TAG, {"Content-Range": ""}),
    "of another ETag": (BY_TAG, {"ETag": '"other"'}),
    "of a weak ETag": (BY_TAG, {"ETag": f"W/{etag_of(NEW)}"}),
    "without an ETag": (BY_TAG, {"ETag": ""}),
    "of another date": (BY_DATE, {"Last-Modified": LATER}),
    "without a date": (BY_DATE, {"Last-Modified": ""}),
}


@pytest.mark.parametrize("known", [{}, PROOF], ids=["validator", "digest"])
@pytest.mark.parametrize(("record", "wrong"), PARTS.values(), ids=PARTS)
def test_part_that_is_wrong_in_one_thing_is_not_joined(
    source: Source, url: str, part: Part, record: dict[str, Any], wrong: dict[str, str], known: dict[str, Any]
) -> None:
    version = {"Last-Modified": ON} if record is BY_DATE else {"ETag": etag_of(NEW)}
    for headers in (version, version | wrong):
        source.fault("/file", ranged=(206, {"Content-Range": REST} | headers))
        assert is_new(part, fetch(url, left(part, NEW[:HALF], url, **record), **known))
    is_proven = bool(known) and not {"Content-Range", "Content-Length"} & wrong.keys()
    assert ranges(source) == [f"bytes={HALF}-"] * 2 + [None] * (not is_proven)


def test_total_that_only_the_answer_knows_is_believed(source: Source, url: str, part: Part) -> None:
    source.files["/file"] = more = NEW + b"x"
    source.fault("/file", ranged=(206, {"Content-Range": f"bytes {HALF}-{SIZE}/{SIZE + 1}", "ETag": etag_of(NEW)}))
    entry = fetch(url, left(part, NEW[:HALF], url, total=None, open_ended=True))
    assert (entry.blake3, entry.unproven) == (blake3(more).hexdigest(), None)


@pytest.mark.parametrize("headers", [{"Content-Range": f"bytes */{SIZE}"}, {}])
def test_file_of_which_no_part_can_be_had_is_fetched_afresh(
    source: Source, url: str, part: Part, headers: dict[str, str]
) -> None:
    source.fault("/file", ranged=(416, {"ETag": etag_of(NEW)} | headers))
    assert is_new(part, fetch(url, left(part, NEW[:HALF], url)))
    assert ranges(source) == [f"bytes={HALF}-", None]


def test_file_that_changes_amid_its_answers_is_fetched_afresh_where_a_digest_tells(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1000)
    whole = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n".encode()
    rest = f"HTTP/1.1 206 P\r\nConnection: close\r\nContent-Range: {REST}\r\nContent-Length: {HALF}\r\n\r\n".encode()
    with answering([whole + OLD[:HALF], rest + NEW[HALF:], whole + NEW]) as (url, asked):
        assert is_new(part, fetch(url, part, **PROOF))
    assert [b"Range: " in request for request in asked] == [False, True, False]


def test_a_server_that_knows_no_ranges_sends_all_of_it(source: Source, url: str, part: Part) -> None:
    source.fault("/file", no_ranges=True)
    assert is_new(part, fetch(url, left(part, NEW[:HALF], url)))
    assert ranges(source) == [f"bytes={HALF}-"]


@pytest.mark.parametrize("validator", [None, etag_of(NEW)])
def test_bytes_of_another_url_are_joined_only_where_a_digest_proves_it(
    source: Source, url: str, part: Part, validator: str | None
) -> None:
    left(part, NEW[:HALF], "http://elsewhere.example/file", validator=validator)
    assert is_new(part, fetch(url, part))
    assert ranges(source) == [None]
    left(part, NEW[:HALF], "http://elsewhere.example/file", validator=validator)
    assert is_new(part, fetch(url, part, **PROOF))
    assert ranges(source) == [None, f"bytes={HALF}-"]
    assert "If-Range" not in source.heads["/file"][1]


def test_bytes_without_a_validator_are_joined_only_where_a_digest_proves_it(
    source: Source, url: str, part: Part
) -> None:
    assert is_new(part, fetch(url, left(part, OLD[:HALF], url, validator=None)))
    assert ranges(source) == [None]
    assert is_new(part, fetch(url, left(part, NEW[:HALF], url, validator=None), **PROOF))
    assert ranges(source) == [None, f"bytes={HALF}-"]


def test_what_a_digest_let_be_joined_is_of_no_version_for_a_want_without_one(source: Source, part: Part) -> None:
    first, second = source.put("/file", NEW), source.put("/mirror", OLD)
    source.fault("/mirror", cut_at=1000)
    saved: list[str | None] = []
    left(part, NEW[:HALF], first).save = lambda: saved.append(part.record and part.record.validator)
    with pytest.raises(TransferError, match="/mirror: "):
        fetch(second, part, **PROOF)
    assert saved == [None], "before the first byte of it"
    assert is_new(part, fetch(first, part)), "a later want has no digest that would find it out"
    assert ranges(source) == [None]


def test_joined_bytes_with_another_digest_are_fetched_afresh_once(source: Source, url: str, part: Part) -> None:
    assert is_new(part, fetch(url, left(part, OLD[:HALF], url), **PROOF))
    assert ranges(source) == [f"bytes={HALF}-", None]
    with pytest.raises(TransferError, match=f"sha256 is {SHA256}") as caught:
        fetch(url, left(part, NEW[:HALF], url), sha256="0" * 64)
    assert not caught.value.transient
    assert ranges(source)[2:] == [f"bytes={HALF}-", None], "once"


def test_a_whole_file_with_another_digest_is_fetched_afresh(source: Source, url: str, part: Part) -> None:
    assert is_new(part, fetch(url, left(part, OLD, url), **PROOF))
    assert ranges(source) == [None]


def test_more_than_the_file_has_is_fetched_afresh(source: Source, url: str, part: Part) -> None:
    assert is_new(part, fetch(url, left(part, NEW + b"more", url)))
    assert is_new(part, fetch(url, left(part, NEW + b"more", url, total=SIZE + 4), size=SIZE))
    assert ranges(source) == [None, None]


PART = b'HTTP/1.1 206 Partial Content\r\nETag: "v"\r\nConnection: close\r\nContent-Range: bytes %d-%d/%d\r\n'
CHUNK = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"


def test_part_that_ends_before_the_file_does_is_not_taken_for_its_end(part: Part) -> None:
    lengths = b"Content-Length: %d\r\n\r\n%b"
    answers = [PART % (5, 6, 10) + lengths % (2, b"56"), PART % (7, 9, 10) + lengths % (3, b"789")]
    with answering(answers) as (url, asked):
        left(part, b"01234", url, validator='"v"', total=None)
        assert fetch(url, part).size == 10, "the next part is asked for at once"
    assert [b"bytes=5-" in asked[0], b"bytes=7-" in asked[1]] == [True, True]
    with open(part.path, "rb") as file:
        assert file.read() == b"0123456789"


def test_a_part_that_is_longer_than_it_says_is_no_file(part: Part) -> None:
    more = b"x" * 1000
    with answering([PART % (5, 9, 10) + CHUNK % (len(more), more)]) as (url, _):
        left(part, b"01234", url, validator='"v"', total=10)
        with pytest.raises(TransferError, match="more than the 10 bytes"):
            fetch(url, part)
    assert os.path.getsize(part.path) == 0


def test_a_mirror_is_as_fast_as_what_it_brought_though_it_was_asked_for_less(
    source: Source, url: str, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "TELLING_BYTES", SIZE)
    source.fault("/file", no_ranges=True)
    fetcher = HttpFetcher()
    known = FileSource(url=url)
    assert is_new(part, fetcher.fetch(known, left(part, NEW[:HALF], url), FileSystem(), Cancellation()))
    (host,) = fetcher.hosts._hosts.values()
    assert host.bytes_per_s is not None, "all of it has come, not half"


# ----------------------------------------------------------------------------------------------------- after a reboot


def test_after_a_reboot_only_what_the_record_proves_is_taken_over(source: Source, url: str, part: Part) -> None:
    proven = {"size": 1000, "blake3": blake3(NEW[:1000]).hexdigest()}
    left(part, NEW[:1000] + bytes(HALF), url, same_boot=False, **proven)
    assert is_new(part, fetch(url, part))
    assert ranges(source) == ["bytes=1000-"]


@pytest.mark.parametrize("same_boot", [False, True])
def test_bytes_that_are_not_those_of_the_record_are_not_taken_over(
    source: Source, url: str, part: Part, same_boot: bool
) -> None:
    left(part, bytes(HALF), url, same_boot=same_boot, size=1000, blake3=blake3(NEW[:1000]).hexdigest())
    assert is_new(part, fetch(url, part))
    assert ranges(source) == [None]


def test_after_a_reboot_nothing_is_taken_over_where_nothing_is_proven(source: Source, url: str, part: Part) -> None:
    assert is_new(part, fetch(url, left(part, NEW[:HALF], url, same_boot=False)))
    assert ranges(source) == [None]


def test_after_a_reboot_a_digest_in_the_want_proves_it_in_the_end(source: Source, url: str, part: Part) -> None:
    assert is_new(part, fetch(url, left(part, NEW[:HALF], url, same_boot=False), **PROOF))
    assert is_new(part, fetch(url, left(part, bytes(HALF), url, same_boot=False), **PROOF))
    assert ranges(source) == [f"bytes={HALF}-", f"bytes={HALF}-", None]


# ------------------------------------------------------------------------------------------------- extents behind holes

LINE = 50_000
EXTENTS = [(100_000, 150_000), (200_000, 260_000)]


def proof(start: int, end: int) -> Extent:
    return Extent(start, end, blake3(NEW[start:end]).hexdigest())


def with_holes(part: Part, url: str, *damaged: int, extents: tuple[Extent, ...] = (), **record: Any) -> Part:
    """A file with two holes and without its end; the damaged bytes are not what they were."""
    data = bytearray(EXTENTS[-1][1])
    for start, end in ((0, LINE), *EXTENTS):
        data[start:end] = NEW[start:end]
    for at in damaged:
        data[at] ^= 1
    known: dict[str, Any] = {"size": LINE, "blake3": blake3(NEW[:LINE]).hexdigest(), "holes": True}
    return left(part, data, url, extents=extents or tuple(proof(*span) for span in EXTENTS), **known, **record)


@pytest.mark.parametrize("known", [{}, PROOF])
@pytest.mark.parametrize("same_boot", [False, True])
@pytest.mark.parametrize(
    ("damaged", "spans"),
    [
        ([], ["50000-99999", "150000-199999", "260000-"]),
        ([LINE, 199_999], ["50000-99999", "150000-199999", "260000-"]),  # what is in a hole is nothing
        ([100_000], ["50000-199999", "260000-"]),
        ([259_999], ["50000-99999", "150000-"]),
        ([149_999, 200_000], ["50000-"]),
        ([LINE - 1], [None]),
    ],
)
def test_an_extent_counts_with_its_digest_and_only_the_holes_are_asked_for(
    source: Source, url: str, part: Part, damaged: list[int], spans: list[str], same_boot: bool, known: dict[str, Any]
) -> None:
    assert is_new(part, fetch(url, with_holes(part, url, *damaged, same_boot=same_boot), **known))
    assert ranges(source) == [span and f"bytes={span}" for span in spans]
    assert part.record is not None
    assert (part.record.complete, part.record.holes, part.record.extents) == (True, False, ())


@pytest.mark.parametrize(
    "extent",
    [
        Extent(100_000, 100_000, blake3(b"").hexdigest()),
        Extent(150_000, 100_000, blake3(b"").hexdigest()),
        Extent(100_000, SIZE, blake3(NEW[100_000:]).hexdigest()),  # the file is shorter
        Extent(100_000, (1 << 64) - 1, blake3(NEW[100_000:]).hexdigest()),
    ],
)
def test_an_extent_that_cannot_be_is_none(source: Source, url: str, part: Part, extent: Extent) -> None:
    assert is_new(part, fetch(url, with_holes(part, url, extents=(extent,))))
    assert ranges(source) == [f"bytes={LINE}-"]


def test_extents_that_touch_or_overlap_are_one(source: Source, url: str, part: Part) -> None:
    extents = (proof(40_000, LINE), proof(100_000, 150_000), proof(120_000, 130_000), proof(150_000, 150_000))
    assert is_new(part, fetch(url, with_holes(part, url, extents=extents)))
    assert ranges(source) == ["bytes=50000-99999", "bytes=150000-"]


@pytest.mark.parametrize("known", [{}, PROOF])
def test_extents_of_another_version_are_thrown_away(
    source: Source, url: str, part: Part, known: dict[str, Any]
) -> None:
    old = tuple(Extent(start, end, blake3(OLD[start:end]).hexdigest()) for start, end in EXTENTS)
    data = {"size": LINE, "blake3": blake3(OLD[:LINE]).hexdigest(), "holes": True, "extents": old}
    assert is_new(part, fetch(url, left(part, OLD[:260_000], url, validator=etag_of(OLD), **data), **known))
    again = ["bytes=50000-99999", "bytes=150000-199999", "bytes=260000-", None] if known else []
    assert ranges(source) == ["bytes=50000-99999", *again]


def test_no_extent_counts_after_a_new_beginning(source: Source, url: str, part: Part) -> None:
    source.fault("/file", no_ranges=True, cut_at=1000)
    with pytest.raises(TransferError):
        fetch(url, with_holes(part, url))
    assert part.record is not None
    assert (part.record.size, part.record.holes, part.record.extents) == (1000, False, ())
    del source.faults["/file"]
    assert is_new(part, fetch(url, part))
    assert ranges(source)[1:] == ["bytes=1000-"]


@pytest.mark.parametrize("cut_at", [10_000, 50_000])
def test_a_connection_that_breaks_in_a_hole_leaves_the_extents(
    source: Source, url: str, part: Part, cut_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1)
    source.fault("/file", cut_at=cut_at)
    assert is_new(part, fetch(url, with_holes(part, url)))
    starts = [int(str(span).removeprefix("bytes=").split("-")[0]) for span in ranges(source)]
    holes = [(LINE, 100_000), (150_000, 200_000), (260_000, SIZE)]
    assert starts == [at for start, end in holes for at in range(start, end, cut_at)]


def test_a_hole_is_filled_though_its_answer_has_no_end(
    source: Source, url: str, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_fetch_module, "WORTH_BYTES", 1)

    def without_its_last_chunk(start: int, end: int) -> Fault:
        head = f"HTTP/1.1 206 Partial Content\r\nETag: {etag_of(NEW)}\r\nTransfer-Encoding: chunked\r\n"
        span = f"Content-Range: bytes {start}-{end - 1}/{SIZE}\r\n\r\n{end - start:x}\r\n"
        return Fault(raw=(head + span).encode() + NEW[start:end] + b"\r\n")

    source.fault("/file", piece=without_its_last_chunk)
    assert is_new(part, fetch(url, with_holes(part, url)))
    assert ranges(source) == ["bytes=50000-99999", "bytes=150000-199999", "bytes=260000-"]


def test_a_record_has_so_many_extents_and_no_more(
    source: Source, url: str, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "EXTENTS_MAX", 1)
    source.fault("/file", cut_at=1000)
    with pytest.raises(TransferError):
        fetch(url, with_holes(part, url))
    assert part.record is not None
    assert (part.record.size, part.record.holes, part.record.extents) == (51_000, True, (proof(*EXTENTS[0]),))
    del source.faults["/file"]
    assert is_new(part, fetch(url, part))
    assert ranges(source)[1:] == ["bytes=51000-99999", "bytes=150000-"]


def test_a_server_that_gives_more_than_the_hole_gives_bytes_like_any_other(
    source: Source, url: str, part: Part
) -> None:
    source.fault("/file", ranged=(206, {"Content-Range": f"bytes {LINE}-{SIZE - 1}/{SIZE}", "ETag": etag_of(NEW)}))
    assert is_new(part, fetch(url, with_holes(part, url)))
    assert len(ranges(source)) == 1


def test_a_server_that_gives_no_ranges_gives_all(source: Source, url: str, part: Part) -> None:
    source.fault("/file", no_ranges=True)
    assert is_new(part, fetch(url, with_holes(part, url)))
    assert ranges(source) == ["bytes=50000-99999"]


def test_digest_of_the_want_overrules_extents(source: Source, url: str, part: Part) -> None:
    wrong = bytearray(NEW[:260_000])
    wrong[120_000] ^= 1
    extents = tuple(Extent(start, end, blake3(wrong[start:end]).hexdigest()) for start, end in EXTENTS)
    left(part, wrong, url, size=LINE, blake3=blake3(NEW[:LINE]).hexdigest(), holes=True, extents=extents)
    assert is_new(part, fetch(url, part, **PROOF))
    assert ranges(source)[-1] is None, "afresh, once"


# --------------------------------------------------------------------------------------------------- what is recorded


def test_a_record_is_written_before_the_first_byte_of_a_version_and_now_and_then(
    source: Source, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "RECORD_BYTES", SIZE)
    monkeypatch.setattr(transfer_module, "CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr("fsdm.transfer.http.exchange.BLOCK_BYTES", 50_000)
    saved: list[tuple[int, int]] = []

    def save() -> None:
        assert part.record is not None
        saved.append((part.record.size, os.path.getsize(part.path)))
        assert part.record.blake3 in {None, blake3(NEW[: part.record.size]).hexdigest()}

    part.save = save
    assert is_new(part, fetch(source.put("/file", NEW), part))
    assert saved[0] == (0, 0)
    assert len(saved) >= 3
    assert [size for size, _ in saved[1:]] == [there for _, there in saved[1:]]
    monkeypatch.setattr(transfer_module, "CHECKPOINT_BYTES", SIZE)
    small = source.put("/small", NEW[:-1])
    saved.clear()
    part.record = None
    fetch(small, part)
    assert saved == [], "it is not worth it"


def test_length_of_a_small_file_is_written_down_once_it_takes_long(
    source: Source, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "RECORD_S", 0.0)
    monkeypatch.setattr("fsdm.transfer.http.exchange.BLOCK_BYTES", 50_000)
    saved: list[int | None] = []
    part.save = lambda: saved.append(part.record and part.record.total)
    assert is_new(part, fetch(source.put("/file", NEW), part))
    assert saved == [SIZE]


def test_record_of_an_older_version_goes_before_the_first_byte_of_the_newer(
    source: Source, url: str, part: Part
) -> None:
    saved: list[tuple[str | None, int]] = []

    def save() -> None:
        assert part.record is not None
        saved.append((part.record.validator, os.path.getsize(part.path)))

    left(part, OLD[:HALF], url, validator=etag_of(OLD)).save = save
    assert is_new(part, fetch(url, part))
    assert saved == [(etag_of(NEW), 0)]


def test_a_record_shows_no_secret_of_a_url(source: Source, part: Part) -> None:
    url = source.put("/file", NEW).replace("http://", "http://user:hush@") + "?signature=hush"
    fetch(url, part)
    assert part.record is not None
    assert "hush" not in repr(part.record)


# ------------------------------------------------------------------------------------------------------------ mirrors


def test_mirrors_are_tried_in_their_order_until_one_has_it(source: Source, part: Part) -> None:
    source.put("/third", NEW)
    source.put("/fourth", NEW)
    source.fault("/second", status=503)
    source.files["/second"] = b""
    urls = [source.url + path for path in ("/first", "/second", "/third", "/fourth")]
    assert is_new(part, fetch(urls, part))
    assert source.asked == {"/first": 1, "/second": 1, "/third": 1}


def test_where_no_mirror_has_it_all_are_named_and_it_may_pass_where_one_of_them_may(source: Source, part: Part) -> None:
    source.put("/busy", b"")
    source.fault("/busy", status=503)
    with pytest.raises(TransferError, match=r"gone: HTTP 404.*; .*busy: HTTP 503") as caught:
        fetch([source.url + "/gone", source.url + "/busy"], part)
    assert caught.value.transient
    with pytest.raises(TransferError, match=r"gone.*; .*away") as caught:
        fetch([source.url + "/gone", source.url + "/away"], part)
    assert not caught.value.transient


def test_a_mirror_with_other_bytes_is_passed_over_where_the_want_has_a_digest(source: Source, part: Part) -> None:
    urls = [source.put("/other", OLD), source.put("/file", NEW)]
    assert is_new(part, fetch(urls, part, **PROOF))
    assert ranges(source) == [None], "nothing of the other one is joined"


def test_another_mirror_goes_on_where_one_broke_only_if_a_digest_proves_it(source: Source, part: Part) -> None:
    urls = [source.put("/breaks", NEW), source.put("/file", NEW)]
    source.fault("/breaks", cut_at=1000)
    assert is_new(part, fetch(urls, part))
    assert ranges(source) == [None]
    os.unlink(part.path)
    part.record = None
    assert is_new(part, fetch(urls, part, **PROOF))
    assert ranges(source) == [None, "bytes=1000-"]


def test_a_retry_after_is_the_soonest_of_all_mirrors(source: Source, part: Part) -> None:
    with Source() as other:
        for server, seconds in ((source, "120"), (other, "60")):
            server.put("/file", b"")
            server.fault("/file", status=503, headers={"Retry-After": seconds})
        with pytest.raises(TransferError) as caught:
            fetch([source.url + "/file", other.url + "/file"], part)
        assert caught.value.retry_after_s == 60
        with pytest.raises(TransferError) as caught:
            fetch([source.url + "/file", other.url + "/gone"], part)
        assert caught.value.retry_after_s == 120


def test_what_is_larger_than_the_disk_is_no_failure_of_the_disk(
    source: Source, url: str, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "free_bytes", lambda _: SIZE - 1)
    with pytest.raises(TransferError, match="more than are free here") as caught:
        fetch(url, part)
    assert (caught.value.transient, caught.value.cause) == (True, "disk_full")
    assert caught.value.hint.startswith("make room on the disk")
    assert not os.path.exists(part.path)
    assert is_new(part, fetch(url, part, size=SIZE)), "a size that was declared has its room already"
    monkeypatch.setattr(transfer_module, "free_bytes", lambda _: SIZE)
    os.unlink(part.path)
    part.record = None
    assert is_new(part, fetch(url, part))
