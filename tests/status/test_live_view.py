"""The live view on a real terminal: a pty, and the real commands."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import pyte
import pytest

from fsdm import DataChunk
from fsdm.model.layout import Layout
from tests.support import FSDM, PATIENCE_S, Fault, Source, eventually, fsdm, owner, running, shell_holding
from tests.support.chunks import a_want, put_chunk, put_want, touch_delete


class Terminal:
    """A process on a terminal that is read, or (`deaf`) is not."""

    def __init__(
        self, *command: object, columns: int = 100, rows: int = 24, deaf: bool = False, shell: str = "", **environ: str
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        ours = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(
            ["bash", "-mc", shell, "sh", *FSDM, *map(str, command)] if shell else [*FSDM, *map(str, command)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=ours | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | environ,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if shell else None,  # noqa: PLW1509
        )
        os.close(slave)
        self.raw = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._mutex = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if not deaf:
            self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the other end has gone
            while data := os.read(self._master, 65536):
                with self._mutex:
                    self.raw += data
                    self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen."""
        with self._mutex:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def shows(self, *words: str) -> None:
        """Wait until the screen shows all of these."""
        try:
            eventually(lambda: all(word in self.text for word in words))
        except AssertionError:
            pytest.fail(f"{[word for word in words if word not in self.text]} are not on the screen:\n{self.text}")

    def types(self, text: str) -> None:
        """What somebody types there."""
        os.write(self._master, text.encode())

    def ends(self, number: int = signal.SIGINT) -> int:
        """Send a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._reader.is_alive():
            self._reader.join(PATIENCE_S)
        os.close(self._master)


def terminal(*command: object, **how: object) -> closing[Terminal]:
    return closing(Terminal(*command, **how))  # type: ignore[arg-type]


def stalled(source: Source, **where: int) -> tuple[DataChunk, Fault]:
    """A chunk of 3 MB, of which the first half comes until the gate of its fault is opened."""
    chunk = source.chunk(files=1, size=3_000_000, **where)
    return chunk, source.fault(f"/{chunk.id}/blocks.parquet", stall_at=1_500_000)


def watching(data_dir: Path, *arguments: object) -> AbstractContextManager[subprocess.Popen[str]]:
    """`fsdm status --watch`, not on a terminal."""
    return running("status", "-d", data_dir, "--watch", "--interval", "0.02", *arguments)


def test_ls_and_status_are_tables_on_a_screen(layout: Layout, data_dir: Path) -> None:
    place, wanted = put_chunk(layout, files={"a": bytes(1_500_000)}), put_want(data_dir, a_want(dataset_id="e" * 64))
    (data_dir / "datasets.toml").write_text(f'ethereum = "{"e" * 64}"\n')
    with terminal("ls", "-d", data_dir) as screen:
        screen.shows("DATASET       BLOCKS   SIZE    ID", f"{'d' * 12}  [0, 10)  1.5 MB  {place.chunk_id[:12]}")
        assert place.chunk_id not in screen.text
    with terminal("ls", "-d", data_dir, "--long", columns=200) as screen:
        screen.shows(f"{'d' * 64}  [0, 10)  1500000  {place.chunk_id}")
    with terminal("status", "-d", data_dir) as screen:
        screen.shows("ID            STATE      DATASET       BLOCKS   SIZE     WHY")
        screen.shows(f"{place.chunk_id[:12]}  available  {'d' * 12}  [0, 10)  1.5 MB")
        screen.shows(f"{wanted.id[:12]}  wanted     ethereum      [0, 10)  0 bytes")
    with terminal("ls", "-d", data_dir, "--datasets") as screen:
        screen.shows("CHUNKS  NAME", f"{'d' * 64}  1", f"{'e' * 64}  0       ethereum")


def test_wait_shows_the_progress_and_ends_with_it(layout: Layout, data_dir: Path, source: Source) -> None:
    chunk, fault = stalled(source)
    put_want(data_dir, chunk)
    with terminal("wait", "-d", data_dir, chunk.id) as screen:
        screen.shows("NO PROCESS RECONCILES", "1 wanted")
        with running("run", "-d", data_dir):
            screen.shows("50%  1.5 MB of 3.0 MB")
            fault.gate.set()
            assert screen.process.wait(PATIENCE_S) == 0
            screen.shows("1 here", f"{chunk.id}        available")


def test_a_wait_that_is_soon_over_draws_nothing(layout: Layout, data_dir: Path) -> None:
    with terminal("wait", "-d", data_dir) as screen:
        assert screen.process.wait(PATIENCE_S) == 0
        assert screen.raw == b""


def test_run_shows_a_bar_for_what_comes_and_events_above_it(layout: Layout, data_dir: Path, source: Source) -> None:
    chunk, fault = stalled(source)
    missing = a_want(files={"a": f"{source.url}/missing"})
    with terminal("run", "-d", data_dir, "--max-bytes", "10M") as screen:
        screen.shows("converged", "0 bytes of 10.0 MB taken")
        for one in (chunk, missing):
            put_want(data_dir, one)
        screen.shows(
            f"📡 {chunk.id[:12]} download starts",
            f"{chunk.id[:12]} ━━━",
            "50%  1.5 MB of 3.0 MB",
            "1 downloading · 1 failed",
            f"failed   {missing.id[:12]} next ",
            f"/{'missing'}: HTTP 404",
            f"reconciler pid {screen.process.pid}",
        )
        fault.gate.set()
        screen.shows("1 here, 3.0 MB", f"✅ {chunk.id[:12]} available")
        assert screen.ends(signal.SIGTERM) == 0
        assert screen.raw.endswith(b"\x1b[?25h") or b"\x1b[?25h" in screen.raw, "the cursor is shown again"
    rows = screen.lines
    above = max(number for number, line in enumerate(rows) if "📡" in line or "✅" in line)
    assert above < next(number for number, line in enumerate(rows) if "here, " in line)


def test_run_once_shows_its_troubles_and_ends(layout: Layout, data_dir: Path, source: Source) -> None:
    missing = a_want(files={"a": f"{source.url}/missing"})
    with terminal("run", "-d", data_dir, "--once") as screen:
        screen.process.wait(PATIENCE_S)
    assert screen.process.returncode == 0
    put_want(data_dir, missing)
    with terminal("run", "-d", data_dir, "--once") as screen:
        assert screen.process.wait(PATIENCE_S) == 4
        screen.shows("1 failed", f"warning {missing.id[:12]}")
    assert b"NO PROCESS" not in screen.raw, "also in the last view, when it has let go of LOCK"


def test_another_process_that_reconciles_is_told_below_the_view(data_dir: Path) -> None:
    with running("run", "-d", data_dir) as first:
        eventually(lambda: owner(data_dir) == first.pid)
        with terminal("run", "-d", data_dir, columns=200) as screen:
            assert screen.process.wait(PATIENCE_S) == 5
            screen.shows("is reconciled by another process")


def test_watch_shows_the_same_from_outside_and_ends_with_0(layout: Layout, data_dir: Path, source: Source) -> None:
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    chunk, _ = stalled(source, start=50, end=60)
    put_want(data_dir, chunk)
    with (
        shell_holding(layout.path(place)) as shell,  # type: ignore[arg-type]
        terminal("status", "-d", data_dir, "--watch", "--interval", "0.05") as screen,
    ):
        screen.shows("NO PROCESS RECONCILES", "1 wanted")
        with running("run", "-d", data_dir) as reconciler:
            screen.shows(
                f"reconciler pid {reconciler.pid}",
                f"{chunk.id[:12]} ━━━",
                f"retiring {place.chunk_id[:12]} 100 bytes, deleted ",
                f"held by pid {shell.pid} flock -s",
            )
        screen.shows("NO PROCESS RECONCILES")
        assert screen.ends(signal.SIGINT) == 0


def test_narrow_terminal_without_colour_and_utf_8_is_respected(layout: Layout, data_dir: Path, source: Source) -> None:
    chunk, _ = stalled(source)
    with terminal("run", "-d", data_dir, columns=40, rows=12, NO_COLOR="1", LC_ALL="C") as screen:
        put_want(data_dir, chunk)
        screen.shows(f"{chunk.id[:8]} #############............", " 50%")
        assert screen.raw.isascii()
        assert b"\x1b[32m" not in screen.raw
        assert b";32m" not in screen.raw
        assert screen.ends() == 0


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_draw_gets_lines(layout: Layout, data_dir: Path, source: Source, term: str) -> None:
    chunk = source.chunk()
    with terminal("run", "-d", data_dir, TERM=term) as screen:
        put_want(data_dir, chunk)
        screen.shows(f"✅ {chunk.id[:12]} available")
        assert b"\x1b" not in screen.raw
        assert screen.ends() == 0
    with terminal("status", "-d", data_dir, "--watch", "--interval", "0.05", TERM=term) as screen:
        screen.shows("1 here, 2000 bytes; converged; ")
        assert b"\x1b" not in screen.raw
        assert screen.ends(signal.SIGTERM) == 0


def test_in_the_background_lines_are_written_and_nothing_drawn(layout: Layout, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with terminal("run", "-d", data_dir, shell='"$@" & wait; kill %1') as screen:
        put_want(data_dir, chunk)
        screen.shows(f"✅ {chunk.id[:12]} available")
        assert b"\x1b" not in screen.raw
        os.kill(owner(data_dir) or 0, signal.SIGTERM)
        screen.process.wait(PATIENCE_S)


def test_view_in_the_background_draws_only_when_back(layout: Layout, data_dir: Path, source: Source) -> None:
    first, second = source.chunk(), source.chunk(start=20, end=30)
    with terminal("run", "-d", data_dir, shell='"$@"; bg; read line; fg') as screen:
        screen.shows("converged")
        pid = eventually(lambda: owner(data_dir))
        os.kill(pid, signal.SIGSTOP)
        screen.shows("Stopped")
        put_want(data_dir, first)
        eventually(lambda: not os.listdir(data_dir / "want"), "it goes on in the background")
        drawn = len(screen.raw)
        put_want(data_dir, second)
        eventually(lambda: not os.listdir(data_dir / "want"))
        assert len(screen.raw) == drawn
        screen.types("\n")
        screen.shows(f"✅ {first.id[:12]} available", f"✅ {second.id[:12]} available", "2 here")
        os.kill(pid, signal.SIGTERM)
        screen.process.wait(PATIENCE_S)


def test_text_and_json_are_taken_on_a_terminal_too(layout: Layout, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with terminal("run", "-d", data_dir, "--log-format", "json", columns=400) as screen:
        put_want(data_dir, chunk)
        screen.shows('"event": "available"')
        assert b"\x1b" not in screen.raw
        assert screen.ends() == 0


def test_a_terminal_that_takes_nothing_holds_up_no_reconciler(layout: Layout, data_dir: Path, source: Source) -> None:
    """Somebody has pressed Ctrl-S, or has gone: the kernel's buffer is full, and whoever writes waits for ever."""
    with terminal("run", "-d", data_dir, deaf=True) as screen:
        for number in range(60):
            put_want(data_dir, source.chunk(start=number, end=number + 1))
            eventually(lambda: not os.listdir(data_dir / "want"), "all are available, though nobody reads")
        assert select.select([screen._master], [], [], 0)[0], "there is something that nobody has read"
        chunk = put_want(data_dir, source.chunk(start=900, end=901))
        eventually(lambda: not (data_dir / "want" / chunk.id).exists())
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(("arguments", "number"), [([], signal.SIGTERM), (["--json"], signal.SIGINT)])
def test_watch_prints_a_line_or_document_each_time(
    layout: Layout, data_dir: Path, arguments: list[str], number: int
) -> None:
    put_chunk(layout)
    with watching(data_dir, *arguments) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    if arguments:
        assert [json.loads(line)["here"] for line in printed] == [1, 1, 1]
    else:
        assert all("1 here, 100 bytes; converged; " in line for line in printed)


