"""acquire: a chunk that is registered is fetched once, for all that wait, and by nobody for who waits no more."""

import fcntl
import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from fsdm.model.layout import Layout, Place
from tests.conformance.clients import Client, held_by
from tests.conformance.gate import LINKS, TOUCHES, UNLINKS
from tests.support import Source, can_lock, eventually, expected, waiting_at
from tests.support.chunks import (
    a_want,
    an_id,
    chunk_dir,
    entries,
    files_of,
    put_chunk,
    put_failure,
    put_known,
    put_want,
    touch_delete,
)

DATASET = "d" * 64
HELD = b"held\n"
SOON = 0.3  # seconds: it looks at least once


@pytest.fixture
def chunk(layout: Layout, data_dir: Path) -> DataChunk:
    """A chunk that is registered, while nobody reconciles."""
    chunk = a_want()
    put_known(data_dir, chunk)
    return chunk


@contextmanager
def waiting(client: Client, *what: object) -> Iterator:
    """Begin to acquire: not for ever, so that a client that misses what it waits for ends."""
    with client.begun("acquire", "--timeout", client.patience_s / 3, *what, "--", "true") as process:
        yield process


def marker_of(data_dir: Path, chunk: DataChunk) -> Path:
    return data_dir / "acquire" / chunk.id


def fails(data_dir: Path, chunk: DataChunk, last_at: float, kind: str = "transfer") -> None:
    """Tell of a failure, as the reconciler does."""
    at = {"first_at": last_at, "last_at": last_at, "attempts": 1}
    put_failure(data_dir, chunk.id, id=chunk.id, kind=kind, error="no way", hint="", transient=True, **at)


def written(data_dir: Path) -> dict[str, int]:
    """The mtimes of all directories of the data directory: each entry that comes or goes changes one."""
    return {path: os.stat(path).st_mtime_ns for path, _, _ in os.walk(data_dir)}


def fresh(data_dir: Path, path: Path, chunk_id: str) -> None:
    (path / "CACHED").touch()


def pinned(data_dir: Path, path: Path, chunk_id: str) -> None:
    """It was registered, and wanted since."""
    put_known(data_dir, a_want(id=chunk_id))
    (path / "WANT").touch()
    os.utime(path / "WANT", (time.time() + 100,) * 2)


def pinned_by_mtime(data_dir: Path, path: Path, chunk_id: str) -> None:
    """The data directory was copied since: only ctimes are later."""
    (path / "WANT").touch()
    os.utime(path / "WANT", (2, 2))
    put_known(data_dir, a_want(id=chunk_id))
    os.utime(data_dir / "known" / chunk_id, (1, 1))


def stale(data_dir: Path, path: Path, chunk_id: str) -> None:
    (path / "CACHED").touch()
    os.utime(path / "CACHED", (1, 1))


def registered_since(data_dir: Path, path: Path, chunk_id: str) -> None:
    (path / "WANT").touch()
    os.utime(path / "WANT", (1, 1))
    put_known(data_dir, a_want(id=chunk_id))


@pytest.mark.parametrize("stands", [None, fresh, pinned, pinned_by_mtime])
def test_hit_writes_nothing(
    client: Client, layout: Layout, data_dir: Path, stands: Callable[[Path, Path, str], None] | None
) -> None:
    place = put_chunk(layout)
    if stands is not None:
        stands(data_dir, Path(layout.path(place)), place.chunk_id)
    before = written(data_dir)
    for what in ([place.chunk_id], [DATASET, 5]):
        done = client.run("acquire", *what, "--", "printenv", "FSDM_CHUNK_PATH", "FSDM_CHUNK_ID")
        assert (done.returncode, done.stdout) == (0, f"{layout.path(place)}/data\n{place.chunk_id}\n"), done.stderr
    assert written(data_dir) == before


