"""Signals of a command that goes on: it ends, or reads its configuration again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from tests.support import PATIENCE_S, begun

SERVE = """
import os, sys
from fsdm.cli.signals import Signals
signals = Signals()
print("ready", flush=True)
signals.serve(lambda: os.write(int(sys.argv[1]), b"again\\n"))
os.write(int(sys.argv[1]), b"end\\n")
"""
LOOK = """
import signal, sys
from fsdm.cli.signals import asked_to_end
asked = asked_to_end()
print(asked.is_set())
signal.raise_signal(int(sys.argv[1]))
print(asked.is_set())
"""
# in a session of its own, whose terminal is standard input
IN_A_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "1" else signal.SIG_DFL)  # whatever the tests inherit
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""


@contextmanager
def serving(*command: str, terminal: int = subprocess.DEVNULL) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A process that serves its signals, and what it tells of them."""
    reader, writer = os.pipe()
    command = (sys.executable, "-c", *command, SERVE, str(writer))
    streams = {"stdin": terminal, "stdout": subprocess.PIPE, "pass_fds": [writer]}
    with begun(command, **streams, start_new_session=True) as process:
        os.close(writer)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with os.fdopen(reader, "rb") as told:
            yield process, told
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_each_sighup_is_served_and_sigterm_and_sigint_end_it(number: int) -> None:
    with serving() as (process, told):
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            assert told.readline() == b"again\n"
        process.send_signal(number)
        assert told.read() == b"end\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polling_command_sees_that_it_is_asked_to_end(number: int) -> None:
    command = [sys.executable, "-c", LOOK, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (0, "False\nTrue\n")


@pytest.mark.parametrize("is_nohup", [False, True])
def test_a_terminal_that_goes_away_ends_it_but_under_nohup(is_nohup: bool) -> None:
    ours, theirs = os.openpty()
    with serving(IN_A_TERMINAL, str(int(is_nohup)), terminal=theirs) as (process, told):
        os.close(theirs)
        process.send_signal(signal.SIGHUP)
        assert told.readline() == b"again\n"
        os.close(ours)
        if is_nohup:
            assert told.readline() == b"again\n"
            process.send_signal(signal.SIGTERM)
        assert told.read() == b"end\n"
