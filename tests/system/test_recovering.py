"""What has failed, or is damaged, comes again by time, when it is asked for, or by hand: as was said."""

from pathlib import Path
from typing import Any

import pytest

from fsdm import ChunkFailedError, DataChunk, DataManager, FetchFailedError, Limits, WaitTimeoutError
from tests.support import fsdm, fsdm_json
from tests.support.chunks import bring, chunk_dir, entries, failure, flip
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually, next_tick


def missing(source: Source) -> tuple[DataChunk, str]:
    """A chunk that its source does not have, and the path of its file."""
    chunk = source.chunk(files=1)
    path = f"/{chunk.id}/blocks.parquet"
    source.fault(path, status=404)
    return chunk, path


def fails(dm: DataManager, chunk: DataChunk) -> None:
    with pytest.raises(FetchFailedError, match="404"):
        dm.acquire(chunk.id, PATIENCE_S)


def is_given_up(data_dir: Path, chunk: DataChunk) -> bool:
    said: dict[str, Any] = failure(data_dir, chunk.id) or {}
    return bool(said.get("given_up"))


def test_failed_chunk_is_told_after_all_have_gone_and_comes_for_the_next_who_asks(
    data_dir: Path, source: Source
) -> None:
    chunk, path = missing(source)
    for _ in range(2):  # a restart takes it over
        with DataManager(data_dir, limits=Limits(recover="acquire")) as dm:
            dm.register(chunk) if not entries(data_dir / "known") else None
            fails(dm, chunk)
            eventually(lambda: not entries(data_dir / "acquire"))
            assert is_given_up(data_dir, chunk)
    del source.faults[path]
    with DataManager(data_dir, limits=Limits(recover="acquire")) as dm:
        dm.acquire(chunk.id, PATIENCE_S).close()
        eventually(lambda: not entries(data_dir / "failed"))
    assert source.asked[path] == 3


def test_failed_chunk_is_refused_at_once_until_it_is_retried(data_dir: Path, source: Source) -> None:
    chunk, path = missing(source)
    with DataManager(data_dir, limits=Limits(recover="never")) as dm:
        dm.register(chunk)
        for _ in range(3):
            fails(dm, chunk)
        assert source.asked[path] == 1
        eventually(lambda: not entries(data_dir / "acquire"))
        (data_dir / "acquire" / chunk.id).touch()
        with pytest.raises(ChunkFailedError, match="404"):
            dm.wait(chunk.id, PATIENCE_S)
        assert source.asked[path] == 1
        del source.faults[path]
        assert fsdm_json("retry", "-d", data_dir) == {"retried": [chunk.id]}
        assert dm.wait(chunk.id, PATIENCE_S)
        dm.acquire(chunk.id, PATIENCE_S).close()
    assert source.asked[path] == 2


def test_chunk_that_is_registered_anew_is_tried_by_its_new_urls(data_dir: Path, source: Source) -> None:
    chunk, _ = missing(source)
    other = DataChunk(
        id=chunk.id, dataset_id=chunk.dataset_id, block_range=chunk.block_range, files=source.chunk(files=1).files
    )
    with DataManager(data_dir, limits=Limits(recover="never")) as dm:
        dm.register(chunk)
        fails(dm, chunk)
        dm.register(other)
        dm.acquire(chunk.id, PATIENCE_S).close()


def test_wanted_chunk_is_given_up_after_so_many_attempts(data_dir: Path, source: Source) -> None:
    chunk, path = missing(source)
    with DataManager(data_dir, limits=Limits(max_attempts=1)) as dm:
        dm.download_chunk(chunk)
        with pytest.raises(ChunkFailedError, match="404"):
            dm.wait(chunk.id, PATIENCE_S)
        assert is_given_up(data_dir, chunk)
        assert source.asked[path] == 1
        fails(dm, chunk)  # who asks for it has it tried
        assert source.asked[path] == 2
        del source.faults[path]
        assert dm.recover(chunk.id)
        assert dm.wait(chunk.id, PATIENCE_S)
        eventually(lambda: not entries(data_dir / "failed"))
    assert source.asked[path] == 3


def test_limits_that_change_take_up_what_was_given_up(data_dir: Path, source: Source) -> None:
    chunk, path = missing(source)
    with DataManager(data_dir, limits=Limits(recover="never")) as dm:
        dm.download_chunk(chunk)
        eventually(lambda: is_given_up(data_dir, chunk))
        del source.faults[path]
        dm.change(Limits())
        assert dm.wait(chunk.id, PATIENCE_S, keep_waiting=True)


