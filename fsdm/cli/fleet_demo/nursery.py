"""Processes of the demo, forked from one that has imported what they need: to import it takes a second of CPU each.

That one, the nursery, reads what to begin on its standard input, and says on its standard output what becomes of each.
When its input ends, however the demo has ended, it kills all of them, also those that are stopped; where it is killed
itself, the kernel does. Each leads a group of its own, so that Ctrl-C is for the demo alone.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG: Final = 1  # prctl(2)
LOOK_S: Final = 0.1
ROLES: Final = "fsdm.cli.fleet_demo.roles"
PRELOADED: Final = (
    "distributed",
    "pyarrow.parquet",
    "fsdm.cli.follow",
    "fsdm.fleet.dask_node",
    "fsdm.lists.following",
    "fsdm.lists.reporting",
    "fsdm.manager",
    ROLES,
)


def main() -> None:
    """Be the nursery: each line that is read is [NUMBER, LOG, FUNCTION, ARGUMENT …], of a function in `roles`.

    A function is called with what says something to the demo, then with its arguments.
    """
    say = partial(_say, os.dup(1))
    for name in PRELOADED:
        import_module(name)
    gc.freeze()  # what is imported is looked at by no child's collector: it would copy all of it
    alive: dict[int, int] = {}
    unread = b""
    while True:
        if select.select([0], [], [], LOOK_S)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                number, *how = json.loads(line)
                alive[pid := _begun(partial(say, number), *how)] = number
                say(number, pid=pid)
        while alive and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            say(alive.pop(ended[0]), code=os.waitstatus_to_exitcode(ended[1]))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    while alive:
        alive.pop(os.waitpid(-1, 0)[0])


def _say(fd: int, number: int, **words: Any) -> None:
    """Say something of a process to the demo, in a line that is less than PIPE_BUF, so comes whole: pipe(7)."""
    with suppress(BrokenPipeError):  # the demo has been killed: so is this, soon
        os.write(fd, json.dumps({"number": number, **words}).encode() + b"\n")


def _begun(say: Callable[..., None], log: str, function: str, *arguments: Any) -> int:
    nursery = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for flags, path, standard in (
            (os.O_RDONLY, os.devnull, (0,)),
            (os.O_WRONLY | os.O_CREAT | os.O_APPEND, log, (1, 2)),
        ):
            fd = os.open(path, flags)
            for one in standard:
                os.dup2(fd, one)
        if os.getppid() == nursery:
            code = getattr(import_module(ROLES), function)(say, *arguments)
            code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # to the log
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
