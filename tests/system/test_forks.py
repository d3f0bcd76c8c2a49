"""Forks while other threads are in calls: no child keeps a lock of its parent's."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm.client import Client
from fsdm.model.layout import Layout
from fsdm.store import flock
from fsdm.store.data_dir import open_data_dir
from fsdm.transfer.http import sockets
from fsdm.transfer.http.sockets import Sockets
from tests.support.chunks import an_id, put_chunk
from tests.support.locks import in_a_fork
from tests.support.servers import InThread

DATASET = "d" * 64
FORKS = 150


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = open_data_dir(tmp_path / "data")
    for start in range(0, 40, 10):
        put_chunk(layout, start=start, end=start + 10)
    return layout


def _kept(layout: Layout) -> list[str]:
    """List what a lock may be on: chunks' directories and `want/`; not a file or a listing, which carry none."""
    kept = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if path == layout.want or os.path.dirname(path) == layout.dataset(DATASET):
            kept.append(path)
    return kept


def _until(stop: threading.Event, call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        while not stop.is_set():
            call()

    return run


def test_child_of_a_fork_keeps_no_lock_whatever_other_threads_are_doing(layout: Layout) -> None:
    stop, before = threading.Event(), {*flock._descriptors}  # of another test's, whose end takes its time
    with Client(layout.root) as client:

        def find() -> None:
            for start in range(0, 40, 10):
                ref = client.find_chunk(DATASET, start)
                if ref is not None:
                    ref.close()

        threads = [InThread(_until(stop, call)) for call in (find, find, lambda: client.delete_chunk(an_id(9)))]
        kept = [in_a_fork(lambda: _kept(layout)) for _ in range(FORKS)]
        stop.set()
        for thread in threads:
            thread.join()
    assert set(kept) == {"[]"}
    assert flock._descriptors <= before


def test_socket_that_is_being_handed_to_libcurl_leads_to_nothing_in_a_child() -> None:
    """pycurl has duplicated it, and has not told yet: the child finds it by its inode."""
    its = Sockets()
    made = its.opens(0, (socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 80)))
    duplicate = os.dup(made.fileno())
    try:
        assert sockets._inode(duplicate) == os.fstat(duplicate).st_ino
        assert in_a_fork(lambda: os.readlink(f"/proc/self/fd/{duplicate}")) == os.devnull
        assert sockets._inode(duplicate) is not None, "that of the parent is as it was"
    finally:
        os.close(duplicate)
        made.close()
