"""The other processes of a bench: workers, a source, `fsdm run`; and the waiting for them.

Times across processes are CLOCK_MONOTONIC, which is one clock for the whole machine. Every wait is bounded.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsdm.model.layout import Layout
from fsdm.store.leader_lock import read_lock
from tools.support.proc import cpu_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

T = TypeVar("T")

PATIENCE_S: Final = 30.0
MIB: Final = 1 << 20

# forked from a process that has imported fsdm and has no threads: a new process costs milliseconds
CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fsdm.manager", "tools.bench.base", "concurrent.futures.process"])


def until(check: Callable[[], Any], what: str, pause_s: float = 0.0001, within_s: float = PATIENCE_S) -> int:
    """Wait until `check` is true; return CLOCK_MONOTONIC of that moment, in nanoseconds."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(pause_s)
    return time.monotonic_ns()


def settle(pid: int) -> None:
    """Wait until a process rests: the reconciler looks at every chunk once when it starts."""
    deadline = time.monotonic() + PATIENCE_S
    before, window_s = cpu_ns(pid), 0.5
    while time.monotonic() < deadline:
        time.sleep(window_s)
        used, before = cpu_ns(pid) - before, cpu_ns(pid)
        if used < 0.02 * window_s * 1e9:
            return


def in_process(work: Callable[..., T], *args: Any, within_s: float = PATIENCE_S * 8, **more: Any) -> T:
    """Call `work` in a process of its own; return what it returns."""
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        return pool.submit(work, *args, **more).result(within_s)


@contextmanager
def process(work: Callable[..., None], *args: object) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """Run `work(connection, *args)` in a process; yield it and our connection; kill it at last."""
    ours, theirs = CONTEXT.Pipe()
    child = CONTEXT.Process(target=work, args=(theirs, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield child, ours
    finally:
        child.kill()
        child.join(PATIENCE_S)
        ours.close()


def receive(connection: Connection, within_s: float = PATIENCE_S) -> Any:
    """Return what the other process sends, in time."""
    if not connection.poll(within_s):
        raise TimeoutError(f"another process said nothing for {within_s:g} s")
    return connection.recv()


def command(*arguments: str) -> list[str]:
    """Return the command line of fsdm with these arguments."""
    return [sys.executable, "-m", "fsdm", *arguments]


@contextmanager
def reconciler(data_dir: str, *options: str) -> Iterator[int]:
    """Start `fsdm run`, wait until it has LOCK and rests, yield its pid; stop it afterwards."""
    with starting(data_dir, *options) as pid:
        until(lambda: read_lock(Layout(data_dir)), "fsdm run has LOCK", 0.01)
        settle(pid)
        yield pid


@contextmanager
def starting(data_dir: str, *options: str) -> Iterator[int]:
    """Start `fsdm run`, yield its pid; stop it afterwards."""
    run = subprocess.Popen(
        command("run", "-d", data_dir, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield run.pid
    finally:
        run.terminate()
        try:
            run.wait(10)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()


class _Server(socketserver.ThreadingTCPServer):
    """Answers GET /SIZE/RATE/NAME with SIZE bytes at RATE bytes a second (0: at full speed)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, asked: Connection) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = asked
        self.mutex = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a transfer was stopped."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := self.request.recv(65536):
            now = time.monotonic_ns()
            while b"\r\n\r\n" not in head:
                head += self.request.recv(65536)
            size, rate, name = head.split()[1].decode().strip("/").split("/")
            if name == "timed":
                with self.server.mutex:
                    self.server.asked.send(now)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(size))
            self._body(int(size), int(rate))

    def _body(self, size: int, rate: int) -> None:
        part = bytes(min(size, rate // 20 if rate else MIB))
        for sent in range(0, size, len(part)):
            self.request.sendall(part[: size - sent])
            if rate:
                time.sleep(0.05)


def serve(connection: Connection) -> None:
    """Be a source: send our URL, then the moment of each request for `timed`."""
    os.nice(19)  # a real source is on another machine: it takes nothing from what is measured
    with _Server(connection) as server:
        connection.send(f"http://127.0.0.1:{server.server_address[1]}")
        server.serve_forever()
