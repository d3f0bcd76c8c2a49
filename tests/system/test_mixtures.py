"""All faults of a network at once, under a random script of intents.

One life: some chunks are wanted, deleted, wanted again, replaced, by careful and by careless clients, while their
servers do at random whatever a server may do wrong. All the time a reader compares what is available with the digests
that were asked for. What has not come is explained in `failed/ID`. Then the faults end, and it converges to the bytes.

How the n-th request for a path is answered depends on the seed alone, and so does the script; the seed is the test's
parameter. `FSDM_MIXTURES=500` runs so many lives, `FSDM_MIXTURES_SEED=7` begins with that one.

A new fault is a row in `FAULTS`: its name, and what a source does then (see `Fault`), by the path, its bytes and a
random number generator.
"""

import contextlib
import gzip
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fsdm import DataChunk, DataManager
from fsdm.client import Client
from fsdm.model.errors import WaitTimeoutError
from fsdm.reconcile.actions import Done, Report
from fsdm.transfer.fetcher import HttpFetcher
from tests.support import PATIENCE_S, Fault, Source, eventually
from tests.support.chunks import an_id, content, failure, files_of, put_want, touch_delete
from tests.support.mutants import Mutant, around, replaced
from tests.support.servers import a_certificate, serving_with
from tests.support.transports import transport

__all__ = ["transport"]  # a fixture

LIVES = int(os.environ.get("FSDM_MIXTURES", "6"))
FIRST_SEED = int(os.environ.get("FSDM_MIXTURES_SEED", "1"))
CHUNKS, VERSIONS, DEEDS = 4, 3, 24
TICK_S = 0.02
KINDS = {"transfer", "want", "marker", "disk", "room", "damaged"}
NOWHERE = "nowhere.invalid"


class Storm(Source):
    """A source with a random fault of `FAULTS` for each request, until `over` is set."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.over = threading.Event()
        self.met: set[str] = set()

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        super().__exit__(*exc)

    def fault_for(self, path: str, data: bytes) -> Fault:
        random = Random(f"{self.seed} {path} {self.asked[path]}")
        name = random.choice(sorted(FAULTS))
        if self.over.is_set():
            return Fault()
        self.met.add(name)
        fault = FAULTS[name](path, data, random)
        fault.gate = self.over
        return fault


def sends_another_range(path: str, data: bytes, random: Random) -> Fault:
    """Send a part that begins anywhere, whatever was asked for; its head says so."""
    start = random.randrange(len(data) + 1)
    told = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    return Fault(status=206, headers=told, body=data[start:])


def lies_about_its_length(path: str, data: bytes, random: Random) -> Fault:
    """Send a Content-Length that is not the file's."""
    length = max(len(data) + random.choice([-1, 1, 1000]), 0)
    return Fault(headers={"Content-Length": str(length)}, cut_at=length)


def is_out_of_order(path: str, data: bytes, random: Random) -> Fault:
    """Refuse for a while, and perhaps say for how long."""
    asked = random.choice([{}, {"Retry-After": "0"}, {"Retry-After": "1"}])
    return Fault(status=random.choice([500, 502, 503, 504]), headers=asked)


def has_no_end(path: str, data: bytes, random: Random) -> Fault:
    """Send on for a second: a life waits no longer for the end of an answer."""
    return Fault(no_length=True, body=data + bytes(100_000), drip_at=len(data), drips=100)


def _somewhere(data: bytes, random: Random) -> int:
    return random.randrange(len(data) + 1)


def _tag(random: Random) -> dict[str, str]:
    return {"ETag": f'"{random.random()}"'}