@pytest.mark.parametrize("stands", [stale, registered_since])
def test_use_of_what_may_be_evicted_is_noted(
    client: Client, layout: Layout, data_dir: Path, stands: Callable[[Path, Path, str], None]
) -> None:
    place = put_chunk(layout)
    stands(data_dir, Path(layout.path(place)), place.chunk_id)
    marker = data_dir / "acquire" / place.chunk_id
    assert client.run("acquire", place.chunk_id, "--", "true").returncode == 0
    assert os.listdir(data_dir / "acquire") == [place.chunk_id], "it is not noted"
    assert (marker.read_bytes(), waiting_at(marker)) == (b"", 0)
    os.utime(marker, (1, 1))
    assert client.run("acquire", DATASET, 5, "--", "true").returncode == 0
    assert marker.stat().st_mtime > 1
    assert os.listdir(data_dir / "acquire") == [place.chunk_id]


@pytest.mark.parametrize("by_block", [False, True])
def test_miss_is_fetched_and_held_and_asked_for_no_more(
    client: Client, data_dir: Path, source: Source, by_block: bool
) -> None:
    chunk = source.chunk()
    with DataManager(data_dir) as dm:
        client.register(chunk.to_json())
        with client.acquiring(*((chunk.dataset_id, 5) if by_block else (chunk.id,))) as holder:
            assert files_of(Path(holder.path)) == expected(chunk, source)
            assert waiting_at(marker_of(data_dir, chunk)) == 0, "CMD asks for it as well"
            assert not can_lock(dm.layout.path(chunk.place))
            eventually(lambda: os.listdir(data_dir / "acquire") == [])
            assert holder.end() == 0
        assert can_lock(dm.layout.path(chunk.place))
    assert set(source.asked.values()) == {1}


