"""Why not? From real files and processes, by the verb."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fsdm.manager import DataManager
from fsdm.model.errors import ChunkFailedError
from fsdm.model.layout import Layout
from fsdm.model.limits import Limits
from fsdm.status.explain import explain_chunks
from fsdm.status.explain_text import Explanation
from fsdm.store.leader_lock import ReconcilerLock
from tests.support import FSDM, Source, eventually, fsdm, fsdm_json, ran, reconciling, shell_holding
from tests.support.chunks import FILES, a_want, an_id, put_chunk, put_failure, put_partial, put_want, touch_delete


def why(layout: Layout, chunk_id: str) -> Explanation:
    return explain_chunks(layout, [chunk_id])[0]


@pytest.mark.parametrize(("name", "quoted"), [("data", "{}"), ("of two words", "'{}'")])
def test_a_want_without_a_reconciler_names_a_command_to_paste(tmp_path: Path, name: str, quoted: str) -> None:
    data_dir = tmp_path / name
    with DataManager(data_dir):
        pass
    chunk = put_want(data_dir, a_want(files=FILES))
    told = why(Layout(data_dir), chunk.id)
    assert told.state == "wanted"
    assert told.todo == (f"start a reconciler: fsdm run -d {quoted.format(data_dir)}",)


def test_a_server_that_says_404_is_named_with_its_attempts_and_no_secret(data_dir: Path, source: Source) -> None:
    secret = a_want(files={"a": f"{source.url}/missing?token=hush".replace("://", "://ann:hush@")})
    with reconciling(data_dir):
        put_want(data_dir, secret)
        eventually((data_dir / "failed" / secret.id).exists)
        done = fsdm("explain", "-d", data_dir, secret.id)
    assert done.returncode == 0
    for words in ("HTTP 404", "tried once", "it will not pass by itself"):
        assert words in done.stdout
    assert "hush" not in done.stdout


def test_a_chunk_that_a_process_keeps_names_it(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    with shell_holding(layout.path(place)) as shell, reconciling(data_dir):  # type: ignore[arg-type]
        (told,) = fsdm_json("explain", "-d", data_dir, place.chunk_id)
        assert told["state"] == "retiring"
        assert f"it is held by pid {shell.pid} `flock -s " in told["why"][0]


def test_when_bytes_were_last_right_is_told(layout: Layout) -> None:
    place = put_chunk(layout)
    assert not any("READY says" in line for line in why(layout, place.chunk_id).here)
    verified = Path(layout.path(place), "VERIFIED")
    verified.touch()
    os.utime(verified, (0, time.time() - 7200))
    told = why(layout, place.chunk_id).here[-1]
    assert told.startswith("its bytes were read again, and were what READY says, at ")
    assert "(2 h" in told


def hold_and(directory: str, *command: str) -> list[str]:
    """A process that takes a shared lock on a directory, and becomes the command, which has it still."""
    code = "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_SH)\n"
    code += "os.set_inheritable(fd, True); os.execvp(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-c", code, directory, *command]


def test_explain_inside_of_hold_leaves_itself_out(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    explain = [*FSDM, "explain", "-d", str(data_dir), place.chunk_id]
    alone = ran("flock", "-s", "-o", layout.path(place), *explain)  # it holds the lock, and its command has no copy
    assert "it is held by pid" in alone.stdout
    assert "it is held by pid" not in ran(*hold_and(layout.path(place), *explain)).stdout


@pytest.mark.parametrize(("status", "told"), [(401, "credentials"), (403, "credentials"), (404, "check the URL")])
def test_a_refusal_names_what_may_mend_it(data_dir: Path, source: Source, status: int, told: str) -> None:
    chunk = source.chunk(files=1)
    source.fault(f"/{chunk.id}/blocks.parquet", status=status)
    with DataManager(data_dir) as dm:
        dm.download_chunk(chunk)
        with pytest.raises(ChunkFailedError) as caught:
            dm.wait(chunk.id)
        assert told in caught.value.failure.hint
        todo = why(dm.layout, chunk.id).todo[0]
        assert told in todo
        assert todo.endswith(f"; to have it tried now: fsdm retry -d {data_dir} {chunk.id}")


def test_want_over_budget_tells_lacking_bytes_and_holders(layout: Layout, data_dir: Path, source: Source) -> None:
    place = put_chunk(layout, files={"a": bytes(700_000)})
    big = source.chunk(files=1, size=600_000)
    with shell_holding(layout.path(place)) as shell:  # type: ignore[arg-type]
        touch_delete(data_dir, place.chunk_id)
        with DataManager(data_dir, limits=Limits(max_bytes=1_000_000)) as dm:
            dm.download_chunk(big)
            failed = eventually(lambda: (data_dir / "failed" / big.id).exists() and why(layout, big.id))
            said = json.loads((data_dir / "failed" / big.id).read_bytes())
            assert (said["needs_bytes"], said["lacks_bytes"]) == (600_000, 300_000)
            assert failed.state == "waiting"
            assert "300.0 kB were lacking" in failed.why[0]
            assert f"1 retiring chunk will free 700.0 kB once released by pid {shell.pid} `flock" in failed.why[1]


def test_how_many_are_ahead_is_counted(layout: Layout, data_dir: Path) -> None:
    running, older, mine = (a_want(files=FILES) for _ in range(3))
    for chunk in (running, older, mine):
        put_want(data_dir, chunk)
        later = os.stat(data_dir / "want" / chunk.id).st_ctime_ns
        eventually(lambda later=later: _tick(data_dir) > later)  # type: ignore[misc]
    put_partial(data_dir, running.id, **{"a.parquet": 3})
    lock = ReconcilerLock(layout)
    assert why(layout, mine.id).why == ("it waits for its turn, after 1 running download and 1 older want",)
    lock.close()


def _tick(data_dir: Path) -> int:
    probe = data_dir / "probe"
    probe.touch()
    return os.stat(probe).st_ctime_ns


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.mkdir(), "want/ID is a"),
        (lambda path: path.symlink_to("/dev/zero"), "want/ID is a"),
        (lambda path: path.write_text("{"), "want/ID cannot be taken: Invalid JSON"),
        (lambda path: path.write_text("[" * 100_000), "want/ID cannot be taken"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "want/ID cannot be taken"),
    ],
    ids=["directory", "symlink", "half-written", "too deep", "not UTF-8"],
)
def test_a_want_that_is_none_is_explained(layout: Layout, data_dir: Path, make: Any, sentence: str) -> None:
    chunk_id = an_id()
    make(data_dir / "want" / chunk_id)
    assert any(one.startswith(sentence) for one in why(layout, chunk_id).why)


@pytest.mark.parametrize("text", ["", "[1]", '{"error": 5, "attempts": "many"}'])
def test_a_failure_that_says_nonsense_is_told_as_such(layout: Layout, data_dir: Path, text: str) -> None:
    chunk = put_want(data_dir, a_want(files=FILES))
    (data_dir / "failed" / chunk.id).write_text(text)
    assert "it has failed, but failed/ID cannot be read" in why(layout, chunk.id).why


@pytest.mark.parametrize("text", ["", "[1]", "nobody", '{"pid": "x"}'])
def test_a_lock_that_says_nonsense_is_still_a_reconciler(layout: Layout, data_dir: Path, text: str) -> None:
    lock = ReconcilerLock(layout)
    (data_dir / "LOCK").write_text(text)
    put_partial(data_dir, chunk_id := an_id(), a=1)
    assert why(layout, chunk_id).why == ("it was withdrawn, and is cleared away",)
    lock.close()


def test_a_pause_is_told(layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want(files=FILES))
    (data_dir / "PAUSE").touch()
    assert any("downloads are paused" in sentence for sentence in why(layout, chunk.id).why)


def test_an_id_that_nobody_knows_ends_with_3_after_the_others_were_explained(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    done = fsdm("explain", "-d", data_dir, place.chunk_id, "e" * 64)
    assert done.returncode == 3
    assert f"{place.chunk_id} is available" in done.stdout
    assert f"{'e' * 64} is unknown" in done.stdout
    assert "nothing is known of" in done.stderr
    assert fsdm("explain", "-d", data_dir, "../x").returncode == 2


def test_what_others_wrote_moves_no_cursor(layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want(files=FILES))
    said = {"id": chunk.id, "kind": "transfer", "error": "\x1b[2J\rboo", "hint": "\x07"}
    put_failure(data_dir, chunk.id, first_at=1, last_at=1e300, **said)
    done = fsdm("explain", "-d", data_dir, chunk.id)
    assert "boo" in done.stdout
    assert not {"\x1b", "\r", "\x07"} & set(done.stdout)
