"""What a service says to systemd: sd_notify(3), by a datagram to the socket that NOTIFY_SOCKET names.

Nothing happens where the variable is not set. Nothing here waits: a socket that is full or gone loses the message, and
the next one is sent as well. Of the kinds of sockets there are, paths and abstract names are known.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.monitoring.health import Verdict

logger = logging.getLogger("fsdm")

STATUS_S: Final = 10.0


class Notifier:
    """Sends states to one socket. `watchdog_s`: so often at least systemd wants to hear of us; None where never."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self._refused = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Notifier | None:
        """The one that the environment asks for, or None."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        asked = is_ours and microseconds.isascii() and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if asked else None)

    def send(self, *states: str) -> None:
        """Say `NAME=value`, each a state; a line break in one would begin another."""
        message = "\n".join(" ".join(state.splitlines()) for state in states).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(message, self._address)
        except OSError as e:
            if not self._refused:
                logger.warning("systemd was not told %s: %s", states[0], e)
            self._refused = True
        else:
            self._refused = False

    @contextmanager
    def serving(self, health: Callable[[], Verdict]) -> Iterator[None]:
        """Say that we are ready; until the end of the block how it stands, and, while all is well, that we live."""
        stop = threading.Event()
        self.send("READY=1", f"STATUS={health().why}")
        thread = threading.Thread(target=self._tell, args=(health, stop), name="fsdm-notify", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            self.send("STOPPING=1", "STATUS=stopping")
            thread.join(1.0)

    def _tell(self, health: Callable[[], Verdict], stop: threading.Event) -> None:
        pause_s = min(STATUS_S, STATUS_S if self.watchdog_s is None else self.watchdog_s / 3)
        while not stop.wait(pause_s):
            verdict = health()
            alive = ["WATCHDOG=1"] if self.watchdog_s is not None and verdict.is_well else []
            if not stop.is_set():
                self.send(*alive, f"STATUS={verdict.why}")