def test_all_that_wait_get_the_chunk_of_one_fetch(client: Client, data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    with DataManager(data_dir):
        put_known(data_dir, chunk)
        asks = [client.begun("acquire", *what, "--", "sh", "-c", SAY) for what in ([chunk.id], [chunk.dataset_id, 5])]
        with asks[0] as one, asks[1] as two:
            eventually(lambda: waiting_at(marker_of(data_dir, chunk)) == 2)
            fault.gate.set()
            assert {held_by(process).path for process in (one, two)} == {f"{chunk_dir(data_dir, chunk)}/data"}
    assert sum(source.asked.values()) == 1


SAY = 'echo "$$ $FSDM_CHUNK_PATH"; read -r line'


def test_who_waits_is_told_of_the_failure_and_who_comes_after_it_has_it_tried_anew(
    client: Client, data_dir: Path, source: Source
) -> None:
    chunk = source.chunk(files=1)
    path = f"/{chunk.id}/blocks.parquet"
    source.fault(path, status=404)
    with DataManager(data_dir):
        put_known(data_dir, chunk)
        done = client.run("acquire", chunk.id, "--", "echo", "held")
        assert (done.returncode, done.stdout) == (1, "")
        assert "404" in done.stderr
        del source.faults[path]
        assert client.run("acquire", chunk.id, "--", "echo", "held").stdout == "held\n"
    assert source.asked[path] >= 2, "a touch that comes after the failure has it tried anew at once"


def test_last_waiter_that_is_killed_ends_the_fetch(client: Client, data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    fault = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=10)
    with DataManager(data_dir):
        put_known(data_dir, chunk)
        with waiting(client, chunk.id) as one, waiting(client, chunk.id) as two:
            eventually(fault.stalled.is_set)
            eventually(lambda: waiting_at(marker_of(data_dir, chunk)) == 2)
            os.kill(one.pid, signal.SIGKILL)
            eventually(lambda: waiting_at(marker_of(data_dir, chunk)) == 1, patience_s=client.patience_s)
            assert entries(data_dir / "partial") == [chunk.id]
            os.kill(two.pid, signal.SIGKILL)
            eventually(
                lambda: not any(os.listdir(data_dir / where) for where in ("acquire", "partial")),
                patience_s=client.patience_s,
            )


# ------------------------------------------------------------------------------------------------- which chunk is meant


def put_document(data_dir: Path, chunk_id: str, **changes: object) -> None:
    document = {**json.loads(a_want(id=chunk_id).to_json()), **changes}
    (data_dir / "known" / chunk_id).write_text(json.dumps(document))


def test_among_what_is_here_and_registered_one_is_responsible(
    client: Client, layout: Layout, data_dir: Path, tmp_path: Path
) -> None:
    def asked(block: int) -> str:
        """Return the id that it asks for; that of a chunk that is here is printed."""
        for name in os.listdir(data_dir / "acquire"):
            (data_dir / "acquire" / name).unlink()
        done = client.run("acquire", "--timeout", SOON, DATASET, block, "--", "printenv", "FSDM_CHUNK_ID")
        asks = entries(data_dir / "acquire")
        assert (done.returncode, len(asks)) in {(0, 0), (4, 1), (3, 0)}, done.stderr
        return asks[0] if asks else done.stdout.rstrip("\n")

    wide = put_chunk(layout, start=0, end=100).chunk_id
    narrow, narrower, moved, other = (an_id() for _ in range(4))
    decoys = {"start": "http://h/1", "end": "http://h/2", "block_range": "http://h/3", "id": "http://h/4"}
    more = {"x": [{"start": 1, "block_range": {"start": 0, "end": 9}}], "files": decoys, "later": {"end": 1}}
    put_document(data_dir, narrow, block_range={"start": 40, "end": 60}, **more)
    put_document(data_dir, narrower, block_range={"end": 55, "start": 50})
    put_document(data_dir, other, block_range={"start": 45, "end": 46}, dataset_id="e" * 64)
    put_document(data_dir, an_id(), block_range={"start": 45, "end": 46}, id=an_id())
    cut = '{"dataset_id": "' + DATASET + '", "block_range": {"start": 45, "end": 46}, "files": {'
    for text in (cut, "[]", "{}", ""):
        (data_dir / "known" / an_id()).write_text(text)
    (data_dir / "known" / f"{an_id()}~").write_bytes((data_dir / "known" / narrower).read_bytes())
    moved = put_chunk(layout, start=200, end=210).chunk_id  # it is here, whatever its registration says
    put_document(data_dir, moved, block_range={"start": 45, "end": 47})
    found = {block: asked(block) for block in (39, 45, 54, 55)}
    assert found == {39: wide, 45: narrow, 54: narrower, 55: narrow}
    touch_delete(data_dir, wide)
    assert asked(39) == ""
    deleted = put_chunk(layout, chunk_id=narrower, start=50, end=52)
    touch_delete(data_dir, narrower)
    assert asked(51) == deleted.chunk_id, "it is asked for as it is registered"


def test_what_is_neither_here_nor_registered_is_unknown(client: Client, layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout, start=0, end=10)
    put_document(data_dir, an_id(), block_range={"start": 20, "end": 30})
    touch_delete(data_dir, place.chunk_id)
    before = written(data_dir)
    for what in (
        [an_id()],
        ["--timeout", SOON, an_id()],
        [place.chunk_id],
        [DATASET, 5],
        ["--timeout", SOON, DATASET, 30],
        ["e" * 64, 25],
    ):
        done = client.run("acquire", *what, "--", "echo", "held")
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert written(data_dir) == before


def test_what_is_wanted_is_waited_for_as_well(client: Client, layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want())
    assert client.run("acquire", "--timeout", SOON, chunk.id, "--", "true").returncode == 4


# --------------------------------------------------------------------------------------------------------- the marker


def test_who_waits_no_more_leaves_a_marker_that_asks_for_nothing(
    client: Client, data_dir: Path, chunk: DataChunk
) -> None:
    done = client.run("acquire", "--timeout", SOON, chunk.id, "--", "echo", "held")
    assert (done.returncode, done.stdout) == (4, "")
    assert os.listdir(data_dir / "acquire") == [chunk.id]
    assert marker_of(data_dir, chunk).read_bytes().strip() == HELD.strip()
    assert waiting_at(marker_of(data_dir, chunk)) == 0


def test_marker_is_never_there_unlocked(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    """The reconciler would take it for one at which nobody waits any more."""
    marker, words = marker_of(data_dir, chunk), ["acquire", "--timeout", client.patience_s / 3, chunk.id, "--", "true"]
    with client.gated(("flock", *LINKS, *UNLINKS, *TOUCHES), *words) as gated:
        for stop in gated.stops():
            if marker.exists():
                assert waiting_at(marker) == 1
                assert marker.read_bytes().strip() == HELD.strip()
                if stop.call in TOUCHES:
                    return
    pytest.fail("it puts no marker there, and touches it")


def test_who_joins_shares_the_marker_that_stands_and_touches_it(
    client: Client, data_dir: Path, chunk: DataChunk
) -> None:
    marker = marker_of(data_dir, chunk)
    marker.write_bytes(HELD)
    os.utime(marker, (1, 1))
    before = marker.stat().st_ino
    with marker.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with client.gated(("flock",), "acquire", "--timeout", SOON, chunk.id, "--", "true") as gated:
            locks = [stop.how for stop in gated.stops() if stop.path == str(marker)]
            assert gated.result()[0] == 4
    assert locks[0] == fcntl.LOCK_SH | fcntl.LOCK_NB
    assert all(how & fcntl.LOCK_NB for how in locks), "it waits for the lock"
    assert (marker.stat().st_ino, marker.read_bytes()) == (before, HELD)
    assert marker.stat().st_mtime > 1, "it is not asked for anew"
    assert os.listdir(data_dir / "acquire") == [chunk.id]


def test_time_of_a_marker_that_is_touched_is_another_one(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    """Times that the kernel gives come in ticks; the reconciler would not see that it was touched."""
    marker, before = marker_of(data_dir, chunk), 0
    with client.gated(TOUCHES, "acquire", "--timeout", SOON, chunk.id, "--", "true") as gated:
        for _ in gated.stops():
            if waiting_at(marker):
                os.utime(marker)
                before = marker.stat().st_mtime_ns
        assert gated.result()[0] == 4
    assert before
    assert marker.stat().st_mtime_ns != before


def test_marker_that_goes_before_it_is_locked_is_put_there_anew(
    client: Client, data_dir: Path, chunk: DataChunk
) -> None:
    marker, is_gone, comes_again = marker_of(data_dir, chunk), False, False
    marker.write_bytes(HELD)
    with client.gated(("flock",), "acquire", "--timeout", client.patience_s / 3, chunk.id, "--", "true") as gated:
        for stop in gated.stops():
            if is_gone and stop.path.startswith(str(data_dir / "acquire")):
                comes_again = True
                break
            if stop.path == str(marker):
                marker.unlink()
                is_gone = True
    assert (is_gone, comes_again) == (True, True)


def test_marker_that_goes_while_one_waits_is_put_there_anew(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    marker = marker_of(data_dir, chunk)
    with waiting(client, chunk.id) as process:
        eventually(lambda: waiting_at(marker) == 1)
        marker.unlink()
        eventually(lambda: waiting_at(marker) == 1 or process.poll() is not None)
        assert process.poll() is None


def test_marker_that_comes_first_is_shared(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    marker = marker_of(data_dir, chunk)
    with client.gated(LINKS, "acquire", "--timeout", client.patience_s / 3, chunk.id, "--", "true") as gated:
        for stop in gated.stops():
            if stop.path == str(marker) and not marker.exists():
                marker.touch()
                break
        assert marker.exists(), "it is not put there by link(2)"
    with client.gated(LINKS, "acquire", "--timeout", SOON, chunk.id, "--", "true") as gated:
        assert list(gated.stops()) == []
        assert gated.result()[0] == 4
    assert marker.read_bytes() == b"", "what only was touched stays so"


def test_ref_is_taken_before_the_marker_is_let_go_of_and_cmd_does_not_have_it(
    client: Client, layout: Layout, data_dir: Path, chunk: DataChunk
) -> None:
    """In between it could be evicted; and while CMD had the marker, it could not be, and would be asked for."""
    marker, place, waited = marker_of(data_dir, chunk), Place.of(DATASET, range(10), chunk.id), 0
    with client.gated(("flock",), "acquire", chunk.id, "--", "flock", "-x", "-n", marker, "echo", "free") as gated:
        for stop in gated.stops():
            if stop.path == layout.path(place):
                waited = waiting_at(marker)
            elif not os.path.exists(layout.path(place)) and stop.path.startswith(str(data_dir / "acquire")):
                put_chunk(layout, chunk_id=chunk.id)
        assert gated.result() == (0, "free\n")
    assert waited == 1


def test_what_is_in_the_way_of_the_marker_ends_with_6(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    marker = marker_of(data_dir, chunk)
    for put in (marker.mkdir, lambda: marker.symlink_to(data_dir / "fsdm.json")):
        put()
        done = client.run("acquire", chunk.id, "--", "true")
        assert done.returncode == 6
        assert done.stderr
        marker.rmdir() if stat.S_ISDIR(marker.lstat().st_mode) else marker.unlink()


# -------------------------------------------------------------------------------------------------------- the outcome


@pytest.mark.parametrize(
    ("kind", "after_s", "code"), [("transfer", 1000, 1), ("want", 1000, 1), ("transfer", -1, 4), ("room", 1000, 4)]
)
def test_failure_since_one_asks_is_the_outcome_unless_it_is_for_room(
    client: Client, data_dir: Path, chunk: DataChunk, kind: str, after_s: float, code: int
) -> None:
    fails(data_dir, chunk, time.time() + after_s, kind)
    done = client.run("acquire", "--timeout", SOON, chunk.id, "--", "echo", "held")
    assert (done.returncode, done.stdout) == (code, "")
    assert "no way" in done.stderr or code == 4


def test_failure_of_just_before_is_none(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    with client.gated(("flock",), "acquire", "--timeout", SOON, chunk.id, "--", "true") as gated:
        for stop in gated.stops():
            if stop.path.startswith(str(data_dir / "acquire")):
                fails(data_dir, chunk, time.time())
        assert gated.result()[0] == 4


def test_failure_that_comes_as_it_is_asked_for_anew_is_none_too_early(
    client: Client, data_dir: Path, chunk: DataChunk
) -> None:
    """It speaks of the marker as it is touched: nothing is tried anew by that touch."""
    with client.gated(TOUCHES, "acquire", "--timeout", client.patience_s / 3, chunk.id, "--", "true") as gated:
        touched = 0
        for _ in gated.stops():
            if waiting_at(marker_of(data_dir, chunk)) and not touched:
                touched += 1
                fails(data_dir, chunk, time.time())
        assert touched, "it touches nothing"
        assert gated.result()[0] == 1


def test_who_waits_for_a_registration_that_goes_is_told(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    with waiting(client, chunk.id) as process:
        eventually(lambda: waiting_at(marker_of(data_dir, chunk)) == 1)
        (data_dir / "known" / chunk.id).unlink()
        assert process.wait(client.patience_s) == 3


def test_chunk_comes_where_its_registration_says_by_then(
    client: Client, layout: Layout, data_dir: Path, chunk: DataChunk
) -> None:
    words = ["acquire", "--timeout", client.patience_s / 3, chunk.id, "--", "printenv", "FSDM_CHUNK_PATH"]
    with client.begun(*words) as process:
        eventually(lambda: waiting_at(marker_of(data_dir, chunk)) == 1)
        put_document(data_dir, chunk.id, block_range={"start": 70, "end": 80})
        place = put_chunk(layout, chunk_id=chunk.id, start=70, end=80)
        assert process.communicate(timeout=client.patience_s)[0] == f"{layout.path(place)}/data\n"


def test_cmd_of_acquire_ends_as_that_of_hold(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    words = ["acquire", place.chunk_id, "--"]
    assert client.run(*words, "sh", "-c", "cat; exit 7", stdin=b"read").stdout == "read"
    assert client.run(*words, "sh", "-c", "exit 7").returncode == 7
    assert client.run(*words, "no-such-command").returncode == 127


def test_what_cannot_be_acquired_ends_with_2(client: Client, data_dir: Path, chunk: DataChunk) -> None:
    before = written(data_dir)
    for words in (
        [chunk.id],
        [chunk.id, "--"],
        [DATASET, "0"],
        ["../" + "a" * 61, "--", "true"],
        [DATASET, str(2**64), "--", "true"],
        ["--timeout", "soon", chunk.id, "--", "true"],
    ):
        done = client.run("acquire", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr
    assert written(data_dir) == before
