"""Chunks that churn for a long time, under readers that check all the bytes they hold, and that are killed at random.

    python -m tools.soak [--minutes 60] [--chunks 5000] [--readers 24] [--clients 4] [--seed N] [--dir DIR] [--json]

Clients want, delete, want again and replace chunks, each its own share of them, and have some verified: nothing is ever
found damaged, for nothing is. Readers find chunks at random, and hold
what they read against what a file of that name, chunk and version must be; while they hold it, nothing of it may go.
Readers are killed all the time; the reconciler at the beginning, at random, and started again. In the second half it is
left alone, and its memory, descriptors and threads are measured: a line laid through them must not rise. At the end all
must converge to the last intents. The first violation ends it. Exit code 1 where anything of that does not hold; the
figures are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdm import DataChunk, DataManager
from fsdm.client import Client
from fsdm.model.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

DAMAGED: Final = '"event": "damaged"'  # in a line of the log
DATASET: Final = hashlib.sha256(b"soak").hexdigest()
FILES: Final = ("blocks", "logs")
LEAST_BYTES, MOST_BYTES = 200, 60_000
PATIENCE_S: Final = 120.0  # with a process that is to end; and at the end, without any intent converging
BACKLOG: Final = 500  # intents that are pending: clients ask for no more, so that what is asked for is also done
REST_S: Final = 0.002
VERIFIES, DELETES = 0.05, 0.35  # of what is asked for
KILLED_UNTIL, MEASURED_FROM = 0.3, 0.55  # of the time; what lies between is for a start to come to rest
MAY_GROW: Final = {"memory_mib": 16.0, "descriptors": 12.0, "threads": 4.0}  # while it is measured: what is noise


# -------------------------------------------------------------------------------------------------- what is to be where


def id_of(number: int) -> str:
    """The id of a chunk; it covers the one block of its number."""
    return hashlib.sha256(f"soak {number}".encode()).hexdigest()


def content(number: int, version: int, name: str) -> bytes:
    """What a file must be: it says at its beginning which one it is, and all else follows from that."""
    head = f"{number} {version} {name}\n".encode()
    size = LEAST_BYTES + hashlib.sha256(head).digest()[0] * (MOST_BYTES - LEAST_BYTES) // 255
    return head + hashlib.shake_128(head).digest(size)


def chunk_of(number: int, version: int, url: str) -> DataChunk:
    """The chunk that is to be wanted."""
    files = {}
    for name in FILES:
        data = content(number, version, name)
        sha256 = hashlib.sha256(data).hexdigest()
        files[name] = {"url": f"{url}/{number}/{version}/{name}", "size": len(data), "sha256": sha256}
    return DataChunk(id=id_of(number), dataset_id=DATASET, block_range=(number, number + 1), files=files)


def version_in(path: Path, number: int) -> int:
    """Which version of a chunk is in a directory.

    Raises:
        ValueError: none, or not a whole one, or several.
        OSError: something of it is not there.
    """
    versions = set()
    for name in FILES:
        data = (path / name).read_bytes()
        version = int(data.partition(b"\n")[0].split()[1])
        if data != content(number, version, name):
            raise ValueError(f"{path}/{name} has other bytes than {number}/{version}/{name}")
        versions.add(version)
    if len(versions) != 1 or set(os.listdir(path)) != set(FILES):
        raise ValueError(f"{path} is put together of {versions}, with {os.listdir(path)}")
    return versions.pop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, number, version, name = self.path.split("/")
        data = content(int(number), int(version), name)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:  # noqa: ARG002 the signature of http.server
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 of socketserver
        return


# ------------------------------------------------------------------------------------------------------ other processes


def read(data_dir: str, chunks: int, seed: int) -> None:
    """Find and check until killed; a line for each chunk: "ok", or what is wrong."""
    choice = random.Random(seed)
    with Client(data_dir) as client:
        while True:
            number = choice.randrange(chunks)
            ref = client.find_chunk(DATASET, number)
            if ref is None:
                time.sleep(REST_S)
                continue
            with ref:
                try:
                    first = version_in(ref.path, number)
                    time.sleep(choice.choice([0.0, 0.05, 0.2]))
                    said = "ok" if version_in(ref.path, number) == first else f"{ref.path} changed while it was held"
                except (OSError, ValueError) as e:
                    said = f"{e}"
            print(said, flush=True)


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def churn(data_dir: str, chunks: int, seed: int, url: str, share: tuple[int, int]) -> None:
    """Ask until stdin ends; then say what was asked for last: a version, or null, by number."""
    choice, last, over = random.Random(seed), dict[int, int | None](), threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    mine = range(share[0], chunks, share[1])
    with Client(data_dir) as client:
        while not over.wait(choice.random() * 0.02):
            if len(pending(client)) > BACKLOG:
                continue
            number, what = choice.choice(mine), choice.random()
            if what < VERIFIES:
                client.verify_chunk(id_of(number))
            elif what < VERIFIES + DELETES:
                client.delete_chunk(id_of(number))
                last[number] = None
            else:
                last[number] = choice.randrange(3)
                client.download_chunk(chunk_of(number, last[number] or 0, url))
    print(json.dumps(last), flush=True)


def pending(client: Client) -> list[str]:
    """The names of the intents that have not converged."""
    layout = client.layout
    return [name for path in (layout.want, layout.delete, layout.verify) for name in os.listdir(path)]


@dataclass
class Reader:
    """A reader's process, and what it has said."""

    process: subprocess.Popen[str]
    reads: int = 0
    violations: list[str] = field(default_factory=list)
    thread: threading.Thread | None = None

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # else it was killed in the middle of it
                self.reads += 1
                if line != "ok\n":
                    self.violations.append(line.strip())


