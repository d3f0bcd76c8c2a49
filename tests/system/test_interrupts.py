"""An exception of a signal at any point of a call leaves nothing open after close(), and no lock held."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsdm.client import Client
from fsdm.model.layout import Layout
from fsdm.store import flock
from fsdm.store.data_dir import open_data_dir
from fsdm.store.leader_lock import ReconcilerLock
from tests.support.chunks import a_want, an_id, put_chunk
from tests.support.interrupts import interrupts
from tests.support.locks import can_lock

DATASET = "d" * 64
pytestmark = [  # of an exception that comes in a finalizer, and of what a finalizer of the interpreter's closes
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = open_data_dir(tmp_path / "data")
    put_chunk(layout)
    return layout


def _hold(client: Client) -> None:
    with client.find_chunk(DATASET, 5) as ref, ref.clone():
        assert client.find_chunk(DATASET, 5) is not None


CALLS: dict[str, Callable[[Client], Any]] = {
    "open": lambda client: Client(client.layout.root),
    "lock": lambda client: ReconcilerLock(client.layout).close(),
    "download": lambda client: client.download_chunk(a_want(id=an_id(1))),
    "delete": lambda client: client.delete_chunk(an_id(2)),
    "verify": lambda client: client.verify_chunk(an_id(3)),
    "retry": lambda client: (client.delete_chunk(an_id(4)), client.recover(an_id(4))),
    "release": lambda client: client.release_deletes(),
    "pause": lambda client: (client.pause(), client.resume()),
    "find and close": lambda client: client.find_chunk(DATASET, 5).close(),
    "hold": _hold,
    "drop": lambda client: client.find_chunk(DATASET, 5),
    "close": lambda client: (client.find_chunk(DATASET, 5), client.close()),
    "status": lambda client: client.status(),
    "list": lambda client: client.list_chunks(),
    "wait": lambda client: client.wait(an_id(6), 0.0),
}


def _open() -> dict[str, str]:
    links = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            links[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # of the listing itself
            continue
    return links


@pytest.mark.parametrize("name", CALLS)
def test_interrupt_at_any_point_leaves_nothing_behind(layout: Layout, name: str) -> None:
    gc.collect()  # what an earlier test has left
    clients, before, noted, points = [Client(layout.root)], _open(), set(flock._descriptors), 0
    for where in interrupts(lambda: CALLS[name](clients[-1])):
        points += 1
        client = clients.pop()
        mutexes = (client._refs._mutex, client._catalog._mutex, client._catalog._listing)
        assert not any(mutex.locked() for mutex in mutexes), where
        assert can_lock(layout.want), where
        assert can_lock(layout.trash), where
        client.close()
        assert _open().items() <= before.items(), where
        assert flock._descriptors == noted, where
        clients.append(Client(layout.root))
    assert points > 10
    clients.pop().close()


def test_interrupted_listing_is_taken_anew(layout: Layout) -> None:
    """A half-changed index would give other chunks than were asked for."""
    places = [put_chunk(layout, start=start, end=start + 10) for start in range(10, 60, 10)]
    clients = [Client(layout.root)]
    for where in interrupts(lambda: clients[-1].find_chunk(DATASET, 55).close()):
        client = clients.pop()
        os.rename(layout.path(places[0]), f"{layout.root}/away")
        assert client.find_chunk(DATASET, 15) is None, where
        os.rename(f"{layout.root}/away", layout.path(places[0]))
        for place in places:
            with client.find_chunk(DATASET, place.block_range.start) as ref:
                assert ref.id == place.chunk_id, where
        client.close()
        clients.append(Client(layout.root))
    clients.pop().close()
