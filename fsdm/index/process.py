"""Running the process of an indexer: its job, its time, its end.

Invariant: when `run` returns or raises, the process and what it has begun (in its session) has been killed.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import IndexerError

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 0.2  # so often it is asked whether to go on: so long a delete may wait for the ref
REPORT_MAX: Final = 1 << 16  # all that a pipe holds: pipe(7)
TAIL: Final = 2000  # bytes of its stderr that are told of
# a process that runs code of others gets no more of the environment: there may be secrets of sources in it
PASSED: Final = frozenset(
    {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PYTHONHOME", "PYTHONPATH"}
    | {"TMPDIR", "TZ", "USER", "VIRTUAL_ENV"}
)


def run(module: str, job: bytes, timeout_s: float, go_on: Callable[[], None]) -> dict[str, Any]:
    """Have a module of fsdm carry out a job, given on its stdin; return its report.

    `go_on` is called again and again, and may raise.

    Raises:
        IndexerError: it failed, ran out of time, or has reported nothing.
    """
    environment = {name: value for name, value in os.environ.items() if name in PASSED}
    with out_of_turn(), file_of(job) as given:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            report, said = _attend(process, time.monotonic() + timeout_s, go_on)
        except TimeoutError:
            hint = "raise its timeout, or find out what it waits for"
            raise IndexerError(f"the indexer has not ended within {timeout_s:g} s", hint=hint) from None
        finally:
            _kill_session(process)
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()
    return _checked(report, said, process.returncode)


def file_of(data: bytes) -> BinaryIO:
    """Make a file in memory, for a process to read as its stdin: a pipe may be full, and its writer wait."""
    file = open(os.memfd_create("fsdm-stdin"), "w+b")  # noqa: SIM115 its caller closes it
    file.write(data)
    file.seek(0)
    return file


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that is not waited for yet (till then the number is its own), and the rest of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _attend(process: subprocess.Popen[bytes], deadline: float, go_on: Callable[[], None]) -> tuple[bytes, bytes]:
    """Read what a process writes until it ends: its report, and the end of its stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    read = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    report, errors = read
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for fd in (*read, ended):
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            while True:
                go_on()
                if time.monotonic() > deadline:
                    raise TimeoutError
                ready = {key.fd for key, _ in selector.select(LOOK_S)}
                if ended in ready:
                    _kill_session(process)  # else those that it has left behind might go on to write
                for fd in read if ended in ready else ready:
                    if part := _read_some(fd):
                        read[fd] += part
                    elif ended not in ready:
                        selector.unregister(fd)
                read[errors] = read[errors][-TAIL:]
                if len(read[report]) > REPORT_MAX:
                    raise IndexerError("the indexer's process has reported too much")
                if ended in ready:
                    return read[report], read[errors]
    finally:
        os.close(ended)


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, REPORT_MAX)
    except BlockingIOError:
        return b""


def _checked(report: bytes, said: bytes, code: int) -> dict[str, Any]:
    try:
        document = json.loads(report)
        error = document.get("error")
    except (ValueError, AttributeError):
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}, and no report"
        error, document = f"the indexer's process {how}", {}
    if error is None:
        return document  # type: ignore[no-any-return]
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    hint = document.get("hint")
    raise IndexerError(f"{error}{f'; it said: {last}' if last else ''}", hint=hint if isinstance(hint, str) else "")
