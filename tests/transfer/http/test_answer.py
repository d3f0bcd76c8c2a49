"""What the head of an answer says: the header as the RFC has it, and nothing where it is malformed."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from fsdm.transfer.http import answer
from fsdm.transfer.http.answer import Span

NOW = 1_700_000_000.0
MODIFIED = formatdate(NOW - 5000, usegmt=True)


@pytest.mark.parametrize(
    ("value", "length"),
    [("0", 0), ("123", 123), ("", None), ("-1", None), ("1e3", None), ("12, 12", None), ("٣", None), ("9" * 20, None)],
)
def test_a_content_length_is_plain_digits(value: str, length: int | None) -> None:
    assert answer.length({"Content-Length": value}) == length
    assert answer.length({}) is None


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("bytes 0-0/1", Span(0, 1, 1)),
        ("bytes 10-19/100", Span(10, 20, 100)),
        (" bytes 10-19/100 ", Span(10, 20, 100)),
        ("bytes 10-19/*", Span(10, 20, None)),
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
    assert answer.content_range({"Content-Range": value}) == span


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"etag": '"a"'}, '"a"'),
        ({"ETag": '""'}, '""'),
        ({"ETag": 'W/"a"'}, None),
        ({"ETag": "a"}, None),
        ({"ETag": '"a" "b"'}, None),
        ({"ETag": '"' + "a" * 2000 + '"'}, None),
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
    assert answer.validator(HTTPHeaderDict(headers)) == validator


def test_an_etag_is_kept_as_it_was_given_also_a_weak_one() -> None:
    assert answer.etag({"ETag": 'W/"a"'}) == 'W/"a"'
    assert answer.etag({"ETag": '"a"'}) == '"a"'
    assert answer.etag({"ETag": "a\nb"}) is None


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
    assert answer.changed(given_before, headers) is changed


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
        ("9" * 12, None),
    ],
)
def test_retry_after_is_so_many_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert answer.retry_after_s({"Retry-After": value}, NOW) == seconds


@pytest.mark.parametrize(("status", "transient"), [(408, True), (425, True), (429, True), (500, True), (503, True)])
def test_some_statuses_may_pass(status: int, transient: bool) -> None:
    assert answer.is_transient(status) is transient
    assert not answer.is_transient(status // 100 * 100 + 4 - 200 * (status >= 500))


@pytest.mark.parametrize(
    ("value", "takes"), [("bytes", True), ("Bytes", True), ("none", False), ("", False), ("lines, bytes", True)]
)
def test_a_server_says_whether_it_takes_ranges(value: str, takes: bool) -> None:
    assert answer.takes_ranges({"Accept-Ranges": value}) is takes


@given(st.dictionaries(st.sampled_from(["ETag", "Content-Range", "Content-Length", "Retry-After", "Date"]), st.text()))
def test_no_header_whatever_it_holds_is_an_error(headers: dict[str, str]) -> None:
    answer.length(headers)
    answer.content_range(headers)
    answer.validator(headers)
    answer.etag(headers)
    answer.retry_after_s(headers, NOW)
    answer.takes_ranges(headers)
    answer.http_date(headers.get("Date", ""))
