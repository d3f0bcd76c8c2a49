"""The confinement of a process that runs an indexer: memory, network, priority, and an end with its parent.

Invariant: what is begun by the process has no more than the process itself. What the platform does not let it have
taken away (namespaces, in some containers) it keeps: `confine` tells.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # prctl(2)
PR_SET_NO_NEW_PRIVS: Final = 38
CLONE_NEWUSER: Final = 0x10000000  # unshare(2)
CLONE_NEWNET: Final = 0x40000000
NICE: Final = 10

_libc = ctypes.CDLL(None, use_errno=True)


def confine(memory_bytes: int, file_bytes: int = resource.RLIM_INFINITY) -> bool:
    """Bound this process, which has one thread, and what it begins; tell whether it is cut off the network.

    Each of them may write to `memory_bytes`, and files of at most `file_bytes`.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _bound(resource.RLIMIT_DATA, memory_bytes)  # of private memory that can be written
    _bound(resource.RLIMIT_FSIZE, file_bytes)
    return _cut_network()


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    bound = min((one for one in (most, hard) if one != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
    resource.setrlimit(what, (bound, bound))


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends; end now where it has.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), *map(ctypes.c_ulong, (0, 0, 0))) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")


def _cut_network() -> bool:
    """Move to a network namespace, in which even loopback is down; who is not root needs a user namespace for it."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWNET) == 0:
        return True
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        pass  # files seem to be nobody's then, and are read all the same
    return True
