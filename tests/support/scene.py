"""A data directory with some of everything, put there with nothing but files, and the page that shows it."""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fsdm.manager import DataManager
from fsdm.model.layout import Layout, Place
from fsdm.model.limits import Limits
from fsdm.monitoring.page.history import EACH_S, HOUR_S, Reading
from fsdm.monitoring.page.observer import Observer
from fsdm.monitoring.service import Service
from fsdm.store.data_dir import open_data_dir
from fsdm.store.filesystem import read_space
from fsdm.store.leader_lock import ReconcilerLock
from tests.support import begun_apart
from tests.support.chunks import a_want, put_failure, put_partial, put_want, touch_delete

MB = 10**6
# a process with a name of its own that holds a chunk's directory
HOLDER = 'exec 9< "$1"; flock -s 9; echo held; exec -a "query-worker --shard 7" sleep 600'
ETHEREUM, SOLANA = "17ab" + "3c5e" * 15, "c4d2" + "08f1" * 15
ERRORS = (
    ("https://data.example.org/17/blocks.parquet: HTTP 404 Not Found", False, None),
    ("https://mirror.example.org/18/logs.parquet: HTTP 503 Service Unavailable", True, 90.0),
)


@dataclass
class Scene:
    """The directory, and what the tests and pictures speak of in it."""

    layout: Layout
    running: dict[str, int] = field(default_factory=dict)  # id → bytes in all
    failing: list[str] = field(default_factory=list)
    retiring: list[str] = field(default_factory=list)
    here: list[Place] = field(default_factory=list)

    def come(self, seconds: float, bytes_per_s: float = 1.1 * MB) -> None:
        """Let the running downloads go on, as if for so long."""
        for number, (chunk_id, total) in enumerate(self.running.items()):
            path = f"{self.layout.partial_of(chunk_id)}/data/blocks.parquet"
            size = os.stat(path).st_size
            more = int(min(size + seconds * bytes_per_s * (1 + number / 3), total * 0.97)) - size
            with open(path, "ab") as file:
                file.write(bytes(max(more, 0)))


def put_ready(layout: Layout, place: Place, size: int) -> Place:
    """Publish a chunk of which READY alone is there: enough for whoever only looks."""
    path = layout.path(place)
    os.makedirs(f"{path}/data")
    entry = f'{{"size": {size}, "blake3": "{"0" * 64}"}}'
    blocks = place.block_range
    Path(path, "READY").write_text(
        f'{{"format": 1, "id": "{place.chunk_id}", "dataset_id": "{place.dataset_id}", '
        f'"block_range": {{"start": {blocks.start}, "end": {blocks.stop}}}, "files": {{"blocks.parquet": {entry}}}}}'
    )
    return place


def some_of_everything(root: Path) -> Scene:
    """Make the directory. Ids are the same each time."""
    layout = open_data_dir(root, durable=False, allow_unknown_fs=True)
    dice = random.Random(7)

    def new_id() -> str:
        return f"{dice.getrandbits(256):064x}"

    Path(layout.dataset_names).write_text(f'ethereum = "{ETHEREUM}"\nsolana = "{SOLANA}"\n')
    scene = Scene(layout)
    at = 17_000_000
    for number in range(62):
        end = at + dice.choice((900, 1000, 1000, 1000, 1400))
        if number in {23, 24, 47}:  # gaps
            at = end
            continue
        scene.here.append(put_ready(layout, Place.of(ETHEREUM, range(at, end), new_id()), dice.randrange(40, 140) * MB))
        at = end
    double = scene.here[10].block_range
    again = Place.of(ETHEREUM, range(double.start, double.stop), new_id())
    scene.here.append(put_ready(layout, again, 90 * MB))
    for number in range(3):
        total = (18 + 7 * number) * MB
        want = _want(ETHEREUM, at, at + 1000, new_id(), size=total)
        put_want(root, want)
        put_partial(root, want.id, **{"blocks.parquet": 1})
        scene.running[want.id] = total
        at += 1000
    for _ in range(9):
        put_want(root, _want(ETHEREUM, at, at + 1000, new_id(), size=12 * MB))
        at += 1000
    for error, transient, in_s in ERRORS:
        want = _want(ETHEREUM, at, at + 1000, new_id())
        put_want(root, want)
        now, marker = time.time(), os.stat(layout.want_marker(want.id))
        stamp = {"ino": marker.st_ino, "mtime_ns": marker.st_mtime_ns, "size": marker.st_size}
        put_failure(
            root, want.id, id=want.id, kind="transfer", error=error, hint="", transient=transient, attempts=4,
            first_at=now - 900, last_at=now - 40, next_attempt_at=in_s and now + in_s, marker=stamp,
        )  # fmt: skip
        scene.failing.append(want.id)
        at += 1000
    touch_delete(root, scene.here[3].chunk_id)
    scene.retiring.append(scene.here[3].chunk_id)
    at = 290_000_000
    for _ in range(24):
        put_ready(layout, Place.of(SOLANA, range(at, at + 5000), new_id()), dice.randrange(400, 600) * MB)
        at += 5000
    return scene


def _want(dataset: str, start: int, end: int, chunk_id: str, size: int | None = None):  # type: ignore[no-untyped-def]
    source = {"url": "https://data.example.org/blocks.parquet", **({} if size is None else {"size": size})}
    return a_want(id=chunk_id, dataset_id=dataset, block_range=(start, end), files={"blocks.parquet": source})


def an_hour(observer: Observer) -> None:
    """Have it remember an hour that has led to what is there: the rates of a morning, and a break."""
    dice, now = random.Random(3), time.time()
    free, rates = read_space(observer._layout.root).free_bytes, []
    for number in range(int(HOUR_S / EACH_S)):
        is_quiet = number < 40 or 170 <= number < 205
        rates.append(0.0 if is_quiet else max((rates[-1] if rates else 0) * 0.9 + dice.uniform(-0.1, 1) * MB, 0.4 * MB))
    here, came = sum(place_bytes(observer._layout)), 0
    missing = int(sum(rates) * EACH_S)
    for number, rate in enumerate(rates):
        came += int(rate * EACH_S)
        left = missing - came
        at = now - HOUR_S + (number + 0.5) * EACH_S
        observer._history.take(Reading(at, came, here - left, free + left))
    observer.board.put({"history": observer._history.document(now)})


def place_bytes(layout: Layout) -> Iterator[int]:
    """Yield the bytes of each chunk that is there."""
    for ready in Path(layout.chunks).glob("*/*/READY"):
        yield json.loads(ready.read_bytes())["files"]["blocks.parquet"]["size"]


@contextmanager
def shown(scene: Scene, *, budget: int | None = 60_000 * MB) -> Iterator[tuple[str, Observer]]:
    """Serve the page of a scene, which a process reconciles, and whose retiring chunks a process holds."""
    root = scene.layout.root
    with ExitStack() as stack:
        stack.enter_context(ReconcilerLock(scene.layout))  # type: ignore[arg-type]
        for chunk_id in scene.retiring:
            [place] = [one for one in scene.here if one.chunk_id == chunk_id]
            held = stack.enter_context(begun_apart(["bash", "-c", HOLDER, "bash", scene.layout.path(place)]))
            assert held.stdout is not None
            assert held.stdout.readline() == "held\n"
        dm = stack.enter_context(DataManager(root, reconcile=False, limits=Limits(max_bytes=budget)))
        service = stack.enter_context(Service(address="127.0.0.1:0", page=True, environment={}))
        stack.enter_context(service.attend(dm))
        assert service._page is not None
        assert service._page.observer is not None
        assert service.url is not None
        yield service.url, service._page.observer
