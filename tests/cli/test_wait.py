"""`fsdm wait`, from outside: what it says while it waits, and how it ends."""

import json
from pathlib import Path

from fsdm import DataManager
from fsdm.model.layout import Layout
from tests.support import PATIENCE_S, Source, eventually, fsdm, running
from tests.support.chunks import a_want, failure, put_want


def test_a_mistake_is_told_at_once_with_the_way_to_learn_more(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = put_want(data_dir, a_want(files={"a.parquet": f"{source.url}/typo.parquet"}))
    for ids in ([], [chunk.id]):
        done = fsdm("wait", "-d", data_dir, *ids, "--timeout", PATIENCE_S)
        assert (done.returncode, done.stdout) == (4, "")
        assert f"1 intent cannot be carried out: {chunk.id[:12]} ({source.url}/typo.parquet: HTTP 404" in done.stderr
        assert f"fsdm explain -d {data_dir} {chunk.id}" in done.stderr
        assert "--keep-waiting" in done.stderr
    error = json.loads(fsdm("wait", "-d", data_dir, "--json").stderr)["error"]
    assert error["type"] == "ChunkFailedError"
    assert [(one["id"], one["kind"]) for one in error["failures"]] == [(chunk.id, "transfer")]


def test_what_fails_is_told_while_others_still_come(dm: DataManager, data_dir: Path, source: Source) -> None:
    bad, slow = a_want(files={"a.parquet": f"{source.url}/typo.parquet"}), source.chunk(files=1)
    stall = source.fault(f"/{slow.id}/blocks.parquet", stall_at=5)
    for chunk in (bad, slow):
        put_want(data_dir, chunk)
    with running("wait", "-d", data_dir) as waiting:
        assert waiting.stderr is not None
        told = waiting.stderr.readline()
        assert told.startswith(f"fsdm: {bad.id[:12]} fails: {source.url}/typo.parquet: HTTP 404")
        assert told.endswith(f"it will not pass by itself: fsdm explain -d {data_dir} {bad.id}\n")
        assert waiting.poll() is None
        stall.gate.set()
        assert waiting.wait(PATIENCE_S) == 4
        assert waiting.stderr.read().startswith("fsdm: 1 intent cannot be carried out")


def test_a_directory_that_nobody_reconciles_is_told_and_waited_for(
    layout: Layout, data_dir: Path, source: Source
) -> None:
    chunk = put_want(data_dir, source.chunk())
    with running("wait", "-d", data_dir) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith(f"fsdm: no process is reconciling {data_dir}")
        with DataManager(data_dir):
            assert waiting.wait(PATIENCE_S) == 0
    assert fsdm("wait", "-d", data_dir, chunk.id).stdout == f"{chunk.id}\tavailable\n"


def test_who_means_to_mend_it_keeps_waiting(dm: DataManager, data_dir: Path, source: Source) -> None:
    chunk = put_want(data_dir, a_want(files={"a.parquet": f"{source.url}/typo.parquet"}))
    eventually(lambda: failure(data_dir, chunk.id))
    with running("wait", "-d", data_dir, "--keep-waiting", chunk.id) as waiting:
        assert waiting.stderr is not None
        assert "HTTP 404" in waiting.stderr.readline()
        dm.download_chunk(a_want(id=chunk.id, files={"a.parquet": source.put("/a", b"a")}))
        assert waiting.wait(PATIENCE_S) == 0
        assert waiting.stdout is not None
        assert waiting.stdout.read() == f"{chunk.id}\tavailable\n"
