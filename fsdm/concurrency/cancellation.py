"""How a transfer is stopped from another thread: at once, whatever it is waiting for."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from fsdm.model.errors import StoppedError


class Cancellation:
    """Stops the transfers of one chunk, at once: also one that waits for a byte that does not come.

    Several threads may transfer under one Stop; each guards, and lets go of, the sockets that it uses.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._set = False
        self._sockets: dict[int, list[tuple[socket.socket, bool]]] = {}  # by thread; whether we close it
        self._waits: set[threading.Event] = set()

    def set(self) -> None:
        """Stop it; a second time it does nothing."""
        with self._mutex:
            self._set = True
            for guarded in self._sockets.values():
                for sock, _ in guarded:
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

    def guard(self, sock: socket.socket, *, connected: bool = False) -> None:
        """Cut `sock` when this is set; also while it connects, and while it is being wrapped for TLS.

        One that is `connected`, and stays the object that it is, needs no descriptor of its own for that.
        """
        # TLS takes the descriptor from the one that it wraps
        guarded = sock if connected else socket.socket(fileno=os.dup(sock.fileno()))
        with self._mutex:
            self._sockets.setdefault(threading.get_ident(), []).append((guarded, not connected))
            if self._set:
                _cut(guarded)

    def done(self) -> None:
        """The sockets that this thread has guarded are no longer this transfer's: they may serve another."""
        with self._mutex:
            for sock, ours in self._sockets.pop(threading.get_ident(), ()):
                if ours:
                    sock.close()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed or not connected: then nothing waits for it
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which forgets in mid-transfer that it is TLS
