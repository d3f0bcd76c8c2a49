"""A reader that rests keeps nobody up; what it missed has a number, and is told in its place."""

import threading
from collections.abc import Iterator

import pytest

from fsdm.concurrency.channel import Channel, Gap
from tests.support.waiting import PATIENCE_S, eventually


class Reader:
    """Reads nothing before its gate is open."""

    def __init__(self) -> None:
        self.gate, self.began = threading.Event(), threading.Event()
        self.read: list[tuple[int, str | Gap]] = []

    def __call__(self, number: int, value: str | Gap) -> None:
        self.began.set()
        assert self.gate.wait(PATIENCE_S)
        self.read.append((number, value))


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.gate.set()


def test_values_are_read_in_order_by_one_thread_and_all_of_them_before_the_end() -> None:
    read: list[tuple[int, str | Gap, threading.Thread]] = []
    channel = Channel[str](lambda *of: read.append((*of, threading.current_thread())), name="reader")
    for value in "abc":
        channel.put(value)
    assert channel.close()
    channel.put("late")
    assert [of[:2] for of in read] == [(1, "a"), (2, "b"), (3, "c")]
    assert {of[2].name for of in read} == {"reader"}
    assert not channel._thread.is_alive()


def test_what_does_not_fit_is_dropped_and_told_in_its_place_until_half_is_read(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdm.concurrency.channel.BOUND", 4)
    channel = Channel[str](reader, name="reader")
    channel.put("1")
    assert reader.began.wait(PATIENCE_S)  # it has one in its hands, and is stuck
    for value in range(2, 12):  # four of them wait; none of these calls does
        channel.put(str(value))
    assert len(channel._waiting) == 5
    reader.gate.set()
    eventually(lambda: len(reader.read) == 6)
    channel.put("12")
    channel.close()
    assert reader.read == [*((n, str(n)) for n in range(1, 6)), (11, Gap(6, 11)), (12, "12")]
    assert Gap(6, 11).count == 6


def test_the_end_leaves_a_reader_to_itself_that_takes_nothing(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.concurrency.channel.PATIENCE_S", 0.01)
    channel = Channel[str](reader, name="reader")
    channel.put("a")
    assert not channel.close()
    assert channel._thread.is_alive()


def test_a_reader_may_close_it() -> None:
    channel: Channel[str]
    began = threading.Event()

    def read(_number: int, _value: str | Gap) -> None:
        assert began.wait(PATIENCE_S)
        channel.close()

    channel = Channel[str](read, name="reader")
    channel.put("a")
    began.set()
    channel._thread.join(PATIENCE_S)
    assert not channel._thread.is_alive()
