"""The limits of `fsdm run`: flags, config.toml, and SIGHUP, as a user meets them."""

from __future__ import annotations

import signal
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fsdm import DataManager
from fsdm.cli.settings import estimate, reload
from fsdm.model.layout import Layout
from tests.support.chunks import failure, put_want
from tests.support.processes import fsdm, reconciling
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    import subprocess

    import pytest

    from tests.support.source import Source


def line(process: subprocess.Popen[str], part: str) -> str:
    """The next line on stderr that has this in it."""
    assert process.stderr is not None
    for text in process.stderr:
        if part in text:
            return text
    raise AssertionError(f"it has ended without {part!r}")


def test_the_command_reads_it_at_its_start_and_a_flag_wins(data_dir: Path, source: Source, layout: Layout) -> None:
    Path(layout.config).write_text('max-bytes = "1K"\n')
    chunk = source.chunk(files=1, size=5000)
    put_want(data_dir, chunk)
    done = fsdm("run", "-d", data_dir, "--once")
    assert (done.returncode, "more than the 1000 bytes" in done.stderr) == (4, True)
    assert fsdm("run", "-d", data_dir, "--once", "--max-bytes", "1M").returncode == 0


def test_a_file_that_cannot_be_taken_stops_the_command_with_2(data_dir: Path, layout: Layout) -> None:
    Path(layout.config).write_text("max_bytes = 1\n")
    for more in ([], ["--once"]):
        done = fsdm("run", "-d", data_dir, *more)
        assert done.returncode == 2
        assert f"{layout.config}: the key 'max_bytes' is not known" in done.stderr
        assert "did you mean max-bytes?" in done.stderr


def test_sighup_has_it_read_again_and_what_is_wrong_changes_nothing(
    data_dir: Path, source: Source, layout: Layout
) -> None:
    config = Path(layout.config)
    config.write_text('max-bytes = "1K"\nconnections = 2\n')
    chunk, later = source.chunk(files=1, size=5000), source.chunk(files=1, size=50_000)
    with reconciling(data_dir, "--jobs", "3") as process:
        put_want(data_dir, chunk)
        put_want(data_dir, later)
        eventually(lambda: failure(data_dir, chunk.id) and failure(data_dir, later.id))
        config.write_text('max-bytes = "10K"\njobs = 5\nconnections = 2\n')
        process.send_signal(signal.SIGHUP)
        assert line(process, "config.toml") == (
            f"{config} says max-bytes 10000, connections 2; a flag wins over jobs 5\n"
        )
        eventually(lambda: not (data_dir / "want" / chunk.id).exists())
        config.write_text('max-bytes = "lots"\n')
        process.send_signal(signal.SIGHUP)
        assert "max-bytes: 'lots' is no size; all stays as it was" in line(process, "config.toml")
        assert (failure(data_dir, later.id) or {})["kind"] == "room"
        config.unlink()
        process.send_signal(signal.SIGHUP)
        assert "says nothing" in line(process, "config.toml")
        eventually(lambda: not (data_dir / "want" / later.id).exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_directory_that_may_not_be_looked_into_stops_the_command_with_6(tmp_path: Path) -> None:
    for more in ([], ["--once"], ["--dry-run"]):
        done = fsdm("run", "-d", tmp_path / ("x" * 300), *more)
        assert (done.returncode, "cannot be looked into" in done.stderr) == (6, True), done.stderr


def test_sighup_changes_nothing_where_it_may_not_be_looked_for(
    layout: Layout, data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DataManager(data_dir) as dm:
        monkeypatch.setattr(Layout, "config", f"{data_dir}/{'x' * 300}")
        reload(dm, Namespace())
    assert "cannot be looked into: File name too long; all stays as it was" in caplog.text


def test_an_estimate_says_where_its_rate_is_assumed() -> None:
    assert estimate(10**10, None) == "at least 3 min, at 50.0 MB a second, which is assumed"
    assert estimate(10**10, 1e7) == "at least 17 min, at 10.0 MB a second"
    assert estimate(0, 1e7) == "at least 0 s, at 10.0 MB a second"
