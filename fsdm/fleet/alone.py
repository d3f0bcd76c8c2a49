"""A task in a process of its own: what ends or freezes that process does neither to the worker.

The child reads the pickled task on its standard input, and writes a line with the number of each part before it reads
it, then the pickled answer, to a pipe. It ends with its worker.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from fsdm.fleet.task import Answer, work_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.fleet.task import Work

PR_SET_PDEATHSIG: Final = 1  # prctl(2)
PART: Final = b"part "
ANSWER: Final = b"answer\n"
RAISED: Final = b"raised\n"
LOOK_S: Final = 0.5
READ_BYTES: Final = 1 << 20


def work_alone(data_dir: str, node: str, work: Work, is_wanted: Callable[[], bool]) -> Answer:
    """Do the work in a child; where that dies, the answer says with which part, and how.

    It is killed once the answer is no longer wanted.

    Raises:
        Exception: whatever the function raises.
    """
    read_fd, write_fd = os.pipe()
    arguments = [sys.executable, "-m", __name__, str(os.getpid()), str(write_fd)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.Popen(arguments, stdin=subprocess.PIPE, pass_fds=(write_fd,), env=environment)
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    with child, os.fdopen(read_fd, "rb") as pipe:
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # it has died before it read all: as is seen next
                child.stdin.write(pickle.dumps((data_dir, node, work)))
            with suppress(BrokenPipeError):
                child.stdin.close()
            said = _read(pipe, is_wanted)
        finally:
            child.kill()
    begun, last = _begun(said)
    if (data := begun.removeprefix(ANSWER)) != begun and isinstance(answer := _loaded(data), Answer):
        return answer
    if (data := begun.removeprefix(RAISED)) != begun and isinstance(error := _loaded(data), BaseException):
        raise error
    return Answer(died=(work.parts[0][0] if last is None else last, _how(child.wait())))


def _read(pipe: BinaryIO, is_wanted: Callable[[], bool]) -> bytes:
    """Read all that the child writes, for as long as it is wanted."""
    found = bytearray()
    while is_wanted():
        if select.select([pipe], [], [], LOOK_S)[0]:
            data = os.read(pipe.fileno(), READ_BYTES)
            if not data:
                break
            found += data
    return bytes(found)


def _begun(said: bytes) -> tuple[bytes, int | None]:
    """Take the lines of parts off what a child has said: the rest, and the last part."""
    last, at = None, 0
    while said.startswith(PART, at) and (end := said.find(b"\n", at)) >= 0:
        last, at = int(said[at + len(PART) : end]), end + 1
    return said[at:], last


def _loaded(data: bytes) -> object:
    """Load what the child has written; None where it died in its middle."""
    try:
        return pickle.loads(data)  # noqa: S301 our own child's
    except (EOFError, pickle.UnpicklingError):
        return None


def _how(code: int) -> str:
    """Say how a process has ended."""
    if code >= 0:
        return f"it ended with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def main(parent: int, write_fd: int) -> None:
    """Be the child."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    import cloudpickle

    from fsdm.model.layout import Layout
    from fsdm.store.refs import Refs  # not a client: it is loaded in half the time

    data_dir, node, work = pickle.load(sys.stdin.buffer)  # noqa: S301 our worker's
    with os.fdopen(write_fd, "wb", buffering=0) as pipe:
        try:
            take = Refs(Layout(data_dir)).take
            answer = work_on(take, node, work, lambda number: pipe.write(b"%s%d\n" % (PART, number)))
            kind, data = ANSWER, cloudpickle.dumps(answer)
        except Exception as e:
            kind, data = RAISED, _raised(e)
        view = memoryview(kind + data)
        while view:
            view = view[pipe.write(view) :]


def _raised(error: Exception) -> bytes:
    """Pickle an error; one that cannot be becomes its text."""
    import cloudpickle

    error.add_note("".join(traceback.format_exception(error)))
    try:
        data: bytes = cloudpickle.dumps(error)
        pickle.loads(data)  # noqa: S301 what was just made: some can be pickled, and not be loaded
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return data


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
