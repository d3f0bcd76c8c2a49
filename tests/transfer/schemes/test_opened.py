"""What is opened answers as a server does: whole, a part of the version that is asked for, or nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import StoppedError, TransferError
from fsdm.transfer.file_range import FileRange
from fsdm.transfer.http.head import Head, Span
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.schemes.opened import OpenerEngine

DATA = b"0123456789"


@dataclass
class Things:
    """A source of one thing, in blocks of three bytes, which is both an opener and what it opens."""

    size: int | None = len(DATA)
    version: str | None = "v1"
    error: Exception | None = None
    events: list[str] = field(default_factory=list)

    @contextmanager
    def open(self, url: str, stop: Cancellation) -> Iterator["Things"]:
        self.events.append("open")
        yield self
        self.events.append("close")

    def read(self, start: int, end: int | None) -> Iterator[memoryview | FileRange]:
        for at in range(start, len(DATA) if end is None else end, 3):
            yield memoryview(DATA)[at : min(at + 3, len(DATA) if end is None else end)]

    def check(self) -> None:
        self.events.append("check")
        if self.error is not None:
            raise self.error


def ask(things: Things, headers: Mapping[str, str], stop: Cancellation | None = None) -> tuple[Head, bytes]:
    heads, body = list[Head](), bytearray()

    def begin(head: Head) -> object:
        heads.append(head)
        return body.extend

    OpenerEngine(things, Sources()).get("x://things/a?hush", headers, stop or Cancellation(), begin)  # type: ignore[arg-type]
    return heads[0], bytes(body)


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({}, 200, DATA),
        ({"Range": "bytes=4-"}, 206, DATA[4:]),
        ({"Range": "bytes=4-6"}, 206, DATA[4:7]),
        ({"Range": "bytes=4-600"}, 206, DATA[4:]),
        ({"Range": "bytes=4-", "If-Range": '"v1"'}, 206, DATA[4:]),
        ({"Range": "bytes=4-", "If-Range": '"v0"'}, 200, DATA),
        ({"Range": "bytes=10-"}, 416, b""),
        ({"Range": "bytes=4-", "If-Range": '"v0"', "X": "y"}, 200, DATA),
    ],
)
def test_answer_brings_what_is_asked_for_and_says_so(headers: dict[str, str], status: int, body: bytes) -> None:
    head, came = ask(Things(), headers)
    assert (head.status, came, head.etag, head.validator) == (status, body, '"v1"', '"v1"')
    if status == 206:
        assert head.span == Span(4, 4 + len(body), len(DATA))
    if status == 200:
        assert (head.length, head.span) == (len(DATA), None)


def test_size_that_is_not_known_is_found_by_reading() -> None:
    head, came = ask(Things(size=None), {"Range": "bytes=4-"})
    assert (head.status, head.length, head.is_chunked, came) == (200, None, True, DATA)


def test_version_that_is_not_known_is_said_by_no_validator() -> None:
    head, came = ask(Things(version=None), {"Range": "bytes=4-"})
    assert (head.status, head.etag, head.validator, came) == (206, None, None, DATA[4:])
    assert ask(Things(version=None), {"Range": "bytes=4-", "If-Range": '"v1"'})[0].status == 200


def test_version_is_looked_at_behind_the_last_byte() -> None:
    things = Things(error=TransferError("it changed", transient=True))
    with pytest.raises(TransferError, match=r"^x://things/a: it changed$"):
        ask(things, {})
    assert things.events == ["open", "check"]


def test_stop_comes_before_all_and_between_blocks() -> None:
    stop, things, body = Cancellation(), Things(), bytearray()

    def begin(head: Head) -> object:
        return lambda data: (body.extend(data), stop.set())

    with pytest.raises(StoppedError):
        OpenerEngine(things, Sources()).get("x://things/a", {}, stop, begin)  # type: ignore[arg-type]
    assert body == DATA[:3]
    things.events.clear()
    with pytest.raises(StoppedError):
        ask(things, {}, stop)
    assert things.events == []


def test_body_that_is_not_wanted_is_not_read() -> None:
    things = Things()
    OpenerEngine(things, Sources()).get("x://things/a", {}, Cancellation(), lambda head: None)
    assert things.events == ["open", "close"]
