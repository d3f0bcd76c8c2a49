"""What systemd and a stuck reconciler look like."""

import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import fsdm.reconcile.loop
from fsdm import DataManager
from tests.support.chunks import an_id
from tests.support.waiting import PATIENCE_S


class Systemd:
    """A socket that is told how a service stands."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(PATIENCE_S)

    def heard(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")

    def all_until(self, line: str) -> list[list[str]]:
        """The next messages, up to the one with this line."""
        heard = [self.heard()]
        while line not in heard[-1]:
            heard.append(self.heard())
        return heard


@contextmanager
def systemd(kind: str = "path") -> Iterator[Systemd]:
    with tempfile.TemporaryDirectory() as directory:  # a socket's path has 107 bytes at most
        it = Systemd(f"{directory}/notify" if kind == "path" else f"@fsdm-test-{secrets.token_hex(8)}")
        try:
            yield it
        finally:
            it.socket.close()


class Stuck:
    """The loop of a manager, kept at its next look; by the clock of its heartbeat, time goes as it is told to."""

    def __init__(self, dm: DataManager, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.gate, self.ahead_s = threading.Event(), threading.Event(), 0.0
        assert dm.reconciler is not None
        monkeypatch.setattr(dm.reconciler.heartbeat, "_clock", lambda: time.monotonic() + self.ahead_s)
        looks = fsdm.reconcile.loop.look

        def look(*args: Any) -> Any:
            self.reached.set()
            assert self.gate.wait(PATIENCE_S)
            return looks(*args)

        monkeypatch.setattr(fsdm.reconcile.loop, "look", look)
        dm.delete_chunk(an_id())
        assert self.reached.wait(PATIENCE_S)