def begin(role: str, *arguments: object) -> subprocess.Popen[str]:
    """One of our processes."""
    command = [sys.executable, __file__, "--role", role, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def reconciler(data_dir: str) -> subprocess.Popen[bytes]:
    """`fsdm run`; what it logs is added to a file beside the data directory."""
    with log_of(data_dir).open("ab") as log:
        options = ["--wait", "--brake", "off", "--log-format", "json"]
        return subprocess.Popen([sys.executable, "-m", "fsdm", "run", *options, "-d", data_dir], stderr=log)


def log_of(data_dir: str) -> Path:
    """Where the reconcilers of a data directory log."""
    return Path(f"{data_dir}.log")


def found_damaged(data_dir: str) -> list[str]:
    """What has been logged of chunks that were found damaged."""
    with log_of(data_dir).open() as log:
        return [line.strip() for line in log if DAMAGED in line]


# --------------------------------------------------------------------------------------------------------- measurements


def measure(pid: int) -> dict[str, float]:
    """Memory, descriptors and threads of a process: proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "memory_mib": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
        "threads": float(status["Threads"]),
    }


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """How much a line that is laid through (time, value) rises from the first to the last."""
    times = [at for at, _ in samples]
    if len(set(times)) < 2:
        return 0.0
    slope = statistics.linear_regression(times, [value for _, value in samples]).slope
    return slope * (times[-1] - times[0])


@dataclass
class Figures:
    """What a soak has found."""

    reads: int = 0
    violations: list[str] = field(default_factory=list)
    reader_kills: int = 0
    reconciler_kills: int = 0
    intents: int = 0
    not_as_asked: list[str] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    growth: dict[str, float] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Why it has not passed."""
        rising = [
            f"{name} grew by {self.growth[name]:.1f}" for name in self.growth if self.growth[name] > MAY_GROW[name]
        ]
        return [*self.violations, *self.not_as_asked, *rising]


# ------------------------------------------------------------------------------------------------------------- the soak


def soak(options: argparse.Namespace, data_dir: str) -> Figures:
    """All of it."""
    figures, choice = Figures(), random.Random(options.seed)
    with DataManager(data_dir):
        pass
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    run = reconciler(data_dir)
    clients = [
        begin("client", data_dir, options.chunks, options.seed + n, url, n, options.clients)
        for n in range(options.clients)
    ]
    readers: list[Reader] = []
    samples: list[tuple[float, dict[str, float]]] = []
    began, length_s = time.monotonic(), options.minutes * 60
    kill_at = length_s * choice.uniform(0.08, 0.15)
    try:
        while (now := time.monotonic() - began) < length_s and not any(reader.violations for reader in readers):
            while sum(reader.process.poll() is None for reader in readers) < options.readers:
                readers.append(_a_reader(data_dir, options.chunks, choice.random()))
            if kill_at < now < length_s * KILLED_UNTIL:
                run.kill()
                run.wait()
                run = reconciler(data_dir)
                figures.reconciler_kills += 1
                kill_at = now + length_s * choice.uniform(0.08, 0.15)
            if now > length_s * MEASURED_FROM:
                samples.append((now, measure(run.pid)))
            _kill_one(choice, readers)
            figures.reader_kills += 1
            time.sleep(min(1.0, length_s / 20))
        _end_clients(clients, data_dir, figures)
    finally:
        run.kill()
        run.wait()
        for process in (*(reader.process for reader in readers), *clients):
            process.kill()
            process.communicate() if process in clients else process.wait()
        server.shutdown()
        server.server_close()
    figures.violations += found_damaged(data_dir)
    for reader in readers:
        if reader.thread is not None:
            reader.thread.join()
        figures.reads += reader.reads
        figures.violations += reader.violations
    for name in MAY_GROW if samples else ():
        figures.largest[name] = max(sample[name] for _, sample in samples)
        figures.growth[name] = growth([(at, sample[name]) for at, sample in samples])
    return figures


def _a_reader(data_dir: str, chunks: int, seed: float) -> Reader:
    reader = Reader(begin("reader", data_dir, chunks, int(seed * 1e9)))
    reader.thread = threading.Thread(target=reader.listen, daemon=True)
    reader.thread.start()
    return reader


def _kill_one(choice: random.Random, readers: list[Reader]) -> None:
    alive = [reader for reader in readers if reader.process.poll() is None]
    reader = choice.choice(alive)
    reader.process.kill()
    reader.process.wait()


def _end_clients(clients: list[subprocess.Popen[str]], data_dir: str, figures: Figures) -> None:
    last: dict[str, int | None] = {}
    for process in clients:
        said, _ = process.communicate("", PATIENCE_S)
        last |= json.loads(said)
    figures.intents = len(last)
    with Client(data_dir) as client:
        _wait_for_rest(client)
        for number, version in last.items():
            ref = client.find_chunk(DATASET, int(number))
            found = None
            if ref is not None:
                with ref:
                    found = version_in(ref.path, int(number))
            if found != version:
                figures.not_as_asked.append(f"chunk {number} is {found}, asked for was {version}")


def _wait_for_rest(client: Client) -> None:
    """Wait as long as any intent converges; what is left then is not as asked."""
    left = None
    while (now_left := set(pending(client))) != left and now_left:
        left = now_left
        with suppress(WaitTimeoutError):
            client.wait_converged(PATIENCE_S)


def show(figures: Figures) -> None:
    """As a table."""
    for name in ("reads", "reader_kills", "reconciler_kills", "intents"):
        print(f"{name.replace('_', ' '):<20} {getattr(figures, name):>10}")
    print(f"{'violations':<20} {len(figures.violations):>10}")
    for name, value in figures.growth.items():
        print(f"{name.replace('_', ' '):<20} {figures.largest[name]:>10.1f}  grew by {value:+.2f}")
    for problem in figures.problems:
        print(f"NOT: {problem}")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--readers", type=int, default=24)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", help="where the data directory is to be, for the time of the soak")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run; or be one of the processes of a run."""
    rest: Any = argv[2:]
    if argv[:2] == ["--role", "reader"]:
        read(rest[0], int(rest[1]), int(rest[2]))
    if argv[:2] == ["--role", "client"]:
        churn(rest[0], int(rest[1]), int(rest[2]), rest[3], (int(rest[4]), int(rest[5])))
        return 0
    options = arguments(argv)
    base = tempfile.mkdtemp(prefix="fsdm-soak-", dir=options.dir)
    try:
        figures = soak(options, f"{base}/data")
    finally:
        shutil.rmtree(base)
    if options.json:
        print(json.dumps(asdict(figures) | {"problems": figures.problems}))
    else:
        show(figures)
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
