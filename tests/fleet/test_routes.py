"""Routes: each block of a range has one chunk that answers for it, as a data directory has; else it is named."""

import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from fsdm import Client
from fsdm.fleet.documents import Pointer
from fsdm.fleet.routes import Holders, Part, Routes, RoutesReader, reading
from fsdm.model.errors import DataDirectoryError, InvalidInputError, NotHeldError, TransferError
from fsdm.model.layout import Layout, Place
from tests.support import Source
from tests.support.chunks import an_id, put_chunk

DATASET, OTHER = "d" * 64, "e" * 64


def a_route(start: int, end: int, *workers: str, dataset: str = DATASET, **more: Any) -> dict[str, Any]:
    return {"dataset_id": dataset, "start": start, "end": end, "id": an_id(), "workers": [*workers], **more}


def routes_of(*routes: dict[str, Any]) -> Routes:
    return Routes.parse(b"".join(json.dumps(route).encode() + b"\n" for route in routes))


def published(*routes: dict[str, Any], number: int = 1) -> dict[str, bytes]:
    """The files of a placement, by name."""
    text = b"".join(json.dumps(route).encode() + b"\n" for route in routes)
    sha256 = hashlib.sha256(text).hexdigest()
    pointer = Pointer(number=number, at=1.0, routes=sha256, lists={})
    return {"placement.json": pointer.to_json(), f"routes/{sha256}.jsonl.gz": gzip.compress(text)}


def test_only_nodes_that_have_confirmed_a_chunk_hold_it_and_those_that_lose_it_are_told_apart() -> None:
    route = a_route(0, 10, "a", "b", coming=["c"], leaving=["b"], doubted=["d"])
    [part] = routes_of(route).cover(DATASET, 2, 5)
    assert part == Part(Place.of(DATASET, range(10), route["id"]), range(2, 5))
    assert routes_of(route).holders(part.place) == Holders(("a",), ("b",))
    assert routes_of().holders(part.place) == Holders(())


def test_responsible_chunks_of_a_range_are_those_of_a_data_directory(layout: Layout) -> None:
    drawn = random.Random(7)
    routes = []
    for _ in range(60):
        start = drawn.randrange(100)
        routes.append(a_route(start, start + drawn.randrange(1, 30), "a"))
        put_chunk(layout, chunk_id=routes[-1]["id"], start=start, end=routes[-1]["end"])
    found = routes_of(*routes).cover(DATASET, 20, 90)
    with Client(layout.root) as client, client.hold_range(DATASET, 20, 90, whole=True) as held:
        assert [part.place.chunk_id for part in found] == [ref.id for ref in held.refs]
    assert [block for part in found for block in part.blocks] == list(range(20, 90))


def test_blocks_that_nobody_holds_are_named_with_the_chunk_that_is_to_come() -> None:
    coming = a_route(10, 20, coming=["b"])
    routes = routes_of(a_route(0, 10, "a"), coming, a_route(20, 30, "a"), a_route(0, 5, "a", dataset=OTHER))
    with pytest.raises(NotHeldError, match=rf"blocks \[10, 20\) of {DATASET}: chunk {coming['id']} is not confirmed"):
        routes.cover(DATASET, 5, 25)
    with pytest.raises(NotHeldError, match=r"blocks \[10, 20\), \[30, 40\) of d"):
        routes.cover(DATASET, 0, 40)
    with pytest.raises(NotHeldError, match=r"blocks \[0, 1\) of f+: no chunk of the fleet has them"):
        routes.cover("f" * 64, 0, 1)
    assert len(routes.cover(DATASET, 0, 10)) == 1
    with pytest.raises(NotHeldError, match=r"blocks \[10, 20\)"):
        routes.every()
    assert [part.blocks for part in routes.every(OTHER)] == [range(5)]
    assert len(routes) == 4


@pytest.mark.parametrize(("start", "end"), [(5, 5), (-1, 5), (0, 1 << 64), ("0", 5)])
def test_range_that_is_none_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidInputError, match="start: must be a range within"):
        routes_of().cover(DATASET, start, end)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": 1}',
        json.dumps(a_route(0, 10, "a") | {"dataset_id": "d"}),
        json.dumps(a_route(0, 1) | {"end": "x"}),
    ],
)
def test_line_that_is_no_route_is_an_error(line: str) -> None:
    with pytest.raises(DataDirectoryError, match="the routes cannot be taken"):
        Routes.parse(line.encode())


def test_what_is_published_is_read_again_only_where_it_has_changed() -> None:
    files, asked = published(a_route(0, 10, "a")), []

    def read(name: str) -> bytes | None:
        asked.append(name.partition("/")[0])
        return files.get(name)

    reader = RoutesReader(read)
    first = reader.current()
    assert reader.current() is first
    assert asked == ["placement.json", "routes", "placement.json"]
    files |= published(a_route(0, 20, "a"), number=2)
    assert [part.blocks for part in reader.current().every()] == [range(20)]


def test_routes_that_are_missing_or_not_those_that_the_pointer_names_are_an_error() -> None:
    files = published(a_route(0, 10, "a"))
    [name] = files.keys() - {"placement.json"}
    with pytest.raises(DataDirectoryError, match="nothing is published there"):
        RoutesReader({}.get).current()
    with pytest.raises(DataDirectoryError, match=r"placement.json cannot be taken"):
        RoutesReader({"placement.json": b"{"}.get).current()
    for bad, why in {
        None: "it is missing",
        gzip.compress(b"other"): "not what the pointer names",
        b"x": "gzip",
    }.items():
        with pytest.raises(DataDirectoryError, match=rf"{name} cannot be taken: .*{why}"):
            RoutesReader((files | {name: bad}).get).current()  # type: ignore[arg-type]


def test_routes_are_read_from_a_directory_and_from_a_web_server(tmp_path: Path, source: Source) -> None:
    for name, data in published(a_route(0, 10, "a")).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        source.put(f"/fleet/{name}", data)
    for where in (tmp_path, str(tmp_path), f"{source.url}/fleet", f"{source.url}/fleet/"):
        assert len(RoutesReader(reading(where)).current()) == 1
    with pytest.raises(DataDirectoryError, match="nothing is published there"):
        RoutesReader(reading(f"{source.url}/nothing")).current()
    with pytest.raises(
        TransferError, match=r"http://127.0.0.1:1/placement.json: the connection broke \(ConnectionError\)"
    ):
        RoutesReader(reading("http://user:secret@127.0.0.1:1")).current()
