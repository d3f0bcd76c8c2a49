"""The sockets of a libcurl handle.

In a forked child they lead to nothing: no byte of its own (TLS says goodbye) goes over a connection of its parent.
Invariant: `inodes` has each of them; one that libcurl has closed has another inode, or none.
"""

from __future__ import annotations

import os
import socket
import stat
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pycurl

from fsdm.concurrency.fork_gate import gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """Use the socket of a descriptor, which stays open."""
    sock = socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _after_fork_in_child() -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    fds = [fd for one in Sockets.all for fd in one.open()]
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
    """The sockets of one handle, which libcurl opens and closes."""

    all: Final[weakref.WeakSet[Sockets]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.inodes: dict[int, int] = {}  # by descriptor
        self.handed_on: dict[int, int] = {}  # bytes of all answers over a connection, by its local port
        self.refused: BaseException | None = None  # why there was no address to connect to
        self._made: socket.socket | None = None
        self._check_address: Callable[[str], None] | None = None
        self.all.add(self)

    def made(self) -> int | None:
        """Return the inode of a socket that was made, and is none of libcurl's yet."""
        return None if self._made is None else os.fstat(self._made.fileno()).st_ino

    def open(self) -> list[int]:
        """Return the descriptors of those that are open."""
        return [fd for fd, inode in self.inodes.items() if _inode(fd) == inode]

    def find(self, port: int) -> int | None:
        """The descriptor of the socket that has a local port."""
        for fd in self.open():
            with borrowed(fd) as sock:
                if sock.getsockname()[1] == port:
                    return fd
        return None

    def guard(self, check_address: Callable[[str], None]) -> None:
        """For the next request: `check_address` may raise to refuse an address."""
        self._check_address, self.refused = check_address, None

    def release(self) -> None:
        """Let go of the check."""
        self._check_address = None

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
        self.handed_on.clear()  # another connection may have had its port
        with gate:
            if self._made is not None:
                self._made.close()
                self._made = self.refused = None
            os.set_inheritable(fd, False)  # pycurl's duplicate of the one that it is given
            self.inodes = {fd: os.fstat(fd).st_ino, **{old: self.inodes[old] for old in self.open() if old != fd}}
        return pycurl.SOCKOPT_OK
