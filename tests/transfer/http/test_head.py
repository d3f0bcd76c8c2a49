"""What the head of an answer says: the header as the RFC has it, and nothing where it is malformed."""

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.transfer.http.head import ETAG_MAX, Head, Span, http_date

NOW = 1_700_000_000.0
MODIFIED = formatdate(NOW - 5000, usegmt=True)
LONGEST = f'"{"a" * (ETAG_MAX - 2)}"'


def head(headers: dict[str, str], status: int = 206) -> Head:
    return Head.of(status, headers.items())


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("0", 0),
        ("123", 123),
        ("", None),
        ("-1", None),
        ("1e3", None),
        ("12, 12", 12),
        ("12, 13", None),
        ("+10", None),
        ("1_0", None),
        ("٣", None),
        ("9" * 20, None),
    ],
)
def test_a_content_length_is_plain_digits(value: str, length: int | None) -> None:
    assert head({"Content-Length": value}).length == length
    assert head({}).length is None


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("bytes 0-0/1", Span(0, 1, 1)),
        ("bytes 10-19/100", Span(10, 20, 100)),
        (" bytes 10-19/100 ", Span(10, 20, 100)),
        ("bytes 10-19/*", Span(10, 20, None)),
        ("Bytes 10-19/100", Span(10, 20, 100)),  # units are case-insensitive (RFC 9110 §14.1)
        ("bytes 10-100/100", None),  # beyond its end
        ("bytes 19-10/100", None),
        ("bytes */100", None),  # of a 416
        ("bytes 10-/100", None),
        ("bytes=10-19/100", None),
        ("items 0-1/2", None),
        ("bytes 0-1/2, bytes 3-4/5", None),
        ("bytes 0-" + "9" * 30 + "/*", None),
        ("", None),
    ],
)
def test_a_content_range_is_one_range_that_is_in_the_file(value: str, span: Span | None) -> None:
    assert head({"Content-Range": value}).span == span


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"etag": '"a"'}, '"a"'),
        ({"ETag": '""'}, '""'),
        ({"ETag": 'W/"a"'}, None),
        ({"ETag": "a"}, None),
        ({"ETag": '"a" "b"'}, None),
        ({"ETag": LONGEST}, LONGEST),
        ({"ETag": LONGEST[0] + LONGEST}, None),
        ({"ETag": f"{LONGEST[:-1]}a{LONGEST[-1]}"}, None),
        ({"Last-Modified": MODIFIED, "Date": formatdate(NOW, usegmt=True)}, MODIFIED),
        ({"Last-Modified": MODIFIED, "Date": formatdate(NOW - 4999, usegmt=True)}, MODIFIED),
        ({"Last-Modified": MODIFIED, "Date": MODIFIED}, None),  # it may change again within that second
        ({"Last-Modified": MODIFIED}, None),
        ({"Last-Modified": "yesterday", "Date": MODIFIED}, None),
        ({"ETag": '"a"', "Last-Modified": MODIFIED, "Date": formatdate(NOW, usegmt=True)}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": MODIFIED, "Date": formatdate(NOW, usegmt=True)}, None),
        ({}, None),
    ],
)
def test_only_what_is_strong_may_stand_in_if_range(headers: dict[str, str], validator: str | None) -> None:
    assert head(headers).validator == validator


def test_an_etag_is_kept_as_it_was_given_also_a_weak_one() -> None:
    assert head({"ETag": 'W/"a"'}).etag == 'W/"a"'
    assert head({"ETag": '"a"'}).etag == '"a"'
    assert head({"ETag": "a\nb"}).etag is None


@pytest.mark.parametrize(
    ("given_before", "headers", "changed"),
    [
        ('"a"', {"ETag": '"a"'}, False),
        ('"a"', {"ETag": '"b"'}, True),
        ('"a"', {"ETag": 'W/"a"'}, True),
        ('"a"', {}, True),
        (MODIFIED, {"Last-Modified": MODIFIED}, False),
        (MODIFIED, {"Last-Modified": formatdate(NOW, usegmt=True)}, True),
        (MODIFIED, {}, True),
        (None, {"ETag": '"b"'}, False),
    ],
)
def test_a_part_is_of_the_same_version_only_where_it_says_so(
    given_before: str | None, headers: dict[str, str], changed: bool
) -> None:
    assert head(headers).is_of(given_before) is not changed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 9, 999_999_999.0),
        ("9" * 10, None),
        ("١", None),
    ],
)
def test_retry_after_is_so_many_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert head({"Retry-After": value}).retry_after_s(NOW) == seconds


def test_date_of_retry_after_is_read_against_the_answers_own_date() -> None:
    fields = {"Retry-After": formatdate(NOW + 90, usegmt=True), "Date": formatdate(NOW, usegmt=True)}
    assert head(fields).retry_after_s(NOW - 3600) == 90.0


