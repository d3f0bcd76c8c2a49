"""A stop cuts what is guarded, at once and also later, and lets go of what is done with."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import StoppedError
from tests.support.servers import InThread
from tests.support.waiting import PATIENCE_S, descriptors, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watched(threading.Event):
    """An event that tells when somebody waits for it, and for how long at most."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = threading.Event()
        self.timeout_s: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        self.timeout_s = timeout
        self.waited.set()
        return super().wait(timeout)


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection."""
    here, there = socket.socketpair()
    with here, there:
        for end in (here, there):
            end.settimeout(PATIENCE_S)
        yield here, there


def guarding(stop: Cancellation, sock: socket.socket, ready: threading.Barrier) -> bytes:
    """What comes over `sock`, guarded; b"" once it is cut."""
    stop.guard(sock)
    ready.wait(PATIENCE_S)
    try:
        return sock.recv(10)
    finally:
        stop.done()


def test_a_stop_is_heard_by_whoever_asks() -> None:
    stop = Cancellation()
    stop.check()
    assert not stop.is_set()
    stop.set()
    stop.set()
    assert stop.is_set()
    with pytest.raises(StoppedError):
        stop.check()


def test_a_stop_wakes_every_thread_that_waits_for_a_byte() -> None:
    stop, ready = Cancellation(), threading.Barrier(3)
    with connected() as (one, _), connected() as (other, _):
        threads = [InThread(lambda sock=sock: guarding(stop, sock, ready)) for sock in (one, other)]  # type: ignore[misc]
        ready.wait(PATIENCE_S)
        stop.set()
        assert [thread.join() for thread in threads] == [b"", b""]


def test_what_is_guarded_after_the_stop_is_cut_at_once() -> None:
    stop = Cancellation()
    stop.set()
    with connected() as (here, _):
        stop.guard(here)
        assert here.recv(1) == b""
        stop.done()


def test_a_thread_that_guards_two_sockets_has_both_cut() -> None:
    stop = Cancellation()
    with connected() as (one, _), connected() as (other, _):
        stop.guard(one)
        stop.guard(other)
        stop.set()
        assert (one.recv(1), other.recv(1)) == (b"", b"")
        stop.done()


def test_a_socket_that_is_done_with_is_not_cut() -> None:
    stop = Cancellation()
    with connected() as (here, there):
        stop.guard(here)
        stop.done()
        stop.set()
        there.sendall(b"on")
        assert here.recv(10) == b"on"


def test_a_thread_that_is_done_lets_go_of_its_own_sockets_alone() -> None:
    stop, ready = Cancellation(), threading.Barrier(2)
    with connected() as (mine, peer), connected() as (others, _):
        stop.guard(mine)
        thread = InThread(lambda: guarding(stop, others, ready))
        ready.wait(PATIENCE_S)
        stop.done()
        stop.set()
        assert thread.join() == b""
        peer.sendall(b"on")
        assert mine.recv(10) == b"on"


def test_a_socket_is_cut_though_its_descriptor_has_gone_on_to_another_object() -> None:
    stop = Cancellation()
    with connected() as (here, _):
        stop.guard(here)
        with socket.socket(fileno=here.detach()) as wrapped:  # as TLS does it
            wrapped.settimeout(PATIENCE_S)
            stop.set()
            assert wrapped.recv(1) == b""
        stop.done()


def test_a_socket_that_is_closed_already_is_no_obstacle_to_the_others() -> None:
    stop = Cancellation()
    with connected() as (gone, there), connected() as (here, _):
        stop.guard(gone)
        stop.guard(here)
        gone.close()
        there.close()
        stop.set()
        assert here.recv(1) == b""
        stop.done()


def test_a_connected_socket_is_cut_and_let_go_of_as_it_is() -> None:
    stop = Cancellation()
    with connected() as (mine, peer), connected() as (others, _):
        stop.guard(mine, connected=True)
        stop.done()
        stop.guard(others, connected=True)
        assert [descriptors()[os.fstat(sock.fileno()).st_ino] for sock in (mine, others)] == [1, 1]
        stop.set()
        assert others.recv(1) == b""
        peer.sendall(b"on")
        assert mine.recv(10) == b"on"
        stop.done()


def test_cut_tls_connection_fails_as_a_connection_does() -> None:
    stop, context = Cancellation(), ssl.create_default_context()
    with (
        connected() as (here, _),
        context.wrap_socket(here, server_hostname="localhost", do_handshake_on_connect=False) as wrapped,
    ):
        stop.guard(wrapped, connected=True)
        stop.set()
        with pytest.raises(OSError):  # noqa: PT011 which one depends on OpenSSL
            wrapped.do_handshake()
        stop.done()


def test_a_guard_leaves_no_descriptor_behind() -> None:
    stop = Cancellation()
    with connected() as (here, _):
        inode = os.fstat(here.fileno()).st_ino
        for _ in range(5):
            stop.guard(here)
        assert descriptors()[inode] == 1 + 5
        stop.done()
        stop.done()
        assert descriptors()[inode] == 1


def test_a_stop_ends_every_wait_at_once() -> None:
    stop, events = Cancellation(), [Watched(), Watched()]
    threads = [InThread(lambda event=event: stop.wait(1e6, event)) for event in events]  # type: ignore[misc]
    assert all(event.waited.wait(PATIENCE_S) for event in events)
    stop.set()
    assert all(isinstance(thread.join(), StoppedError) for thread in threads)
    assert stop._waits == set()


def test_a_wait_without_an_event_ends_with_its_time_or_with_the_stop() -> None:
    stop = Cancellation()
    stop.wait(0.001)
    thread = InThread(lambda: stop.wait(1e6))
    eventually(lambda: stop._waits)
    stop.set()
    assert isinstance(thread.join(), StoppedError)


def test_a_wait_that_comes_after_the_stop_does_not_wait() -> None:
    stop, event = Cancellation(), Watched()
    stop.set()
    with pytest.raises(StoppedError):
        stop.wait(1e6, event)
    assert not event.waited.is_set()
    assert stop._waits == set()


def test_a_wait_ends_with_its_event_or_with_its_time() -> None:
    stop, happened, never = Cancellation(), Watched(), Watched()
    happened.set()
    stop.wait(1e6, happened)
    stop.wait(0.001, never)
    assert (never.timeout_s, never.is_set(), stop._waits) == (0.001, False, set())
    stop.set()
    assert not never.is_set(), "it is nobody's any more"
