"""Messages to systemd: sd_notify(3), by a datagram to the socket that NOTIFY_SOCKET names.

Nothing here waits: a socket that is full or gone loses the message, and the next one is sent as well. Of the kinds of
sockets there are, paths and abstract names are known.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fsdm.monitoring.repeating import Refusals, repeating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.monitoring.health import Health

STATUS_S: Final = 10.0


class Notifier:
    """Sends states to one socket. Systemd expects a sign of life each `watchdog_s`, if at all."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self._refusals = Refusals()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Notifier | None:
        """Make the one that the environment asks for; None where it asks for none."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        asked = is_ours and microseconds.isascii() and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if asked else None)

    def send(self, *states: str) -> None:
        """Send `NAME=value`, each a state; a line break in one would begin another."""
        message = "\n".join(" ".join(state.splitlines()) for state in states).encode()
        with (
            self._refusals.told(f"systemd was not told {states[0]}"),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.setblocking(False)
            channel.sendto(message, self._address)

    @contextmanager
    def serving(self, health: Callable[[], Health]) -> Iterator[None]:
        """Say that it is ready, and until the end of the block how it stands and that it lives."""

        def tell() -> None:
            now = health()
            alive = ["WATCHDOG=1"] if self.watchdog_s is not None and now.is_well else []
            self.send(*alive, f"STATUS={now.why}")

        each_s = min(STATUS_S, STATUS_S if self.watchdog_s is None else self.watchdog_s / 3)
        self.send("READY=1", f"STATUS={health().why}")
        try:
            with repeating(tell, each_s, name="fsdm-notify", patience_s=1.0):
                yield
        finally:
            self.send("STOPPING=1", "STATUS=stopping")