MOVED, PAGE = [301, 302, 307], b"<html>It is not here.</html>"
FAULTS: dict[str, Callable[[str, bytes, Random], Fault]] = {
    "stalls": lambda path, data, random: Fault(stall_at=_somewhere(data, random)),
    "cuts": lambda path, data, random: Fault(cut_at=_somewhere(data, random)),
    "resets": lambda path, data, random: Fault(cut_at=_somewhere(data, random), no_ranges=True, reset=True),
    "drips": lambda path, data, random: Fault(drip_at=_somewhere(data, random), drips=20),
    "sends all for a range": lambda path, data, random: Fault(no_ranges=True),
    "refuses the range": lambda path, data, _: Fault(status=416, headers={"Content-Range": f"bytes */{len(data)}"}),
    "has another ETag": lambda path, data, random: Fault(headers=_tag(random), cut_at=_somewhere(data, random)),
    "has another version": lambda path, data, random: Fault(body=content(str(random.random()), len(data))),
    "redirects to itself": lambda path, _, random: Fault(status=random.choice(MOVED), headers={"Location": path}),
    "sends gzip": lambda path, data, _: Fault(body=gzip.compress(data), headers={"Content-Encoding": "gzip"}),
    "sends an error page": lambda path, data, random: Fault(body=PAGE, headers={"Content-Type": "text/html"}),
    "hangs up": lambda path, data, random: Fault(raw=b""),
    "speaks no HTTP": lambda path, data, random: Fault(raw=random.randbytes(200)),
    "does as it should": lambda path, data, random: Fault(),
} | {fault.__name__: fault for fault in (sends_another_range, lies_about_its_length, is_out_of_order, has_no_end)}


@dataclass
class Life:
    """One life of a data directory: what was asked for last, and what may be seen meanwhile."""

    seed: int
    data_dir: Path
    storms: tuple[Storm, Storm]
    elsewhere: list[str]

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.ids = [an_id() for _ in range(CHUNKS)]
        self.last: dict[str, int | None] = dict.fromkeys(self.ids)  # the version that is wanted, or None
        self.wrong: list[str] = []
        self._ended = threading.Event()

    def sizes(self, chunk_id: str, version: int) -> list[int]:
        random = Random(f"{self.seed} {self.ids.index(chunk_id)} {version}")
        return [random.choice([0, 1, 999, 70_000, 300_000]) for _ in range(1 + version % 2)]

    def files(self, chunk_id: str, version: int) -> dict[str, bytes]:
        name = f"{self.seed} {self.ids.index(chunk_id)} {version}"
        return {str(n): content(f"{name} {n}", size) for n, size in enumerate(self.sizes(chunk_id, version))}

    def chunk(self, chunk_id: str, version: int) -> DataChunk:
        sources = {}
        number = self.ids.index(chunk_id)
        for name, data in self.files(chunk_id, version).items():
            path = f"/{number}/{version}/{name}"
            urls = [storm.put(path, data) for storm in self.storms] + [f"{url}{path}" for url in self.elsewhere]
            self.random.shuffle(urls)
            sources[name] = {"url": urls[0], "mirrors": urls[1:], "sha256": hashlib.sha256(data).hexdigest()}
            if self.random.random() < 0.7:
                sources[name]["size"] = len(data)
        return DataChunk(id=chunk_id, dataset_id="d" * 64, block_range=(number, number + 1), files=sources)

    def ask(self, client: Client) -> None:
        """One intent, by a client or by hand."""
        chunk_id, careful = self.random.choice(self.ids), self.random.random() < 0.7
        if not careful:
            self._ended.wait(TICK_S)  # of two careless intents within one tick of the clock either may be the later
        if self.random.random() < 0.3:
            self.last[chunk_id] = None
            client.delete_chunk(chunk_id) if careful else touch_delete(self.data_dir, chunk_id)
        else:
            version = self.last[chunk_id] = self.random.randrange(VERSIONS)
            chunk = self.chunk(chunk_id, version)
            client.download_chunk(chunk) if careful else put_want(self.data_dir, chunk)

    def read(self) -> None:
        """Until the end: what is available is one of the versions, whole."""
        digests = {c: [self.files(c, version) for version in range(VERSIONS)] for c in self.ids}
        with Client(self.data_dir) as client:
            while not self._ended.is_set():
                for number, chunk_id in enumerate(self.ids):
                    ref = client.find_chunk("d" * 64, number)
                    if ref is None:
                        continue
                    with ref:
                        found = files_of(ref.path)
                    if found not in digests[chunk_id]:
                        self.wrong.append(chunk_id)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        reader = threading.Thread(target=self.read)
        reader.start()
        try:
            yield
        finally:
            self._ended.set()
            reader.join()

    def is_explained(self, chunk_id: str) -> bool:
        """Whether nothing is pending for it, or it is said why."""
        if not any((self.data_dir / kind / chunk_id).exists() for kind in ("want", "delete")):
            return True
        told = failure(self.data_dir, chunk_id)
        return told is not None and told["kind"] in KINDS and told["error"] != ""

    def live(self, dm: DataManager) -> None:
        with self.reading():
            for _ in range(DEEDS):
                self.ask(dm)
                self._ended.wait(self.random.choice([TICK_S, 0.05]))
            for chunk_id in self.ids:
                eventually(lambda chunk_id=chunk_id: self.is_explained(chunk_id), f"failed/{chunk_id}", PATIENCE_S)
            for storm in self.storms:
                storm.over.set()
            for chunk_id in self.ids:  # what will not pass by itself is asked for again
                with contextlib.suppress(FileNotFoundError):
                    if self.last[chunk_id] is not None:
                        os.utime(self.data_dir / "want" / chunk_id)
            dm.wait_converged(PATIENCE_S)
        assert self.wrong == []
        for number, (chunk_id, version) in enumerate(self.last.items()):
            ref = dm.find_chunk("d" * 64, number)
            assert (ref is None) == (version is None)
            if ref is not None and version is not None:
                with ref:
                    assert files_of(ref.path) == self.files(chunk_id, version)
        eventually(lambda: not os.listdir(self.data_dir / "failed"), "nothing is left to be explained")
        eventually(lambda: not os.listdir(self.data_dir / "partial"), "nothing is left of a download")


