"""A reconciler whose observers fail goes on; one that has ended lets go of LOCK, and says so by its exit code."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import FSDM, PATIENCE_S, Source, begun, eventually, fsdm, fsdm_json, owner, reconciling, running
from tests.support.chunks import a_want, chunk_dir, put_want

# the first id that is decided on ends the thread that decides
WITH_A_DEFECT = """
import sys
from fsdm.cli.main import main
from fsdm.reconcile.loop import Loop
def ends(self, chunk_id):
    raise SystemExit("a defect")
Loop._decide = ends
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def stream_of(kind: str) -> Iterator[int]:
    """A stream that takes nothing: on a full disk, without a reader, or full, with a reader that does not read."""
    if kind == "full disk":
        fd = os.open("/dev/full", os.O_WRONLY)
        yield fd
        os.close(fd)
        return
    reader, writer = os.pipe()
    if kind == "no reader":
        os.close(reader)
    else:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writer, False)
        os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    if kind != "no reader":
        os.close(reader)


@pytest.mark.parametrize("kind", ["full disk", "no reader", "full pipe"])
@pytest.mark.parametrize("form", ["--log-format=text", "--json"])
def test_reconciler_goes_on_and_ends_in_order_whatever_becomes_of_its_streams(
    data_dir: Path, source: Source, kind: str, form: str
) -> None:
    good, bad = source.chunk(), a_want(files={"a": f"{source.url}/missing"})
    with stream_of(kind) as stream:
        command = [*FSDM, "run", "-d", str(data_dir), form]
        with begun(command, stdout=stream, stderr=stream) as process:
            eventually(lambda: owner(data_dir) == process.pid)
            for chunk in (bad, good):
                put_want(data_dir, chunk)
            assert fsdm("wait", "-d", data_dir, good.id, "--timeout", PATIENCE_S).returncode == 0
            eventually((data_dir / "failed" / bad.id).exists)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0


def test_error_is_the_exit_code_where_stderr_takes_nothing(data_dir: Path) -> None:
    with running("run", "-d", data_dir), stream_of("full pipe") as stream:
        eventually(lambda: owner(data_dir))
        done = subprocess.run([*FSDM, "run", "-d", data_dir], stderr=stream, timeout=PATIENCE_S, check=False)
    assert done.returncode == 5


def test_loop_that_has_ended_ends_the_process_and_a_standby_takes_over(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    command = [sys.executable, "-c", WITH_A_DEFECT, "run", "-d", str(data_dir)]
    with begun(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: owner(data_dir) == process.pid)
        with running("run", "-d", data_dir, "--wait") as standby:
            put_want(data_dir, chunk)
            _, told = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 9, told
            assert "fsdm: the reconciler has ended: SystemExit('a defect')" in told
            assert fsdm("wait", "-d", data_dir, chunk.id, "--timeout", PATIENCE_S).returncode == 0
            assert owner(data_dir) == standby.pid
    assert chunk_dir(data_dir, chunk).exists()
    assert fsdm_json("status", "-d", data_dir)["reconciler"] is None


def test_stopped_reconciler_is_told_by_status_and_explain(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with reconciling(data_dir) as process:
        eventually(lambda: "beats_s" in (data_dir / "LOCK").read_text())
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: fsdm_json("status", "-d", data_dir)["reconciler_trouble"])
        put_want(data_dir, chunk)
        said = f"the reconciler, pid {process.pid} on {socket.gethostname()}, is stopped by a signal ("
        assert said in fsdm("status", "-d", data_dir).stderr
        told = fsdm("explain", "-d", data_dir, chunk.id).stdout
        assert said in told
        assert f"kill -CONT {process.pid}" in told
        process.send_signal(signal.SIGCONT)
        assert fsdm("wait", "-d", data_dir, chunk.id, "--timeout", PATIENCE_S).returncode == 0
        assert fsdm_json("status", "-d", data_dir)["reconciler_trouble"] is None