@pytest.mark.parametrize("recover", ["acquire", "never"])
@pytest.mark.parametrize("is_registered", [False, True], ids=["wanted", "registered"])
def test_damaged_chunk_comes_when_it_is_asked_for(
    data_dir: Path, source: Source, recover: Any, is_registered: bool
) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir, limits=Limits(recover=recover)) as dm:
        bring(dm, chunk)
        if is_registered:
            next_tick(data_dir)
            dm.register(chunk)
        flip(f"{chunk_dir(data_dir, chunk)}/data/blocks.parquet")
        dm.verify_chunk(chunk.id)
        eventually(lambda: not entries(data_dir / "verify") and is_given_up(data_dir, chunk))
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
        assert is_given_up(data_dir, chunk)
        assert entries(data_dir / "want") == [chunk.id] * (not is_registered)
        assert sum(source.asked.values()) == 1
        if recover == "never":
            with pytest.raises(FetchFailedError, match="READY says"):
                dm.acquire(chunk.id, PATIENCE_S)
            assert dm.recover(chunk.id)
        dm.acquire(chunk.id, PATIENCE_S).close()
        eventually(lambda: not entries(data_dir / "failed"))
    assert sum(source.asked.values()) == 2


@pytest.mark.parametrize("how", ["acquire", "recover"])
def test_nothing_is_asked_before_a_server_that_said_when_also_by_the_next_process(
    data_dir: Path, source: Source, how: str
) -> None:
    chunk, path = missing(source)
    source.fault(path, status=503, headers={"Retry-After": "3000"})
    with DataManager(data_dir) as dm:
        dm.register(chunk)
        with pytest.raises(FetchFailedError, match="503"):
            dm.acquire(chunk.id, PATIENCE_S)
        eventually(lambda: not entries(data_dir / "acquire"))
    with DataManager(data_dir) as dm:
        if how == "recover":
            assert dm.recover(chunk.id)
        with pytest.raises(WaitTimeoutError, match="503"):
            dm.acquire(chunk.id, 0.3)
    assert source.asked[path] == 1


def test_a_run_that_ends_has_converged_where_nobody_asks_for_what_is_given_up(data_dir: Path, source: Source) -> None:
    chunk, _ = missing(source)
    with DataManager(data_dir, limits=Limits(recover="acquire")) as dm:
        dm.register(chunk)
        fails(dm, chunk)
        eventually(lambda: not entries(data_dir / "acquire"))
    assert fsdm("run", "-d", data_dir, "--once", "--recover", "acquire").returncode == 0
    assert is_given_up(data_dir, chunk)
    (data_dir / "acquire" / chunk.id).touch()
    done = fsdm("run", "-d", data_dir, "--once", "--recover", "never")
    assert (done.returncode, "404" in done.stderr) == (4, True)


def test_what_came_of_failed_chunks_goes_by_hand_and_registered_ones_are_forgotten(
    data_dir: Path, source: Source
) -> None:
    wanted, registered = (source.chunk(start=n, end=n + 1, files=2) for n in range(2))
    for chunk in (wanted, registered):
        source.fault(f"/{chunk.id}/logs.parquet", status=404)
    with DataManager(data_dir, limits=Limits(recover="never")) as dm:
        dm.register(registered)
        fails(dm, registered)
        eventually(lambda: not entries(data_dir / "acquire") and not (data_dir / "partial" / registered.id).exists())
        dm.download_chunk(wanted)
        eventually(lambda: is_given_up(data_dir, wanted))
        assert entries(data_dir / "partial") == [wanted.id]
        would = fsdm_json("gc", "-d", data_dir, "--errored", "--dry-run")
        assert {one["id"] for one in would["chunks"]} == {wanted.id, registered.id}
        gone = {one.id: one.outcome for one in dm.gc(errored=True, timeout_s=PATIENCE_S)}
        assert gone == {wanted.id: "evicted", registered.id: "evicted"}
        assert entries(data_dir / "partial") == []
        assert entries(data_dir / "failed") == [wanted.id], "its want stands, and fails"
        source.faults.clear()
        dm.acquire(registered.id, PATIENCE_S).close()
    assert fsdm("gc", "-d", data_dir, "--errored", "--to", "1G").returncode == 2
