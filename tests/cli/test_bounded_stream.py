"""A stream that nobody waits for: what is not read is dropped and counted, and said once somebody reads again."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import fsdm.cli.bounded_stream
from fsdm.cli.bounded_stream import BoundedStream
from tests.support import PATIENCE_S, eventually


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page, which nobody reads yet."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(fd: int, until: bytes) -> bytes:
    found = b""
    while until not in found:
        found += os.read(fd, 65536)
    return found


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_that_nobody_reads_are_counted_and_said_later(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    monkeypatch.setattr(fsdm.cli.bounded_stream, "MAX_CHARS", 10_000)
    os.set_blocking(pipe[1], blocking)
    stream = BoundedStream(pipe[1], "utf-8", "({} dropped)\n".format)
    for number in range(1000):  # far more than the pipe and the bound take; no write waits
        stream.write(f"{number:>99}\n")
    found = read(pipe[0], b" dropped)\n")
    while stream._pieces:
        found += os.read(pipe[0], 65536)
    stream.write("the last\n")
    found += read(pipe[0], b"the last\n")
    lines = [line.strip() for line in found.decode().splitlines()]
    dropped = [int(line[1:].partition(" ")[0]) for line in lines if line.endswith(" dropped)")]
    there = [int(line) for line in lines if line.isdigit()]
    assert there == sorted(set(there))
    assert dropped
    assert sum(dropped) == 1000 - len(there)
    stream.end()
    assert not stream._thread.is_alive()


def test_refusal_is_told_once_and_its_lines_are_counted(pipe: tuple[int, int]) -> None:
    full, told = os.open("/dev/full", os.O_WRONLY), threading.Event()
    stream = BoundedStream(full, "utf-8", "({} dropped)\n".format, lambda _: told.set())
    for text in ("one\n", "two\n"):
        stream.write(text)
        assert told.wait(PATIENCE_S)
        eventually(lambda: not stream._pieces)
    eventually(lambda: stream._dropped == 2)
    os.dup2(pipe[1], full)
    stream.write("three\n")
    assert read(pipe[0], b"three\n") == b"(2 dropped)\nthree\n"
    stream.end()
    os.close(full)


def test_exit_waits_for_what_is_read_slowly_and_not_for_what_is_not(pipe: tuple[int, int]) -> None:
    script = (
        "import sys; from fsdm.cli.bounded_stream import bound; bound('stdout', str)\n"
        "for number in range(100): print(f'{number:>999}')"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=pipe[1]) as process:
        assert process.wait(PATIENCE_S) == 0  # nobody has read a byte
    while os.read(pipe[0], 65536)[-1:] != b"\n":
        pass
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        assert [int(line) for line in process.stdout] == list(range(100))