def test_watch_ends_quietly_where_nobody_reads_any_more(data_dir: Path, layout: Layout) -> None:
    with watching(data_dir) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == ""
        process.stdout = open(os.devnull)  # noqa: SIM115  for `communicate` at the end


def test_watch_ends_with_6_where_the_directory_goes(data_dir: Path, layout: Layout) -> None:
    with watching(data_dir) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.rename(data_dir, f"{data_dir}.gone")
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 6
        assert "is not a data directory: it does not exist" in err


def test_unreadable_directory_is_told_once_by_view_and_ends_lines(layout: Layout, data_dir: Path) -> None:
    with terminal("status", "-d", data_dir, "--watch", "--interval", "0.05", columns=200) as screen:
        screen.shows("converged")
        os.rename(data_dir / "chunks", data_dir / "aside")
        (data_dir / "chunks").touch()
        screen.shows("cannot be looked at: [Errno 20] Not a directory")
        eventually(lambda: screen.raw.count(b"0 here") > 20)
        assert screen.text.count("cannot be looked at") == 1
        assert screen.ends() == 0
    done = fsdm("status", "-d", data_dir, "--watch")
    assert done.returncode == 6
    assert "cannot be looked at" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--interval", "1"], ["--watch", "a" * 64], ["--watch", "--interval", "0"], ["--watch", "--interval", "nan"]],
    ids=str,
)
def test_watch_takes_no_nonsense(layout: Layout, data_dir: Path, arguments: list[str]) -> None:
    done = fsdm("status", "-d", data_dir, *arguments)
    assert done.returncode == 2
    assert done.stderr
