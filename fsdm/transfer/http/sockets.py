"""The sockets of a libcurl handle, which another thread may shut down while they are open.

In a forked child they lead to nothing: no byte of its own (TLS says goodbye) goes over a connection of its parent.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import pycurl

from fsdm.concurrency.fork_gate import gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.concurrency.cancellation import Cancellation


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """Use the socket of a descriptor, which stays open."""
    sock = socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


class _Socket:
    opened: Final[weakref.WeakSet[_Socket]] = weakref.WeakSet()

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.mutex = threading.Lock()
        os.set_inheritable(fd, False)  # pycurl's duplicate of the one that it is given
        self.opened.add(self)

    def cut(self) -> None:
        with self.mutex:
            if self.fd >= 0:
                with suppress(OSError), borrowed(self.fd) as sock:  # not connected: then nothing waits for it
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self.mutex, gate:
            os.close(self.fd)
            self.fd = -1


def _after_fork_in_child() -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    fds = []
    for one in _Socket.opened:
        one.mutex = threading.Lock()
        fds += [one.fd] if one.fd >= 0 else []
    made = [found for one in Sockets.all if (found := one.made()) is not None]
    if made:  # pycurl was about to duplicate it: that is none yet
        fds += [fd for fd in map(int, os.listdir("/proc/self/fd")) if _inode(fd) in made]
    for fd in fds:
        os.dup2(null, fd, inheritable=False)
    os.close(null)


def _inode(fd: int) -> int | None:
    try:
        found = os.fstat(fd)
    except OSError:  # it was that of the listing itself
        return None
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else None


os.register_at_fork(after_in_child=_after_fork_in_child)


class Sockets:
    """The sockets of one handle, which libcurl opens and closes here."""

    all: Final[weakref.WeakSet[Sockets]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.open: dict[int, _Socket] = {}
        self.handed_on: dict[int, int] = {}  # bytes of all answers over a connection, by its local port
        self.refused: BaseException | None = None  # why there was no address to connect to
        self._made: socket.socket | None = None
        self._stop: Cancellation | None = None
        self._check_address: Callable[[str], None] | None = None
        self.all.add(self)

    def made(self) -> int | None:
        """Return the inode of a socket that was made, and is no `_Socket` yet."""
        return None if self._made is None else os.fstat(self._made.fileno()).st_ino

    def find(self, port: int) -> int | None:
        """The descriptor of the socket that has a local port."""
        for fd in self.open:
            with borrowed(fd) as sock:
                if sock.getsockname()[1] == port:
                    return fd
        return None

    def guard(self, stop: Cancellation, check_address: Callable[[str], None]) -> None:
        """Have `stop` cut all of them; `check_address` may raise to refuse an address."""
        self._stop, self._check_address, self.refused = stop, check_address, None
        for one in self.open.values():
            stop.guard(one.cut)

    def release(self) -> None:
        """Have none of them cut any more: they may serve another request."""
        stop, self._stop, self._check_address = self._stop, None, None
        if stop is not None:
            for one in self.open.values():
                stop.release(one.cut)

    def opens(self, _: int, address: Any) -> Any:
        """OPENSOCKETFUNCTION: one for each address, after each look-up."""
        family, kind, protocol, where = address
        try:
            if self._check_address is not None:
                self._check_address(str(where[0]))
            with gate:
                self._made = socket.socket(family, kind, protocol)
        except BaseException as e:  # another address may be better
            self.refused = e
            return pycurl.SOCKET_BAD
        return self._made

    def is_made(self, fd: int, _: int) -> int:
        """SOCKOPTFUNCTION: libcurl has a descriptor of its own now."""
        with gate:
            if self._made is not None:
                self._made.close()
                self._made = self.refused = None
            one = self.open[fd] = _Socket(fd)
        if self._stop is None:
            return pycurl.SOCKOPT_ERROR
        self._stop.guard(one.cut)
        return pycurl.SOCKOPT_ERROR if self._stop.is_set() else pycurl.SOCKOPT_OK

    def closes(self, fd: int) -> int:
        """CLOSESOCKETFUNCTION."""
        self.handed_on.clear()  # another connection may have its port
        one = self.open.pop(fd, None) or _Socket(fd)
        if self._stop is not None:
            self._stop.release(one.cut)
        one.close()
        return 0
