"""hold: the chunk stays where it is for as long as CMD, or what CMD has started, runs."""

import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.model.layout import Layout, Place
from tests.conformance.clients import Client
from tests.support import PATIENCE_S, Source, can_lock, eventually, expected
from tests.support.chunks import bring, chunk_dir, files_of, put_chunk, touch_delete

Change = Callable[[Layout, Place], None]
DATASET = "d" * 64
SCRIPT = 'echo "$FSDM_CHUNK_PATH"; echo "$FSDM_CHUNK_ID"; pwd; for word; do printf "<%s>" "$word"; done; cat; exit 7'


def test_cmd_runs_as_it_is_given_and_its_exit_code_is_passed_on(client: Client, layout: Layout, tmp_path: Path) -> None:
    place = put_chunk(layout)
    words = ["", "a b", "*", "'\"", "$HOME", "--", "-n", "\\"]
    done = client.run(
        "hold", DATASET, 5, "--", "sh", "-c", SCRIPT, "sh", *words, stdin=b"from standard input", cwd=tmp_path
    )
    assert done.returncode == 7
    assert done.stdout.splitlines() == [
        f"{layout.path(place)}/data",
        place.chunk_id,
        str(tmp_path),
        "".join(f"<{word}>" for word in words) + "from standard input",
    ]


def test_cmd_that_cannot_be_run_ends_like_in_a_shell(client: Client, layout: Layout, tmp_path: Path) -> None:
    place = put_chunk(layout)
    file = tmp_path / "file"
    file.touch(mode=0o644)
    assert client.run("hold", DATASET, 5, "--", "no-such-command").returncode == 127
    assert client.run("hold", DATASET, 5, "--", file).returncode == 126
    assert can_lock(layout.path(place))


def test_chunk_is_held_while_cmd_runs_and_free_when_it_has_ended(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.holding(DATASET, 5) as holder:
        assert holder.path == f"{layout.path(place)}/data"
        assert not can_lock(layout.path(place))
        assert holder.end() == 0
        assert can_lock(layout.path(place))


def test_several_hold_the_same_chunk_and_it_is_free_when_the_last_has_ended(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.holding(DATASET, 5) as one, client.holding(DATASET, 5) as two:
        one.end()
        assert not can_lock(layout.path(place))
        two.end()
        assert can_lock(layout.path(place))


def test_child_that_outlives_cmd_holds_on(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.holding(DATASET, 5) as holder:
        child = int(holder.ask("sleep 300 >/dev/null 2>&1 </dev/null & echo $!"))
        assert holder.end() == 0
        assert not can_lock(layout.path(place))
        os.kill(child, signal.SIGKILL)
        eventually(lambda: can_lock(layout.path(place)), "free once the child has ended")


def test_sigkill_of_cmd_frees_the_chunk_at_once(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.holding(DATASET, 5) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        assert holder.process.wait(PATIENCE_S) in {-signal.SIGKILL, 128 + signal.SIGKILL}
        assert can_lock(layout.path(place))


def test_sigkill_of_the_client_takes_the_chunk_from_nobody_who_reads_on(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.holding(DATASET, 5) as holder:
        os.kill(holder.process.pid, signal.SIGKILL)
        holder.process.wait(PATIENCE_S)
        if holder.pid != holder.process.pid:  # CMD runs beside the client, not in its place
            assert holder.ask(f"ls '{holder.path}'") == "blocks.parquet"
            assert not can_lock(layout.path(place))
            os.kill(holder.pid, signal.SIGKILL)
        eventually(lambda: can_lock(layout.path(place)))


def test_retiring_chunk_takes_no_new_holder_while_one_reads(client: Client, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    there = chunk_dir(data_dir, chunk)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        with client.holding(chunk.dataset_id, 5) as holder:
            client.delete(chunk.id)
            eventually(lambda: dm.reconciler.loop.troubles() == {chunk.id: "refs hold it"})
            assert client.find(chunk.dataset_id, 5) is None
            assert client.run("hold", chunk.dataset_id, 5, "--", "echo").returncode == 3
            assert client.list() == []
            assert files_of(Path(holder.path)) == expected(chunk, source)
            assert holder.ask('cat "$FSDM_CHUNK_PATH"/* | wc -c') == "2000"
            os.kill(holder.pid, signal.SIGKILL)
            assert not dm.wait(chunk.id, PATIENCE_S)
            assert not there.exists()


def test_want_makes_a_retiring_chunk_available_again(client: Client, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        with client.holding(chunk.dataset_id, 5) as holder:
            client.delete(chunk.id)
            assert client.find(chunk.dataset_id, 5) is None
            client.want(chunk.to_json())
            assert dm.wait(chunk.id, PATIENCE_S)
            assert client.find(chunk.dataset_id, 5) == holder.path


def leaves(layout: Layout, place: Place) -> None:
    """The reconciler has its claim, just before the client has its lock."""
    os.unlink(f"{layout.path(place)}/READY")
    os.rename(layout.path(place), f"{layout.trash}/{place.chunk_id}")


def leaves_for_another(layout: Layout, place: Place) -> None:
    """… and it comes back at once, as another directory of the same name."""
    leaves(layout, place)
    put_chunk(layout, chunk_id=place.chunk_id)


def is_to_be_replaced(layout: Layout, place: Place) -> None:
    """Other files are wanted under the same id."""
    os.unlink(f"{layout.path(place)}/READY")


def is_deleted(layout: Layout, place: Place) -> None:
    touch_delete(Path(layout.root), place.chunk_id)


def is_erased(layout: Layout, place: Place) -> None:
    shutil.rmtree(layout.path(place))


TRY_A_CLAIM = 'flock -x -n "$FSDM_CHUNK_PATH/.." true && echo "runs, and does not hold" || echo held'


@pytest.mark.parametrize("happens", [leaves, leaves_for_another, is_to_be_replaced, is_deleted, is_erased])
def test_change_before_the_lock_is_seen_after_it(client: Client, layout: Layout, happens: Change) -> None:
    place = put_chunk(layout)
    stopped = False
    with client.gated(("flock",), "hold", DATASET, 5, "--", "sh", "-c", TRY_A_CLAIM) as gated:
        for stop in gated.stops():
            if not stopped and stop.path == layout.path(place):
                stopped = True
                happens(layout, place)
        assert stopped, "it takes no lock"
        # a client may look again, and hold the other directory that stands there now
        result = gated.result()
        assert result == (3, "") or (result == (0, "held\n") and happens is leaves_for_another)


def test_lock_is_shared_and_never_waited_for_unlocked_or_converted(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.gated(("flock",), "hold", DATASET, 5, "--", "true") as gated:
        locks = [stop.how for stop in gated.stops() if stop.path == layout.path(place)]
        assert gated.result()[0] == 0
    assert locks == [fcntl.LOCK_SH | fcntl.LOCK_NB]


@pytest.mark.parametrize("happened", [is_deleted, is_to_be_replaced])
def test_chunk_that_is_to_leave_is_not_even_locked(client: Client, layout: Layout, happened: Change) -> None:
    """flock has no fairness: readers that keep asking would keep the reconciler from its claim for ever."""
    place = put_chunk(layout)
    happened(layout, place)
    with client.gated(("flock",), "hold", DATASET, 5, "--", "true") as gated:
        assert [stop for stop in gated.stops() if stop.path == layout.path(place)] == []
        assert gated.result()[0] == 3
