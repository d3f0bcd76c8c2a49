"""Servers for one answer: raw sockets, TLS, and what fetches from them."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk, FileEntry, FileSource, Manifest
from fsdm.model.source_policy import ANY, Policy
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.chunk_download import FileFetcher, fetch_chunk
from fsdm.transfer.fetcher import HttpEngine, HttpFetcher
from fsdm.transfer.http.head import Head
from fsdm.transfer.resume_record import Part
from fsdm.transfer.scheduler import Scheduler
from tests.support.chunks import an_id, content
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S


def a_certificate(directory: Path, name: str = "IP:127.0.0.1") -> Path:
    """A certificate that vouches for itself, with its key, for this name."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl(1) to make a certificate with")
    path = directory / f"{name.replace(':', '-')}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    where = ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subject = ["-days", "2", "-subj", "/CN=fsdm test", "-addext", f"subjectAltName={name}"]
    subprocess.run([*command, *where, *subject], check=True, capture_output=True)
    path.write_bytes(b"".join(path.with_name(path.name + end).read_bytes() for end in (".key", ".crt")))
    return path


def serving_with(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_certificate(tmp_path_factory.mktemp("tls"))


def reply(body: bytes = b"body", status: str = "200 OK", **fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def fields(request: bytes, name: bytes) -> list[bytes]:
    """The values of a field in a request."""
    lines = (line.partition(b": ") for line in request.split(b"\r\n")[1:])
    return [value for key, _, value in lines if key.lower() == name]


class Host:
    """A server that keeps its connections, answers by path (`default` for others), and remembers what it was asked.

    `clients` are the names in the certificates that were shown with the requests, "" for none.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[bytes] = []
        self.clients: list[str] = []
        self.connections = 0
        self.answers: dict[str, bytes] = {}
        self.default = reply()
        self._tls = tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.where}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            client = ""
            if self._tls is not None:
                connection = tls = self._tls.wrap_socket(connection, server_side=True)
                client = dict((tls.getpeercert() or {}).get("subjectAltName", ())).get("DNS", "")
            while request := connection.recv(65536):
                self.asked.append(request)
                self.clients.append(client)
                path = request.split(b" ")[1].decode()
                connection.sendall(self.answers.get(path, self.default))
        connection.close()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))


def an_engine(policy: Policy = ANY, **how: Any) -> HttpEngine:
    """What asks for URLs, with a table of servers of its own."""
    patient = {"connect_timeout_s": PATIENCE_S, "idle_timeout_s": PATIENCE_S}
    return HttpFetcher(**patient | how, policy=policy).engine


def get(
    engine: HttpEngine, url: str, headers: dict[str, str] | None = None, stop: Cancellation | None = None
) -> tuple[int, bytes]:
    """The status of an answer, and its body."""
    status, body = list[int](), bytearray()

    def begin(head: Head) -> Callable[[memoryview], object]:
        status.append(head.status)
        return body.extend

    engine.get(url, headers or {}, stop or Cancellation(), begin)
    return status[0], bytes(body)


DATA = content("a file", 300_000)
# what libcurl and requests say of the same fault, for `match`
CUT_SHORT = "end of response with [0-9]+ bytes missing|outstanding read data remaining|the body ended too early"
NO_ANSWER = "Empty reply from server|the connection ended without an answer"


@pytest.fixture
def url(source: Source) -> str:
    return source.put("/file", DATA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def fetch(
    url: str, path: Path, stop: Cancellation | None = None, *, fetcher: HttpFetcher | None = None, **known: Any
) -> FileEntry:
    """One file, by a fetcher of its own."""
    return (fetcher or HttpFetcher()).fetch(
        FileSource(url=url, **known), Part(str(path)), FileSystem(), stop or Cancellation()
    )


class InThread:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.result: object = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Exception as e:
            self.result = e

    def join(self) -> object:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it still waits"
        return self.result


def join(client: socket.socket, where: tuple[str, int]) -> None:
    """Copy what either side says to the other, to the end."""

    def copy(here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)

    with socket.create_connection(where) as target:
        back = InThread(lambda: copy(target, client))
        copy(client, target)
        back.join()


@contextmanager
def proxying(serve: Callable[[socket.socket], None], scheme: str = "http") -> Iterator[str]:
    """A proxy that serves one client; its URL."""

    def accept() -> None:
        client, _ = server.accept()
        with client:
            serve(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = InThread(accept)
        yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@contextmanager
def tunnel(
    says: bytes = b"HTTP/1.1 200 Connection established\r\nETag: proxy\r\n\r\n",
) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that makes one tunnel (RFC 9110 §9.3.6), or says this; its URL, and what it was asked."""
    asked: list[bytes] = []

    def serve(client: socket.socket) -> None:
        asked.append(client.recv(65536))
        client.sendall(says)
        if b" 200 " in says:
            name, _, port = asked[0].split()[1].decode().partition(":")
            join(client, (name, int(port)))

    with proxying(serve) as url:
        yield url, asked


@contextmanager
def answering(answers: Iterable[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers, one a connection, whatever it is asked; its URL, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)


@contextmanager
def full_server() -> Iterator[int]:
    """A port where a connection is neither made nor refused: nobody accepts those that wait already."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])


NAMES = ["d", "a", "c", "b"]

CHUNK = DataChunk(
    id=an_id(), dataset_id=an_id(), block_range=(0, 9), files={name: f"http://example.org/{name}" for name in NAMES}
)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    """A thread for each file."""
    scheduler = Scheduler("test", len(NAMES), 0)
    scheduler._share = len(NAMES)  # all of them for one chunk
    with closing(_Closing(scheduler)):
        yield scheduler


class _Closing:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def close(self) -> None:
        assert self._scheduler.close(PATIENCE_S), "a thread still runs"


def fetch_all(
    fetcher: FileFetcher,
    directory: Path,
    scheduler: Scheduler | None,
    stop: Cancellation | None = None,
    *,
    chunk: DataChunk = CHUNK,
    fs: FileSystem | None = None,
    on_file: Callable[[str, FileEntry], None] = lambda name, entry: None,
) -> Manifest:
    return fetch_chunk(
        chunk,
        f"{directory}/partial",
        fs=fs or FileSystem(),
        fetcher=fetcher,
        scheduler=scheduler,
        stop=stop or Cancellation(),
        on_file=on_file,
    )
