"""config.toml: what it says, what it must not be, and what a running reconciler makes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fsdm import DataManager, Limits
from fsdm.cli.config import CONFIG_MAX_BYTES, KEYS, in_words, parse_config, read_config
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.layout import Layout
from tests.support.chunks import failure
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from tests.support.source import Source


def test_each_key_says_one_limit_in_the_words_of_the_flags() -> None:
    text = b"""
    jobs = 3
    connections = 4
    connections-per-host = 5
    connections-per-file = 6
    rate = "50M"
    max-bytes = "1.5Ti"
    keep-free = 0
    brake = "10%"
    scrub-days = 30
    """
    limits = parse_config(text)
    assert Limits(**limits) == Limits(
        jobs=3,
        connections=4,
        per_host=5,
        per_file=6,
        bytes_per_s=50_000_000,
        max_bytes=3 << 39,
        brake_share=0.1,
        scrub_days=30,
    )
    assert len(limits) == len(KEYS)
    assert parse_config(b"") == {}
    assert parse_config(b'brake = "off"') == {"brake_share": None}
    assert parse_config(b"brake = 1\nrate = 10") == {"brake_share": 1.0, "bytes_per_s": 10}
    assert in_words(parse_config(b'max-bytes = "1K"\nbrake = "off"')) == "max-bytes 1000, brake off"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"jobs = 0", "jobs: must be at least 1, it is 0"),
        (b"jobs = -1", "jobs: must be at least 1"),
        (b"jobs = true", "jobs: must be a whole number, not True"),
        (b'jobs = "8"', "jobs: must be a whole number, not '8'"),
        (b"jobs = 1.5", "jobs: must be a whole number"),
        (b"[jobs]\nx = 1", "jobs: must be a whole number"),
        (b"rate = 0", "rate: must be above 0"),
        (b'rate = "fast"', "rate: 'fast' is no size"),
        (b"keep-free = -1", "keep-free: must not be below 0"),
        (b'max-bytes = "1 G"', "max-bytes: '1 G' is no size"),
        (b"brake = 2", "brake: must be from 0 to 1"),
        (b"brake = false", "brake: must be a number"),
        (b"brake = nan", "brake: must be from 0 to 1"),
        (b"brake = [1]", "brake: must be a number"),
        (b"scrub-days = 0", "scrub-days: must be above 0"),
        (b'scrub-days = "30"', "scrub-days: must be a number of days"),
        (b"jobs", "is no TOML"),
        (b"jobs = 1\njobs = 2", "is no TOML"),
        (b"\xff", "is no TOML"),
    ],
)
def test_what_cannot_be_taken_is_named(text: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError) as e:
        parse_config(text)
    assert str(e.value).startswith(said)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("max_bytes", "did you mean max-bytes?"), ("job", "did you mean jobs?"), ("zzz", "there are jobs, ")],
)
def test_a_key_that_is_not_known_is_named_with_the_one_that_may_be_meant(key: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the key '{key}' is not known") as e:
        parse_config(f"{key} = 1".encode())
    assert e.value.hint.startswith(hint)


def test_a_file_is_read_only_where_nobody_else_may_write_it(layout: Layout) -> None:
    assert read_config(layout) == {}
    path = Path(layout.config)
    path.write_text("jobs = 2")
    for mode, is_read in ((0o600, True), (0o644, True), (0o664, False), (0o646, False)):
        path.chmod(mode)
        if is_read:
            assert read_config(layout) == {"jobs": 2}
            continue
        with pytest.raises(InvalidInputError, match="may be written by others") as e:
            read_config(layout)
        assert f"chmod go-w {path}" in e.value.hint


def test_a_file_of_another_user_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(layout.config).write_text("jobs = 2")
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if os.lstat(layout.config).st_uid == 0:
        os.chown(layout.config, user + 1, -1)
    with pytest.raises(InvalidInputError, match="may be written by others"):
        read_config(layout)


def test_what_is_no_file_or_too_long_is_refused(layout: Layout, tmp_path: Path) -> None:
    path = Path(layout.config)
    (tmp_path / "other").write_text("jobs = 2")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(InvalidInputError, match=r"config\.toml is not a file"):
        read_config(layout)
    path.unlink()
    path.write_bytes(b"#" * (CONFIG_MAX_BYTES + 1))
    with pytest.raises(InvalidInputError, match="has more than"):
        read_config(layout)


def test_where_it_may_not_even_be_looked_for_the_directory_is_named(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 300)
    with pytest.raises(DataDirectoryError, match="x cannot be looked into: File name too long"):
        read_config(Layout(root))


# ------------------------------------------------------------------------------------------------------ a running one


def gated(source: Source, count: int) -> tuple[list[Any], list[Any]]:
    """Chunks whose downloads stall until they are let go on."""
    chunks = [source.chunk(files=1) for _ in range(count)]
    return chunks, [source.fault(f"/{chunk.id}/blocks.parquet", stall_at=500) for chunk in chunks]


def test_jobs_grow_and_shrink_and_what_runs_is_not_cut(data_dir: Path, source: Source) -> None:
    chunks, faults = gated(source, 6)

    def stalled() -> int:
        return sum(fault.stalled.is_set() for fault in faults)

    with DataManager(data_dir, limits=Limits(jobs=1)) as dm:
        for chunk in chunks:
            dm.download_chunk(chunk)
        eventually(lambda: stalled() == 1)
        dm.change(Limits(jobs=4))
        eventually(lambda: stalled() == 4)
        dm.change(Limits(jobs=1))
        eventually(lambda: dm.reconciler and dm.reconciler.loop.limits.jobs == 1)
        running = [fault for fault in faults if fault.stalled.is_set()]
        for fault in running[:3]:
            fault.gate.set()
        eventually(lambda: len(dm.list_chunks()) == 3)
        assert stalled() == 4  # one still runs, and it is the only one that may
        for fault in faults:
            fault.gate.set()
        dm.wait_converged(PATIENCE_S)
    assert max(source.asked.values()) == 1


def test_a_rate_holds_at_once_also_for_what_waits_to_be_paid(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1, size=200_000)
    with DataManager(data_dir, limits=Limits(bytes_per_s=1)) as dm:
        dm.download_chunk(chunk)
        partial = data_dir / "partial" / chunk.id / "data" / "blocks.parquet"
        eventually(lambda: partial.exists() and partial.stat().st_size > 0)
        dm.change(Limits())
        assert dm.wait(chunk.id, PATIENCE_S)  # at one byte a second it would be days


def test_a_budget_that_is_raised_or_lifted_lets_in_what_waits(data_dir: Path, source: Source) -> None:
    small, large = source.chunk(files=1, size=10_000), source.chunk(files=1, size=100_000)
    with DataManager(data_dir, limits=Limits(max_bytes=1000)) as dm:
        for chunk in (small, large):
            dm.download_chunk(chunk)
        eventually(lambda: failure(data_dir, small.id) and failure(data_dir, large.id))
        dm.change(Limits(max_bytes=50_000))
        assert dm.wait(small.id, PATIENCE_S)
        assert (failure(data_dir, large.id) or {})["kind"] == "room"
        dm.change(Limits())
        assert dm.wait(large.id, PATIENCE_S)
        assert failure(data_dir, large.id) is None


def test_a_budget_that_comes_later_counts_what_is_here_and_what_runs(data_dir: Path, source: Source) -> None:
    here, runs, more = (source.chunk(files=1, size=10_000) for _ in range(3))
    fault = source.fault(f"/{runs.id}/blocks.parquet", stall_at=500)
    with DataManager(data_dir) as dm:
        dm.download_chunk(here)
        assert dm.wait(here.id, PATIENCE_S)
        dm.download_chunk(runs)
        assert fault.stalled.wait(PATIENCE_S)
        dm.change(Limits(max_bytes=29_999))
        eventually(lambda: dm.reconciler and dm.reconciler.loop.limits.max_bytes)
        dm.download_chunk(more)
        said = eventually(lambda: failure(data_dir, more.id))
        assert "20000 bytes of 29999 bytes are taken" in said["error"]
        fault.gate.set()
        assert dm.wait(runs.id, PATIENCE_S)


def test_what_cannot_be_changed_at_run_time_is_said_and_stays(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with DataManager(data_dir) as dm:
        dm.change(Limits(jobs=2, connections=3, durability="none"))
        eventually(lambda: dm.reconciler and dm.reconciler.loop.limits.jobs == 2)
        assert dm.reconciler
        assert dm.reconciler.loop.limits == Limits(jobs=2)
    assert "not before the next start: connections, durability" in caplog.text


@pytest.mark.parametrize("limits", [5, None, {"jobs": 2}])
def test_what_are_no_limits_is_refused_and_those_that_were_stay(dm: DataManager, limits: Limits) -> None:
    with pytest.raises(InvalidInputError, match=r"^limits: must be Limits, not "):
        dm.change(limits)
    assert dm.reconciler is not None
    assert dm.reconciler.loop.limits == Limits()
