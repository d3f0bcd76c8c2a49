"""Stop a client at its system calls, in whatever language it is written.

seccomp_unotify(2): the client starts with a filter that it cannot drop, and that its children inherit. Each call that
the filter names waits in the kernel, before it is carried out, until this process lets it go on. So a test can change
the disk at the one instant that a race is about, and sees each call with what it is on.

Run as a program, `gate.py FD CALLS CMD…` puts itself behind the gate, hands the other end over, and becomes CMD.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

PATIENCE_S = 60.0

# asm/unistd.h of each machine: the calls that a test may stop, and seccomp itself
CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "flock": 73, "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "unlink": 87,
        "unlinkat": 263, "open": 2, "openat": 257, "utimensat": 280, "seccomp": 317,
    },
    "aarch64": {
        "flock": 32, "renameat": 38, "renameat2": 276, "linkat": 37, "unlinkat": 35, "openat": 56, "utimensat": 88,
        "seccomp": 277,
    },
}  # fmt: skip
RENAMES = ("rename", "renameat", "renameat2")
LINKS = ("link", "linkat")
UNLINKS = ("unlink", "unlinkat")
OPENS = ("open", "openat")
TOUCHES = ("utimensat",)  # utimes(2) and its like are older than any libc that calls them
NUMBERS = CALLS.get(platform.machine(), {})

# linux/filter.h, linux/seccomp.h
_LOAD_NUMBER = (0x20, 0, 0, 0)
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_SET_FILTER, _NEW_LISTENER = 1, 1 << 3
_PR_SET_NO_NEW_PRIVS = 38
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION = struct.Struct("QIIiIQ6Q")  # id, pid, flags, number, architecture, instruction, arguments
_CONTINUE = 1
_INT = 0xFFFFFFFF  # the kernel looks at so much of a register that holds an int
_AT_FDCWD = -100 & _INT


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A system call that is about to be made; `path` is what it locks, removes, opens, touches, renames or links to."""

    call: str
    pid: int
    path: str
    how: int = 0  # flock's operation

    @property
    def renames(self) -> bool:
        return self.call in RENAMES

    @property
    def unlinks(self) -> bool:
        return self.call in UNLINKS


def stops(listener: int) -> Iterator[Cancellation]:
    """Each stop, until all that is behind the gate has ended; it goes on when the next one is asked for.

    A test that has seen enough iterates on all the same: else whatever comes after stays stopped.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        ready = poll.poll(PATIENCE_S * 1000)
        assert ready, "the client neither ends nor makes a call that is waited for"
        if not ready[0][1] & select.POLLIN:
            return
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, notification)
            number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(notification)
            yield _stop(call, pid, arguments)
            fcntl.ioctl(listener, _SEND, bytearray(struct.pack("QqiI", number, 0, 0, _CONTINUE)))
        except OSError as e:
            if e.errno not in {errno.ENOENT, errno.ESRCH}:  # it was killed, or a signal took it out of the call
                raise


def _stop(number: int, pid: int, arguments: list[int]) -> Cancellation:
    call = next(name for name, known in NUMBERS.items() if known == number)
    if call == "flock":
        return Cancellation(call, pid, _opened(pid, arguments[0]), arguments[1] & _INT)
    match call:
        case "rename" | "link":
            at, address = _AT_FDCWD, arguments[1]
        case "unlink" | "open":
            at, address = _AT_FDCWD, arguments[0]
        case "unlinkat" | "openat" | "utimensat":
            at, address = arguments[0], arguments[1]
        case _:
            at, address = arguments[2], arguments[3]
    return Cancellation(call, pid, _path(pid, at & _INT, address) if address else _opened(pid, at))


def _opened(pid: int, fd: int) -> str:
    return os.readlink(f"/proc/{pid}/fd/{fd & _INT}")


def _path(pid: int, at: int, address: int) -> str:
    """Read the path at `address` in a process, relative to its descriptor `at` or its directory."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        name = b""
        while b"\0" not in name:  # page by page: the next one may not be there
            name += os.pread(memory, 4096 - (address + len(name)) % 4096, address + len(name))
    finally:
        os.close(memory)
    base = os.readlink(f"/proc/{pid}/cwd" if at == _AT_FDCWD else f"/proc/{pid}/fd/{at}")
    return os.path.normpath(os.path.join(base, os.fsdecode(name.split(b"\0")[0])))


def command(given: int, calls: tuple[str, ...], client: list[str]) -> list[str]:
    """The client, behind a gate at these calls; the other end comes over the socket `given`."""
    numbers = ",".join(str(NUMBERS[call]) for call in calls if call in NUMBERS)
    return [sys.executable, "-S", __file__, str(given), numbers, *client]


def receive(given: socket.socket) -> int | None:
    """The descriptor for `stops`; None where this kernel, or the container, does not let anyone stop."""
    message, descriptors, _, _ = socket.recv_fds(given, 1, 1)
    assert message, "the client could not be started"
    return descriptors[0] if descriptors else None


def _close_the_gate(numbers: list[int]) -> int:
    """Put this process behind the filter; the listener's descriptor."""
    program = [
        _LOAD_NUMBER,
        *((_JUMP_IF_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = libc.syscall(
        NUMBERS["seccomp"], _SET_FILTER, _NEW_LISTENER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    )
    return listener


def main(given: str, numbers: str, *client: str) -> None:
    """Go behind the gate and become the client."""
    listener = _close_the_gate([int(number) for number in numbers.split(",")]) if NUMBERS else -1
    with socket.socket(fileno=int(given)) as other:
        socket.send_fds(other, [b"x"], [listener] if listener >= 0 else [])
    os.execvp(client[0], client)


if __name__ == "__main__":
    main(*sys.argv[1:])
