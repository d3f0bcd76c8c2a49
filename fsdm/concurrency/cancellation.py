"""Cancellation: one thread stops the transfers of others at once, whatever they are waiting for."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from fsdm.model.errors import StoppedError


class Cancellation:
    """Stops the transfers of one chunk at once, even one that waits for a byte that does not come.

    Several threads may share it; each guards the sockets that it uses, and releases them when it is done.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._set = False
        self._sockets: dict[int, list[tuple[socket.socket, bool]]] = {}  # by thread; whether `done` closes it
        self._waits: set[threading.Event] = set()

    def set(self) -> None:
        """Stop the transfers; a second time it does nothing."""
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
        """Raise StoppedError once this is set."""
        if self._set:
            raise StoppedError("the transfer was stopped")

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        """Wait for `seconds` or for `event`, whichever comes first; raise StoppedError as soon as this is set.

        `event` is for this wait alone: setting this sets it too.
        """
        event = event or threading.Event()
        with self._mutex:
            self._waits.add(event)
        try:
            if not self._set:  # after the add: a later set() finds the event
                event.wait(seconds)
        finally:
            with self._mutex:
                self._waits.discard(event)
        self.check()

    def guard(self, sock: socket.socket, *, connected: bool = False) -> None:
        """Cut `sock` when this is set, even while it connects or is being wrapped for TLS.

        A `connected` socket that stays the same object needs no descriptor of its own for that.
        """
        # TLS takes the descriptor away from the socket that it wraps
        guarded = sock if connected else socket.socket(fileno=os.dup(sock.fileno()))
        with self._mutex:
            self._sockets.setdefault(threading.get_ident(), []).append((guarded, not connected))
            if self._set:
                _cut(guarded)

    def done(self) -> None:
        """Release the sockets that this thread guards: they may serve another transfer."""
        with self._mutex:
            for sock, ours in self._sockets.pop(threading.get_ident(), ()):
                if ours:
                    sock.close()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # closed or not connected: then nothing waits for it
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own shutdown drops the encryption in mid-transfer
