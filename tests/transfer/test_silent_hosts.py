"""Servers that take a connection, or not even that, and never answer: those that answer do not wait for them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager, Limits
from fsdm.model.events import Event
from fsdm.transfer import fetcher, scheduler
from tests.support import PATIENCE_S, Source, eventually
from tests.support.chunks import an_id, put_want

SILENT = 24  # more than there are slots for chunks, or for connections and small files together


@pytest.fixture
def listening() -> Iterator[Callable[[int], socket.socket]]:
    """Makes a server by its backlog; the kernel accepts for it."""
    with ExitStack() as stack:

        def listen(backlog: int) -> socket.socket:
            return stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))

        yield listen


def silent(server: socket.socket, _: ExitStack) -> str:
    return "http"


def without_tls(server: socket.socket, _: ExitStack) -> str:
    return "https"


def full(server: socket.socket, stack: ExitStack) -> str:
    """A server that accepts no more: what asks for a connection is dropped."""
    for _ in range(3):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect(server.getsockname())
    return "http"


def after(sent: bytes, server: socket.socket, stack: ExitStack) -> str:
    """A server that says so much, and then nothing more."""

    def serve() -> None:
        with suppress(OSError):
            client, _ = server.accept()
            stack.callback(client.close)
            client.recv(65536)
            client.sendall(sent)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    stack.callback(partial(thread.join, PATIENCE_S))
    stack.callback(partial(server.shutdown, socket.SHUT_RDWR))
    return "http"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
KINDS: dict[str, Callable[[socket.socket, ExitStack], str]] = {
    "silent": silent,
    "without TLS": without_tls,
    "full": full,
    "half a head": partial(after, HEAD[:20]),
    "a head": partial(after, HEAD),
    "a few bytes": partial(after, HEAD + b"x" * 100),
}


def a_chunk(*urls: str) -> DataChunk:
    files = {f"f{number}": url for number, url in enumerate(urls)}
    return DataChunk(id=an_id(), dataset_id="d" * 64, block_range=(0, 1), files=files)


@pytest.mark.parametrize("files", [1, 20])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("transport", "layout")
def test_silent_servers_hold_up_no_other(
    data_dir: Path, listening: Callable[[int], socket.socket], kind: str, files: int
) -> None:
    events: list[Event] = []
    with ExitStack() as stack:
        urls = []
        for _ in range(SILENT):
            server = listening(0 if kind == "full" else 8)
            urls.append(f"{KINDS[kind](server, stack)}://127.0.0.1:{server.getsockname()[1]}")
        sources = [stack.enter_context(Source()) for _ in range(3)]
        good = [source.chunk(files=2) for source in sources for _ in range(4)]
        for url in urls:
            put_want(data_dir, a_chunk(*(f"{url}/{number}" for number in range(files))))
        with DataManager(data_dir, on_event=events.append) as dm:
            for chunk in good:
                dm.download_chunk(chunk)
            for chunk in good:
                assert dm.wait(chunk.id, PATIENCE_S)
            assert "timeout" not in {event.cause for event in events if files == 1}  # none was waited for
    assert {source.asked.most_common(1)[0][1] for source in sources} == {1}


@pytest.mark.usefixtures("transport", "layout")
def test_where_many_are_silent_each_gets_its_turn_soon(
    data_dir: Path, listening: Callable[[int], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (scheduler, "LENT_MAX", 12),
        (fetcher, "PATIENT", 4),
        (fetcher, "FIRST_PATIENCE_S", 0.1),
    ):
        monkeypatch.setattr(module, name, value)
    events: list[Event] = []
    for _ in range(SILENT):
        put_want(data_dir, a_chunk(f"http://127.0.0.1:{listening(8).getsockname()[1]}/"))
    with Source() as source, DataManager(data_dir, on_event=events.append) as dm:
        chunk = source.chunk()
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        failed = [event for event in events if event.kind == "failed"]
        assert {event.cause for event in failed} <= {"timeout", "host_down"}
        assert all("0.1 s" in event.text or "0.2 s" in event.text for event in failed if event.cause == "timeout")


@pytest.mark.usefixtures("transport", "layout")
def test_many_wants_of_one_silent_server_hold_up_no_other(
    data_dir: Path, listening: Callable[[int], socket.socket]
) -> None:
    url = f"http://127.0.0.1:{listening(8).getsockname()[1]}"
    for number in range(SILENT):
        put_want(data_dir, a_chunk(f"{url}/{number}"))
    with Source() as source, DataManager(data_dir) as dm:
        chunk = source.chunk()
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)


@pytest.mark.parametrize("status", [404, 500])
@pytest.mark.usefixtures("transport")
def test_server_that_refuses_has_answered(data_dir: Path, source: Source, status: int) -> None:
    events: list[Event] = []
    chunks = [source.chunk(files=1) for _ in range(SILENT)]
    for path in source.files:
        source.fault(path, status=status)
    with DataManager(data_dir, on_event=events.append) as dm:
        for chunk in chunks:
            dm.download_chunk(chunk)
        eventually(lambda: len({event.chunk_id for event in events if event.kind == "failed"}) == SILENT)
    assert "timeout" not in {event.cause for event in events}


@pytest.mark.usefixtures("transport")
def test_one_server_has_no_more_connections_while_it_has_not_answered(data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(files=1) for _ in range(SILENT)]
    faults = [source.fault(path, stall_at=500) for path in source.files]
    with DataManager(data_dir, limits=Limits(connections=2)) as dm:
        for chunk in chunks:
            dm.download_chunk(chunk)
        eventually(lambda: sum(fault.stalled.is_set() for fault in faults) == 2)
        with Source() as other:  # by then, the others have had their turn
            chunk = other.chunk()
            dm.download_chunk(chunk)
            assert dm.wait(chunk.id, PATIENCE_S)
        assert sum(fault.stalled.is_set() for fault in faults) == 2