def live(seed: int, data_dir: Path, elsewhere: list[str]) -> set[str]:
    """One life; the faults that were met in it."""
    fetcher = HttpFetcher(idle_timeout_s=0.3, connect_timeout_s=1.0)
    hosts = fetcher.hosts
    hosts.first_s, hosts.last_s, hosts.trial_wait_s = 0.05, 0.2, 0.2  # a life has no time for a server's cool-down
    with Storm(seed) as one, Storm(-seed) as other, DataManager(data_dir, fetcher=fetcher) as dm:
        Life(seed, data_dir, (one, other), elsewhere).live(dm)
        return one.met | other.met


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Mirrors that never work: a wrong certificate, an unknown name, a closed port."""
    lookup = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **named: Any) -> Any:
        if host == NOWHERE:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return lookup(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as listener:
        closed.bind(("127.0.0.1", 0))  # and it does not listen
        context = serving_with(a_certificate(tmp_path, "DNS:example.org"))
        server = threading.Thread(target=_shake_hands, args=(listener, context))
        server.start()
        tls, nobody = listener.getsockname()[1], closed.getsockname()[1]
        yield [f"https://127.0.0.1:{tls}", f"http://{NOWHERE}", f"http://127.0.0.1:{nobody}"]
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def _shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the end
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE_S)
            context.wrap_socket(connection, server_side=True).close()


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + LIVES))
@pytest.mark.usefixtures("transport")
def test_life_under_all_faults_converges_to_exact_bytes(seed: int, data_dir: Path, elsewhere: list[str]) -> None:
    assert len(live(seed, data_dir, elsewhere)) >= len(FAULTS) / 6


def digests_not_checked(put: pytest.MonkeyPatch) -> None:
    """Wrong bytes are taken for the wanted ones, and READY says so."""
    replaced("transfer.file_transfer.Transfer.mismatch", lambda self: None)(put)
    as_wanted = "transfer.file_transfer.Transfer.finish"
    around(as_wanted, lambda finish, self: finish(self).model_copy(update={"sha256": self.source.sha256}))(put)


def failures_not_told(put: pytest.MonkeyPatch) -> None:
    """failed/ID is never written."""
    around(
        "reconcile.apply.Applier._apply",
        lambda apply, self, action, stop: Done() if isinstance(action, Report) else apply(self, action, stop),
    )(put)


@pytest.mark.parametrize("mutant", [digests_not_checked, failures_not_told])
def test_life_finds_known_fault(
    mutant: Mutant, tmp_path: Path, elsewhere: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    monkeypatch.setattr("tests.system.test_mixtures.PATIENCE_S", 3.0)
    with pytest.raises((AssertionError, WaitTimeoutError)):  # noqa: PT012 in one life or another
        for seed in range(1, 6):
            live(seed, tmp_path / str(seed), elsewhere)