def test_some_statuses_may_pass() -> None:
    passing = [status for status in range(200, 600) if head({}, status).is_transient]
    assert passing == [202, 408, 425, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("value", "takes"), [("bytes", True), ("Bytes", True), ("none", False), ("", False), ("lines, bytes", True)]
)
def test_a_server_says_whether_it_takes_ranges(value: str, takes: bool) -> None:
    assert head({"Accept-Ranges": value}, 200).takes_ranges is takes
    assert head({"Accept-Ranges": value}, 206).takes_ranges, "it has just given one"


@pytest.mark.parametrize(
    ("value", "encoding"), [("", ""), ("Identity", ""), ("GZIP", "gzip"), ("gzip, br", "gzip, br")]
)
def test_encoding_is_what_was_done_to_the_body(value: str, encoding: str) -> None:
    assert head({"Content-Encoding": value}).encoding == encoding


@pytest.mark.parametrize(
    ("headers", "malformed"),
    [
        ({}, False),
        ({"Content-Length": "5"}, False),
        ({"Content-Length": "5x"}, True),
        ({"Content-Length": "5x", "Transfer-Encoding": "chunked"}, False),
        ({"Transfer-Encoding": "chunked"}, False),
    ],
)
def test_length_that_is_none_counts_where_it_would_tell_the_end(headers: dict[str, str], malformed: bool) -> None:
    assert head(headers).length_is_malformed is malformed


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("Thu, 01 Jan 1970 00:01:40 GMT", 100.0),
        ("Thu, 01 Jan 1970 00:01:40", 100.0),
        ("Thu, 01 Jan 1970 01:01:40 +0100", 100.0),
        ("Thu, 01 Jan 1970 25:00:00 GMT", None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("", None),
    ],
)
def test_date_is_seconds_since_the_epoch(
    value: str, at: float | None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(time.tzset)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-9")
        time.tzset()
        assert http_date(value) == at


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"HTTP/1.1 206 Partial Content\r\n", b"A: b\r\n", b"a : c\r\n", b"A:d\r\n"], 206),
        ([b"HTTP/2 200\r\n"], 200),
        ([b"HTTP/1.1 2x0 OK\r\n"], 0),
        ([b"HTTP/1.1\r\n"], 0),
        ([], 0),
    ],
)
def test_head_is_read_from_its_lines(lines: list[bytes], status: int) -> None:
    read = Head.read(lines)
    assert read.status == status
    assert read.fields == ({"a": "b, d", "a ": "c"} if status == 206 else {})


@given(st.dictionaries(st.sampled_from(["ETag", "Content-Range", "Content-Length", "Retry-After", "Date"]), st.text()))
def test_no_header_whatever_it_holds_is_an_error(headers: dict[str, str]) -> None:
    one = head(headers)
    assert (one.length, one.span, one.total, one.validator, one.etag, one.retry_after_s(NOW), one.encoding) is not None
    http_date(headers.get("Date", ""))


def test_length_beside_a_transfer_encoding_says_nothing() -> None:
    assert head({"Content-Length": "5", "Transfer-Encoding": "chunked"}).length is None


@pytest.mark.parametrize(
    ("status", "headers", "total"),
    [
        (200, {"Content-Length": "5"}, 5),
        (200, {"Content-Length": "5", "Content-Range": "bytes 0-4/9"}, 9),
        (206, {"Content-Length": "5"}, None),
        (206, {"Content-Length": "5", "Content-Range": "bytes 2-6/9"}, 9),
        (206, {"Content-Length": "4", "Content-Range": "bytes 2-6/9"}, None),  # it contradicts itself
    ],
)
def test_total_is_of_the_whole_file(status: int, headers: dict[str, str], total: int | None) -> None:
    assert head(headers, status).total == total


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("transfer-encoding", "chunked", (True, False)),
        ("Transfer-Encoding", " , Chunked\t,", (True, False)),
        ("transfer-encoding", "identity", (False, False)),
        ("transfer-encoding", "identity, chunked", (True, False)),
        ("transfer-encoding", "", (False, True)),
        ("transfer-encoding", ",", (False, True)),
        ("transfer-encoding", "gzip, chunked", (False, True)),
        ("transfer-encoding", "identity, gzip", (False, True)),
        ("transfer-encoding", "chunked, chunked", (False, True)),
        ("transfer-encoding ", "chunked", (False, True)),
        ("content-length\t", "5", (False, True)),
        ("etag", "x", (False, False)),
    ],
)
def test_framing_is_known_or_ambiguous(field: str, value: str, expected: tuple[bool, bool]) -> None:
    head = Head.of(200, [(field, value)])
    assert (head.is_chunked, head.is_ambiguous) == expected
