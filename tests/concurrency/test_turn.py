"""Turns: who has one excludes the others, who waits does not, and who keeps it loses it."""

import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm.concurrency import turn
from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.turn import holding, in_turn, out_of_turn, rest
from fsdm.model.documents import DataChunk, FileEntry, Manifest
from fsdm.model.errors import StoppedError
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.chunk_download import fetch_chunk
from fsdm.transfer.http.source_settings import Bounds
from fsdm.transfer.scheduler import Scheduler
from tests.support import PATIENCE_S, eventually
from tests.support.servers import InThread, an_engine


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loses a turn that is kept: who waits with it is found."""
    monkeypatch.setattr(turn, "OVERDUE_S", 1e6)


def others_have_turns() -> bool:
    """Tell whether another thread can have its turn now."""
    came = threading.Event()
    other = InThread(in_turn()(came.set))
    if came.wait(0.1):
        other.join()
    return came.is_set()


@pytest.mark.usefixtures("kept")
def test_turn_excludes_the_others_until_it_is_given_up() -> None:
    with in_turn(), in_turn():
        assert not others_have_turns()
        with out_of_turn(), out_of_turn():
            assert others_have_turns()
        assert not others_have_turns()
    assert others_have_turns()
    with out_of_turn():
        assert others_have_turns(), "where there is no turn, none is taken"


@pytest.mark.usefixtures("kept")
def test_turn_ends_with_an_error() -> None:
    with pytest.raises(ValueError, match="x"), in_turn():
        raise ValueError("x")
    with in_turn():
        with pytest.raises(ValueError, match="x"), out_of_turn():
            raise ValueError("x")
        assert not others_have_turns(), "it is taken again"


def test_turn_that_is_kept_is_lost_and_its_end_is_nobody_elses() -> None:
    kept_on, ended = threading.Event(), threading.Event()

    @in_turn()
    def keep() -> None:
        kept_on.set()
        assert ended.wait(PATIENCE_S)

    keeper = InThread(keep)
    assert kept_on.wait(PATIENCE_S)
    with in_turn():
        ended.set()
        assert keeper.join() is None
    assert others_have_turns()


@pytest.mark.usefixtures("kept")
def test_turns_come_in_the_order_that_they_were_asked_for() -> None:
    came, others = list[int](), list[InThread]()
    with in_turn():
        for number in range(4):
            others.append(InThread(in_turn()(partial(came.append, number))))
            eventually(lambda number=number: len(turn._Turns.waiting) == number + 1)  # type: ignore[misc]
    for other in others:
        other.join()
    assert came == [0, 1, 2, 3]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("slice_s", [0.0, PATIENCE_S])
def test_turn_over_much_work_rests_for_others_after_its_slice(slice_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "SLICE_S", slice_s)
    came = threading.Event()
    with in_turn():
        other = InThread(in_turn()(came.set))
        eventually(lambda: len(turn._Turns.waiting) == 1)
        rest()
        assert came.is_set() == (slice_s == 0.0)
    other.join()


def test_turn_that_was_lost_is_asked_for_again_at_a_rest() -> None:
    began, lost = threading.Event(), threading.Event()

    @in_turn()
    def keep() -> bool:
        began.set()
        assert lost.wait(PATIENCE_S)
        rest()
        return turn._turn.held is turn._Turns.current

    keeper = InThread(keep)
    assert began.wait(PATIENCE_S)
    with in_turn():
        pass
    lost.set()
    assert keeper.join() is True


def waits(wait: Callable[[], object]) -> InThread:
    """Run what waits in a turn, in a thread of its own."""
    return InThread(in_turn()(wait))


@pytest.mark.usefixtures("kept")
def test_waiting_for_an_event_is_out_of_turn() -> None:
    stop, event = Cancellation(), threading.Event()
    waiting = waits(partial(stop.wait, PATIENCE_S, event))
    eventually(lambda: stop._waits)
    assert others_have_turns()
    event.set()
    assert waiting.join() is None


@pytest.mark.usefixtures("kept")
def test_waiting_for_a_mutex_is_out_of_turn_and_so_is_its_holder() -> None:
    mutex = threading.Lock()
    with mutex:
        waiting = waits(holding(mutex)(lambda: "held"))
        assert others_have_turns()
    assert waiting.join() == "held"


@pytest.mark.usefixtures("kept")
def test_waiting_for_a_connection_of_a_source_is_out_of_turn() -> None:
    bounds = Bounds()
    bounds.connections = 1
    with bounds.request(Cancellation()):
        waiting = waits(bounds.request(Cancellation())(lambda: "asked"))
        assert others_have_turns()
    assert waiting.join() == "asked"


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("transport", ["libcurl", "requests"])
def test_waiting_for_the_rest_of_an_answer_is_out_of_turn(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine, stop, came = an_engine(transport=transport), Cancellation(), threading.Event()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        waiting = waits(partial(engine.get, url, {}, stop, lambda _: lambda _: came.set()))
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1000)
            assert others_have_turns()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst")
            assert came.wait(PATIENCE_S)
            assert others_have_turns()
            stop.set()
            assert isinstance(waiting.join(), StoppedError)


@pytest.mark.usefixtures("kept")
def test_waiting_for_the_files_of_a_chunk_is_out_of_turn(tmp_path: Path) -> None:
    go_on, scheduler = threading.Event(), Scheduler("test", 1, 0)
    entry = FileEntry(size=0, blake3=64 * "0")
    fetcher = Mock(**{"fetch.side_effect": lambda *_: out_of_turn()(go_on.wait)(PATIENCE_S) and entry})
    chunk = DataChunk(id=64 * "1", dataset_id=64 * "2", block_range=range(9), files={"f": {"url": "http://h/f"}})
    waiting = waits(
        lambda: fetch_chunk(
            chunk,
            str(tmp_path / "new"),
            fs=FileSystem(),
            fetcher=fetcher,
            scheduler=scheduler,
            stop=Cancellation(),
            on_file=lambda *_: None,
        )
    )
    eventually(lambda: fetcher.fetch.called)
    assert others_have_turns()
    go_on.set()
    assert isinstance(waiting.join(), Manifest)
    assert scheduler.close(PATIENCE_S)


@pytest.mark.usefixtures("kept")
def test_fsync_is_out_of_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(others_have_turns()))
    fs = FileSystem()
    with in_turn():
        fs.write(str(tmp_path / "file"), b"x", durable=True)
    assert seen == [True, True]


@pytest.mark.usefixtures("kept")
def test_child_of_a_fork_has_no_turn_and_can_have_one() -> None:
    with in_turn():
        child = os.fork()
        if child == 0:
            os._exit(0 if others_have_turns() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
