"""Peers in lists: who holds a chunk is named, before the lake, for copies that are to come; and lists rest."""

import gzip
import json
from pathlib import Path

import pytest

from fsdm.fleet.documents import WorkerDocument
from fsdm.fleet.peers import with_peers
from fsdm.model.documents import MIRRORS_MAX, DataChunk
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import Place as ChunkPlace
from fsdm.model.plain_wants import BYTES_MAX
from tests.support.chunks import an_id
from tests.support.placed import DATASETS, Place

SHA256 = "a" * 64


def a_line(**files: object) -> bytes:
    want = {"id": an_id(7), "dataset_id": DATASETS[0], "block_range": {"start": 7, "end": 8}, "files": files}
    return json.dumps(want).encode() + b"\n"


def files_of(line: bytes) -> dict:
    DataChunk.parse(line)
    return json.loads(line)["files"]


def test_peers_come_before_the_lake_with_the_paths_of_the_chunk_and_the_rest_stays() -> None:
    mine = {"url": "s3://lake/a", "mirrors": ["http://h/a"], "size": 3, "sha256": SHA256, "note": "kept"}
    found = files_of(with_peers(a_line(**{"a b.parquet": mine}), ("http://one:8081", "https://two/fsdm")))
    path = f"chunks/{DATASETS[0]}/{ChunkPlace.of(DATASETS[0], range(7, 8), an_id(7)).name}/data/a%20b.parquet"
    assert found["a b.parquet"] == mine | {
        "url": f"http://one:8081/{path}",
        "mirrors": [f"https://two/fsdm/{path}", "s3://lake/a", "http://h/a"],
    }


@pytest.mark.parametrize("file", ["http://h/a", ["http://h/a", "http://i/a"], {"url": "http://h/a", "size": 3}])
def test_file_without_a_digest_comes_from_the_lake_alone(file: object) -> None:
    assert files_of(with_peers(a_line(a=file), ("http://one",))) == {"a": file}


def test_there_are_no_more_mirrors_than_a_want_may_have_and_no_line_is_too_long() -> None:
    full = {"url": "http://h/a", "mirrors": [f"http://h/{n}" for n in range(MIRRORS_MAX - 1)], "sha256": SHA256}
    found = files_of(with_peers(a_line(a=full), ("http://one", "http://two")))["a"]
    assert len(found["mirrors"]) == MIRRORS_MAX
    assert found["mirrors"] == [full["url"], *full["mirrors"]]
    long = a_line(a={"url": "http://h/" + "a" * (BYTES_MAX - 400), "sha256": SHA256})
    assert with_peers(long, ("http://one",)) == long


@pytest.mark.parametrize(
    "url", ["b1:8081", "ftp://b1/", "http://me:secret@b1/", "http://b1/?a", "http://b1/#a", "http://"]
)
def test_url_that_is_none_or_has_a_secret_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="must be as http://a1:8081"):
        WorkerDocument.parse(json.dumps({"name": "a", "capacity": 1, "url": url}))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fleet of which all but the last one serve their chunks, and have what they are to have."""
    place = Place(tmp_path)
    place.wants = {
        number: want.model_copy(update={"files": {"a": want.files["a.parquet"].model_copy(update={"sha256": SHA256})}})
        for number, want in place.wants.items()
    }
    for worker in place.workers[:-1]:
        worker["url"] = f"http://{worker['name']}:8081/"
    place.publish()
    place.report_all()
    assert place.publish() is not None
    return place


def lines_of(place: Place, name: str) -> dict[str, dict]:
    data = (place.fleet / "lists" / f"{place.pointer()['lists'][name]['sha256']}.jsonl.gz").read_bytes()
    return {want["id"]: want["files"]["a"] for want in map(json.loads, gzip.decompress(data).splitlines()[:-1])}


def test_only_copies_that_are_to_come_name_those_that_have_confirmed_them(place: Place) -> None:
    before = {worker["name"]: lines_of(place, worker["name"]) for worker in place.workers}
    assert all(file["url"].startswith("http://h/") for lines in before.values() for file in lines.values())
    place.workers.pop(0)  # it is lost
    place.publish()
    holders = {route["id"]: route["workers"] for route in place.routes()}
    named = 0
    for worker in place.workers:
        for chunk_id, file in lines_of(place, worker["name"]).items():
            if chunk_id in before[worker["name"]]:
                assert file == before[worker["name"]][chunk_id]
                continue
            *peers, lake = [file["url"], *(file.get("mirrors") or ())]
            assert lake.startswith("http://h/")
            serving = {f"http://{name}:8081" for name in holders[chunk_id] if name != "w5"}
            assert {peer.partition("/chunks/")[0] for peer in peers} == serving
            named += bool(peers)
    assert named > 50


def test_lists_rest_while_their_peers_have_the_chunks_and_are_written_anew_where_none_has(place: Place) -> None:
    place.report("w1", missing=(lost := place.ids("w1")))
    assert place.read().publish(place) is not None  # it has lost its disk: now its list names peers
    named = lines_of(place, "w1")
    assert all("mirrors" in file for file in named.values())
    digest = place.pointer()["lists"]["w1"]["sha256"]
    place.report("w1", missing=lost[3:])
    place.publish()
    assert place.pointer()["lists"]["w1"]["sha256"] == digest  # three are there: that changes nothing
    place.report("w1")
    place.publish()
    assert place.pointer()["lists"]["w1"]["sha256"] == digest  # nor does it when all are
    for name in ("w0", "w2", "w3", "w4"):
        place.report(name, missing=place.ids(name))
    place.report("w1", missing=lost)
    place.publish()  # nobody but one that serves nothing has any
    assert place.pointer()["lists"]["w1"]["sha256"] == digest
