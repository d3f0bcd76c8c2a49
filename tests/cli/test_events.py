"""`fsdm run --trace` and `fsdm events`, from outside."""

import json
import re
import signal
from pathlib import Path

from fsdm.store.trace_file import MIN_BYTES, TraceFile
from tests.support import PATIENCE_S, Source, eventually, fsdm, reconciling, running
from tests.support.chunks import put_want, touch_delete


def test_what_happened_is_shown_by_chunk_and_by_event_over_a_kill(data_dir: Path, source: Source) -> None:
    first, second = source.chunk(files=1), source.chunk(files=1, start=10, end=20)
    with reconciling(data_dir, "--trace") as process:
        for chunk in (first, second):
            put_want(data_dir, chunk)
            assert fsdm("wait", "-d", data_dir, chunk.id).returncode == 0
        eventually(lambda: fsdm("events", data_dir, "--event", "available").stdout.count("\n") == 2)
        process.kill()
        process.wait(PATIENCE_S)
    with reconciling(data_dir, "--trace") as process:
        touch_delete(data_dir, first.id)
        assert fsdm("wait", "-d", data_dir).returncode == 0
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    done = fsdm("events", "-d", data_dir, "--chunk", first.id[:12])
    assert re.sub(r"(?m)^[-\d]+ [:\d]+ +\d+ ", "", done.stdout) == (
        f"📡 {first.id[:12]} download starts: 1 file\n"
        f"💾 {first.id[:12]} file done: blocks.parquet, 1000 bytes\n"
        f"✅ {first.id[:12]} available: 1 file, 1000 bytes\n"
        f"❌ {first.id[:12]} deleted\n"
    )
    found = fsdm("events", data_dir / "trace.jsonl", "--json", "-n", 4).stdout.splitlines()
    documents = [json.loads(line) for line in found]
    assert [one["event"] for one in documents] == ["available", "began", "deleted", "ended"]
    assert [one["seq"] for one in documents] == list(range(documents[0]["seq"], documents[0]["seq"] + 4))


def test_a_reader_that_follows_sees_what_comes_and_ends_when_it_is_told(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with reconciling(data_dir, "--trace"):
        put_want(data_dir, chunk)
        assert fsdm("wait", "-d", data_dir, chunk.id).returncode == 0
        eventually(lambda: "available" in fsdm("events", data_dir).stdout)
        with running("events", "-d", data_dir, "--follow", "-n", 1, "--event", "available", "--event", "deleted") as it:
            assert it.stdout is not None
            assert "available" in it.stdout.readline()
            touch_delete(data_dir, chunk.id)
            assert "deleted" in it.stdout.readline()
            it.send_signal(signal.SIGINT)
            assert it.wait(PATIENCE_S) == 0


def test_a_reader_that_is_stopped_holds_no_reconciler_up(data_dir: Path, source: Source) -> None:
    first, second = source.chunk(), source.chunk(start=10, end=20)
    with reconciling(data_dir, "--trace") as process:
        put_want(data_dir, first)
        eventually((data_dir / "trace.jsonl").exists)
        with running("events", data_dir, "--follow") as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline()
            reader.send_signal(signal.SIGSTOP)
            put_want(data_dir, second)
            assert fsdm("wait", "-d", data_dir, second.id).returncode == 0
            process.terminate()
            assert process.wait(PATIENCE_S) == 0


def test_once_writes_a_trace_too_where_it_is_named(data_dir: Path, source: Source, tmp_path: Path) -> None:
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    put_want(data_dir, source.chunk())
    trace = tmp_path / "of this run.jsonl"
    assert fsdm("run", "-d", data_dir, "--once", "--trace", trace, "--trace-bytes", "1M").returncode == 0
    said = [json.loads(line)["event"] for line in fsdm("events", trace, "--json").stdout.splitlines()]
    assert [said[0], *said[-2:]] == ["began", "available", "ended"]
    assert not (data_dir / "trace.jsonl").exists()


def test_mistakes_are_told_with_a_way_out(data_dir: Path, tmp_path: Path) -> None:
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    for arguments, said in (
        (("events", "-d", data_dir), "`fsdm run --trace` writes one"),
        (("events",), "pass -d DIR"),
        (("events", data_dir, "--event", "avalable"), "invalid choice: 'avalable'"),
        (("events", data_dir, "--chunk", "xyz"), "4 to 64 lower-case hex digits"),
        (("run", "-d", data_dir, "--trace", tmp_path / "missing" / "trace"), "its directory must be there"),
        (("run", "-d", data_dir, "--trace", "--trace-bytes", "3"), "at least 100000 bytes"),
    ):
        done = fsdm(*arguments, FSDM_DATA_DIR="")
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_lines_of_later_versions_and_strange_ones_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    file = TraceFile(path, MIN_BYTES)
    file.open()
    file.append('{"seq": 1, "time": "then", "event": "new\\u001b[2J", "chunk_id": 7, "text": ["x"]}\nno line\n[]\n')
    file.append('{"seq": 2, "time": "2026-01-01T00:00:00.000Z"}\n')
    file.close()
    shown = fsdm("events", path).stdout.splitlines()
    assert shown[0].split() == ["-", "1", "·", "7", "new\\x1b[2J:", "['x']"]
    assert shown[1].split()[2:] == ["2", "·", "None"]
    assert [one["seq"] for one in map(json.loads, fsdm("events", path, "--json").stdout.splitlines())] == [1, 2]
