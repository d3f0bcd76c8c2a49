"""Churn chunks under readers that check all the bytes they hold, and kill processes.

    python -m tools.soak [--minutes 60] [--chunks 5000] [--readers 24] [--clients 4] [--seed N] [--dir DIR] [--json]

Clients want, delete, want again and replace chunks, each its own share of them, and have some verified: nothing may be
found damaged, for nothing is. Readers find chunks at random and compare what they read with what a file of that name,
chunk and version must be; while they hold it, nothing of it may go. Readers are killed all the time; the reconciler at
the beginning, at random, and started again. In the second half it is left alone, and its memory, descriptors and
threads are measured: a line laid through them must not rise. At the end all must converge to the last intents. The
first violation ends it. The figures are printed, and the exit code is 1 where anything of that does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fsdm import DataChunk, DataManager
from fsdm.client import Client
from fsdm.model.errors import WaitTimeoutError
from tools.support import proc
from tools.support.source import serving
from tools.support.versions import Version, content, files_in, id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DAMAGED: Final = '"event": "damaged"'  # in a line of the log
DATASET: Final = id_of("soak")
FILES: Final = ("blocks", "logs")
LEAST_BYTES, MOST_BYTES = 200, 60_000
PATIENCE_S: Final = 120.0  # with a process that is to end; and at the end, without any intent converging
BACKLOG: Final = 500  # intents that are pending: clients ask for no more, so that what is asked for is also done
REST_S: Final = 0.002
VERIFIES, DELETES = 0.05, 0.35  # of what is asked for
KILLED_UNTIL, MEASURED_FROM = 0.3, 0.55  # of the time; what lies between is for a start to come to rest
PAUSES: Final = (0.08, 0.15)  # of the time, between two kills of the reconciler
MEASURES: Final[dict[str, Callable[[int], float]]] = {
    "memory_mib": lambda pid: proc.memory_mib(pid, "VmRSS"),
    "descriptors": proc.descriptors,
    "threads": proc.threads,
}
MAY_GROW: Final = {"memory_mib": 16.0, "descriptors": 12.0, "threads": 4.0}  # while it is measured: what is noise


def files_of(number: int, version: int) -> dict[str, bytes]:
    """Return the files of a version; each says at its beginning which one it is."""
    return {name: _content(f"{number} {version} {name}\n") for name in FILES}


def _content(head: str) -> bytes:
    size = LEAST_BYTES + hashlib.sha256(head.encode()).digest()[0] * (MOST_BYTES - LEAST_BYTES) // 255
    return head.encode() + content(head, size)


def chunk_id(number: int) -> str:
    """Return the id of a chunk."""
    return id_of(f"soak {number}")


def chunk_of(number: int, version: int, url: str) -> DataChunk:
    """Return the chunk to want; it covers the one block of its number."""
    files, name = files_of(number, version), f"{number}/{version}"
    return Version.of(name, chunk_id(number), DATASET, (number, number + 1), files, f"{url}/{name}").chunk


def version_in(path: Path, number: int) -> int:
    """Return which version of a chunk is in a directory.

    Raises:
        ValueError: there is none, or not a whole one, or a file more.
        OSError: something of it is gone.
    """
    files = files_in(path)
    said = re.match(rb"\d+ (\d+) ", files.get(FILES[0], b""))
    if said is None or files != files_of(number, int(said[1])):
        heads = {name: data[:40] for name, data in files.items()}
        raise ValueError(f"{path} is no version of chunk {number}: its files begin with {heads}")
    return int(said[1])


def served(path: str) -> bytes:
    """Return what the source serves at a path."""
    _, number, version, name = path.split("/")
    return files_of(int(number), int(version))[name]


# ------------------------------------------------------------------------------------------------------ other processes


def read(data_dir: str, chunks: int, seed: int) -> None:
    """Find and check chunks until killed; print a line for each: "ok", or what is wrong."""
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


def churn(data_dir: str, numbers: list[int], seed: int, url: str) -> None:
    """Ask until stdin ends; then print the last intents: pairs of a number and a version."""
    choice, last = random.Random(seed), dict[int, int | None]()
    with Client(data_dir) as client:
        while not select.select([sys.stdin], [], [], choice.random() * 0.02)[0]:
            if len(pending(client)) > BACKLOG:
                continue
            number, what = choice.choice(numbers), choice.random()
            if what < VERIFIES:
                client.verify_chunk(chunk_id(number))
            elif what < VERIFIES + DELETES:
                client.delete_chunk(chunk_id(number))
                last[number] = None
            else:
                last[number] = version = choice.randrange(3)
                client.download_chunk(chunk_of(number, version, url))
    print(json.dumps(list(last.items())), flush=True)


ROLES: Final[dict[str, Callable[..., None]]] = {"read": read, "churn": churn}


def begin(role: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process of ours."""
    command = [sys.executable, "-m", "tools.soak", "--role", role, json.dumps(arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def pending(client: Client) -> list[str]:
    """Return the names of the intents that have not converged."""
    layout = client.layout
    return [name for path in (layout.want, layout.delete, layout.verify) for name in os.listdir(path)]


class Reader:
    """A reader's process; a thread takes in what it prints."""

    def __init__(self, data_dir: str, chunks: int, seed: int) -> None:
        self.process = begin("read", data_dir, chunks, seed)
        self.reads = 0
        self.violations: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Kill it, and take in the rest."""
        with self.process as process:
            process.kill()
            self._thread.join()
        if process.returncode != -signal.SIGKILL:
            self.violations.append(f"a reader ended by itself, with {process.returncode}")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # else it was killed in the middle of it
                self.reads += 1
                if line != "ok\n":
                    self.violations.append(line.strip())


@dataclass
class Figures:
    """The findings of a soak."""

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
        """The reasons why it has not passed."""
        rising = [f"{name} grew by {value:.1f}" for name, value in self.growth.items() if value > MAY_GROW[name]]
        return [*self.violations, *self.not_as_asked, *rising]

    def show(self) -> None:
        """Print the figures as a table."""
        for name in ("reads", "reader_kills", "reconciler_kills", "intents"):
            print(f"{name.replace('_', ' '):<20} {getattr(self, name):>10}")
        print(f"{'violations':<20} {len(self.violations):>10}")
        for name, value in self.growth.items():
            print(f"{name.replace('_', ' '):<20} {self.largest[name]:>10.1f}  grew by {value:+.2f}")
        for problem in self.problems:
            print(f"NOT: {problem}")


class Soak:
    """The processes of a soak, and its figures. A context manager that ends them all."""

    def __init__(self, options: argparse.Namespace, data_dir: str, url: str) -> None:
        self.figures = Figures()
        self._options = options
        self._url = url
        self._data_dir = data_dir
        self._log = Path(f"{data_dir}.log")
        self._rest = ""  # of what was read of it: a line that has no end yet
        self._choice = random.Random(options.seed)
        self._readers: list[Reader] = []
        self._samples: dict[str, list[tuple[float, float]]] = {name: [] for name in MEASURES}

    def __enter__(self) -> Self:
        with DataManager(self._data_dir):
            pass
        self._run = self._reconciler()
        self._logged = self._log.open()
        count, seed = self._options.clients, self._options.seed
        shares = [list(range(n, self._options.chunks, count)) for n in range(count)]
        self._clients = [begin("churn", self._data_dir, share, seed + n, self._url) for n, share in enumerate(shares)]
        return self

    def __exit__(self, *exc: object) -> None:
        self._run.kill()
        self._run.wait()
        for client in self._clients:
            with client:
                client.kill()
        while self._readers:
            self._end(self._readers[0])
        self._read_log()
        self._logged.close()

    def churn(self, length_s: float) -> bool:
        """Kill readers all the time, the reconciler at first, and measure it later; return whether all was well.

        It goes on for longer where the machine has been too busy for a read, or for a kill of each.
        """
        began, kill_at, figures = time.monotonic(), length_s * self._choice.uniform(*PAUSES), self.figures
        while (now := time.monotonic() - began) < length_s or not (figures.reads and figures.reconciler_kills):
            self._read_log()
            if self.figures.violations or any(reader.violations for reader in self._readers):
                return False
            if kill_at < now and (now < length_s * KILLED_UNTIL or not figures.reconciler_kills):
                self._kill_reconciler()
                kill_at = now + length_s * self._choice.uniform(*PAUSES)
            if now > length_s * MEASURED_FROM:
                for name, measure in MEASURES.items():
                    self._samples[name].append((now, measure(self._run.pid)))
            while len(self._readers) < self._options.readers:
                self._readers.append(Reader(self._data_dir, self._options.chunks, self._choice.randrange(10**9)))
            self._end(self._choice.choice(self._readers))
            self.figures.reader_kills += 1
            time.sleep(min(1.0, length_s / 20))
        return True

    def converge(self) -> None:
        """End the clients, wait until all has converged, and compare it with the last intents."""
        last: dict[int, int | None] = {}
        for process in self._clients:
            said, _ = process.communicate("", PATIENCE_S)
            last |= dict(json.loads(said))
        self.figures.intents = len(last)
        with Client(self._data_dir) as client:
            _wait_for_rest(client)
            for number, version in last.items():
                ref, found = client.find_chunk(DATASET, number), None
                if ref is not None:
                    with ref:
                        found = version_in(ref.path, number)
                if found != version:
                    self.figures.not_as_asked.append(f"chunk {number} is {found}, asked for was {version}")

    def evaluate(self) -> Figures:
        """Return the figures, with what was measured."""
        for name, samples in self._samples.items():
            if samples:
                self.figures.largest[name] = max(value for _, value in samples)
                self.figures.growth[name] = proc.growth(samples)
        return self.figures

    def _reconciler(self) -> subprocess.Popen[bytes]:
        options = ["--wait", "--brake", "off", "--log-format", "json", "-d", self._data_dir]
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "fsdm", "run", *options], stderr=log)

    def _read_log(self) -> None:
        """Look for damage in what was logged since."""
        *lines, self._rest = (self._rest + self._logged.read()).split("\n")
        self.figures.violations += [line for line in lines if DAMAGED in line]

    def _kill_reconciler(self) -> None:
        self._run.kill()
        self._run.wait()
        self._run = self._reconciler()
        self.figures.reconciler_kills += 1

    def _end(self, reader: Reader) -> None:
        self._readers.remove(reader)
        reader.kill()
        self.figures.reads += reader.reads
        self.figures.violations += reader.violations


def _wait_for_rest(client: Client) -> None:
    """Wait as long as intents converge; what is left then is not as asked."""
    left = None
    while (now_left := set(pending(client))) != left and now_left:
        left = now_left
        with suppress(WaitTimeoutError):
            client.wait_converged(PATIENCE_S)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__, formatter_class=how)
    parser.add_argument("--minutes", type=float, default=60.0)
    for name, default in (("--chunks", 5000), ("--readers", 24), ("--clients", 4), ("--seed", 1)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--dir", help="where the data directory is to be, for the time of the soak")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run a soak, or be one of its processes."""
    if argv and argv[0] == "--role":
        ROLES[argv[1]](*json.loads(argv[2]))
        return 0
    options = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="fsdm-soak-", dir=options.dir) as base:
        with serving(served) as url, Soak(options, f"{base}/data", url) as soak:
            if soak.churn(options.minutes * 60):
                soak.converge()
        figures = soak.evaluate()
    if options.json:
        print(json.dumps(asdict(figures) | {"problems": figures.problems}))
    else:
        figures.show()
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
