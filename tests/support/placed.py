"""A fleet that is placed: its chunks, workers and reports in a directory, and what is published of it."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from fsdm.fleet.placing import Bounds
from fsdm.fleet.publishing import POINTER
from fsdm.fleet.round import Options, Round
from fsdm.fleet.shelf import Directory
from fsdm.model.documents import DataChunk
from tests.support.chunks import an_id

NOW = 1_000_000.0
DATASETS = ("d" * 64, "e" * 64)


class Place:
    """A directory with a list of chunks, workers, reports, and what is published."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "reports").mkdir()
        self.wants = {
            number: DataChunk(
                id=an_id(number),
                dataset_id=DATASETS[number % 2],
                block_range=(number, number + 1),
                files={"a.parquet": {"url": f"http://h/{number}", "size": 10**6 * (1 + number % 5)}},
            )
            for number in range(200)
        }
        self.workers = [{"name": f"w{number}", "capacity": "500M"} for number in range(6)]

    def add(self, number: int) -> None:
        """One more chunk."""
        how = {"id": an_id(number), "block_range": range(number, number + 1)}
        self.wants[number] = self.wants[0].model_copy(update=how)

    @property
    def fleet(self) -> Path:
        return self.path / "fleet"

    def read(self, now: float = NOW, **how: object) -> Round:
        (self.path / "workers").write_text("".join(json.dumps(worker) + "\n" for worker in self.workers))
        options = Options(**{"bounds": Bounds(), **how})  # type: ignore[arg-type]
        reports = str(self.path / "reports")
        wants = options.wants()
        for want in self.wants.values():
            wants.add(want)
        return Round.read(wants, str(self.path / "workers"), reports, Directory(str(self.fleet)), options, now)

    def documents(self, chunk_ids: Iterable[str]) -> Iterator[bytes]:
        wants = {want.id: want.to_json() for want in self.wants.values()}
        return map(wants.__getitem__, chunk_ids)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(b"".join(want.to_json() for want in self.wants.values())).hexdigest()

    def publish(self, now: float = NOW, **how: object) -> Round:
        one = self.read(now, **how)
        one.publish(self)
        return one

    def pointer(self) -> dict:
        return json.loads((self.fleet / POINTER).read_bytes())

    def ids(self, name: str) -> list[str]:
        """The chunks of a worker's list."""
        data = (self.fleet / "lists" / f"{self.pointer()['lists'][name]['sha256']}.jsonl.gz").read_bytes()
        *wants, end = map(json.loads, gzip.decompress(data).splitlines())
        assert end == {"end": len(wants)}
        return [want["id"] for want in wants]

    def routes(self) -> list[dict]:
        data = (self.fleet / "routes" / f"{self.pointer()['routes']}.jsonl.gz").read_bytes()
        return [json.loads(line) for line in gzip.decompress(data).splitlines()]

    def report(self, name: str, at: float = NOW, **says: object) -> None:
        """What a worker reports that has applied its list."""
        applied = self.pointer()["lists"][name]["sha256"] if name in self.pointer()["lists"] else None
        (self.path / "reports" / f"{name}.json").write_text(json.dumps({"at": at, "applied": applied} | says))

    def report_all(self, at: float = NOW) -> None:
        for worker in self.workers:
            self.report(worker["name"], at)
