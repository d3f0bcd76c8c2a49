"""Looking a name up: whoever waits for it can be stopped, and gives up in time."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import StoppedError
from fsdm.transfer.http.route import look_up
from tests.support import PATIENCE_S, eventually
from tests.support.servers import InThread

real = socket.getaddrinfo


class Resolver:
    """One that does not answer for `silent.example` until it is let to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.gate = threading.Event()

    def __call__(self, host: str, port: Any, *args: Any, **kw: Any) -> Any:
        if host != "silent.example" or kw.get("flags"):
            return real(host, port, *args, **kw)
        self.asked.set()
        assert self.gate.wait(PATIENCE_S)
        return real("127.0.0.1", port, *args, **kw)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.gate.set()
    eventually(lambda: not any(thread.name == "fsdm-lookup" for thread in threading.enumerate()), "it has ended")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_name_and_address_are_looked_up(host: str) -> None:
    assert "127.0.0.1" in look_up(host, 80, Cancellation(), PATIENCE_S)


def test_an_address_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", lambda *_, **__: pytest.fail("it does"))
    for host in ("127.0.0.1", "::1"):
        assert look_up(host, 80, Cancellation(), PATIENCE_S)


@pytest.mark.parametrize("host", ["no.such.name.invalid", "a" * 64 + ".example"])
def test_a_name_that_is_none_is_an_error(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: Any, *args: Any, **kw: Any) -> Any:
        return real(host, port, *args, **kw | {"flags": socket.AI_NUMERICHOST})  # no network is asked

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises((OSError, UnicodeError)):
        look_up(host, 80, Cancellation(), PATIENCE_S)


def test_a_stop_does_not_wait_for_the_resolver(resolver: Resolver) -> None:
    stop = Cancellation()
    waiting = InThread(lambda: look_up("silent.example", 80, stop, 10 * PATIENCE_S))
    assert resolver.asked.wait(PATIENCE_S)
    stop.set()
    assert isinstance(waiting.join(), StoppedError)


def test_a_resolver_that_does_not_answer_is_given_up(resolver: Resolver) -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        look_up("silent.example", 80, Cancellation(), 0.05)


def test_an_answer_that_comes_late_is_taken_while_somebody_waits(resolver: Resolver) -> None:
    waiting = InThread(lambda: look_up("silent.example", 80, Cancellation(), PATIENCE_S))
    assert resolver.asked.wait(PATIENCE_S)
    resolver.gate.set()
    assert waiting.join() == ["127.0.0.1"]
