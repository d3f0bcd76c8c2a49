"""How a transfer is stopped from another thread: at once, whatever it is waiting for."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from fsdm.errors import StoppedError


class Stop:
    """Stops the transfers of one chunk, at once: also one that waits for a byte that does not come.

    Several threads may transfer under one Stop; each guards, and lets go of, the sockets that it uses.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._set = False
        self._sockets: dict[int, list[socket.socket]] = {}  # by thread
        self._waits: set[threading.Event] = set()

    def set(self) -> None:
        """Stop it; a second time it does nothing."""
        with self._mutex:
            self._set = True
            for socks in self._sockets.values():
                for sock in socks:
                    _cut(sock)
            for event in self._waits:
                event.set()

    def is_set(self) -> bool:
        return self._set

    def check(self) -> None:
        """Raise StoppedError once it is set."""
        if self._set:
            raise StoppedError("the transfer was stopped")

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        """Return after `seconds`, or as soon as `event` is set; raise StoppedError as soon as this is.

        `event` is for this wait alone: a stop sets it.
        """
        event = event or threading.Event()
        with self._mutex:
            self._waits.add(event)
        try:
            if not self._set:  # looked at after the add: a set() from now on finds the event
                event.wait(seconds)
        finally:
            with self._mutex:
                self._waits.discard(event)
        self.check()

    def guard(self, sock: socket.socket) -> None:
        """Cut `sock` when this is set; also while it connects, and while it is being wrapped for TLS."""
        twin = socket.socket(fileno=os.dup(sock.fileno()))  # the wrapped one takes the descriptor from the first
        with self._mutex:
            self._sockets.setdefault(threading.get_ident(), []).append(twin)
            if self._set:
                _cut(twin)

    def done(self) -> None:
        """The sockets that this thread has guarded are no longer this transfer's: they may serve another."""
        with self._mutex:
            for sock in self._sockets.pop(threading.get_ident(), ()):
                sock.close()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed or not connected: then nothing waits for it
        sock.shutdown(socket.SHUT_RDWR)
