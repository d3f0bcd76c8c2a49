"""Copies from peers: a node's chunks served by the examples of `tools/service`, and a node that is lost made good."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fsdm import DataChunk, DataManager
from fsdm.fleet.placing import Bounds
from fsdm.fleet.publishing import POINTER
from fsdm.fleet.report import Report
from fsdm.fleet.round import Options, Round
from fsdm.fleet.shelf import Directory
from fsdm.lists.assignment import read_assignment
from fsdm.lists.fetching import Fetching
from fsdm.lists.following import Follower
from fsdm.lists.last import FollowLock
from fsdm.model.follow import Follow
from fsdm.model.layout import Layout, Place
from tests.support import PATIENCE_S, Source
from tests.support.chunks import content, put_chunk
from tests.support.real_servers import PEERS, RealServer, real_server

NAME = "blocks.parquet"
CHUNKS = 20


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path: Path, layout: Layout) -> Iterator[RealServer]:
    """A web server in front of the data directory of a node."""
    etc = tmp_path / "etc"
    etc.mkdir()
    with real_server(PEERS[request.param], etc, Path(layout.root), etc) as server:
        yield server


def path_of(place: Place, name: str = f"data/{NAME}") -> str:
    return f"/chunks/{place.dataset_id}/{place.name}/{name}"


def test_only_files_of_complete_chunks_are_served(peer: RealServer, layout: Layout) -> None:
    place = put_chunk(layout)
    url = peer.url + path_of(place)
    found = requests.get(url, timeout=PATIENCE_S)
    assert (found.status_code, found.content) == (200, content(place.chunk_id, 100))
    part = requests.get(url, headers={"Range": "bytes=10-19", "If-Range": found.headers["ETag"]}, timeout=PATIENCE_S)
    assert (part.status_code, part.content) == (206, found.content[10:20])
    Path(layout.config).write_text("")
    Path(layout.path(place), "WANT").write_text("{}")
    Path(layout.want_marker(place.chunk_id)).write_text("{}")
    for other in (
        *("/", "/config.toml", f"/want/{place.chunk_id}", "/chunks/", f"/chunks/{place.dataset_id}/"),
        *(path_of(place, name) for name in ("", "READY", "WANT", "data", "data/", "data/other", "index/x")),
        path_of(place, "data/%2e%2e/WANT"),
        path_of(place, "data/..%2fWANT"),
    ):
        assert requests.get(peer.url + other, timeout=PATIENCE_S).status_code in {400, 404}, other
    for method in ("PUT", "POST", "DELETE"):
        assert requests.request(method, url, data=b"x", timeout=PATIENCE_S).status_code >= 400
    os.unlink(f"{layout.path(place)}/READY")
    assert requests.get(url, timeout=PATIENCE_S).status_code == 404


def placed(path: Path, url: str, chunks: list[DataChunk]) -> str:
    """Place two copies of each on a node that has them all, and on one that has lost them; where that is published."""
    (path / "chunks.jsonl").write_bytes(b"".join(chunk.to_json() for chunk in chunks))
    nodes = [{"name": "peer", "capacity": "1G", "url": url}, {"name": "lost", "capacity": "1G"}]
    (path / "nodes.jsonl").write_text("".join(json.dumps(node) + "\n" for node in nodes))
    how = Options(bounds=Bounds(), otherwise=2)
    wants, now = how.wants(), 1000.0
    report = Report(at=now, extra=[chunk.id for chunk in chunks]).to_json()
    with read_assignment(str(path / "chunks.jsonl"), each=wants.add) as assignment:
        to = Directory(str(path / "fleet"))
        Round.read(wants, str(path / "nodes.jsonl"), {"peer.json": report}, to, how, now).publish(assignment)
    return str(path / "fleet" / POINTER)


def test_lost_node_is_made_good_from_its_peers_and_digests_decide(
    peer: RealServer, layout: Layout, source: Source, tmp_path: Path
) -> None:
    """The list that is placed names the peer first, then the lake. One of twenty copies of the peer is damaged."""
    places = [put_chunk(layout, start=n, end=n + 1) for n in range(CHUNKS)]
    Path(layout.path(places[0]), "data", NAME).write_bytes(b"x" * 100)
    chunks = []
    for place in places:
        data = content(place.chunk_id, 100)
        lake = source.put(f"/lake/{place.chunk_id}", data)
        file = {"url": lake, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        chunks.append(
            DataChunk(id=place.chunk_id, dataset_id=place.dataset_id, block_range=place.block_range, files={NAME: file})
        )
    follow = Follow(url=placed(tmp_path, peer.url, chunks))
    with DataManager(tmp_path / "lost") as dm:
        FollowLock(dm.layout).close()
        Follower(dm.layout, follow, Fetching(), share=0.25, node="lost").look()
        dm.wait_converged(PATIENCE_S)
        assert sorted(dm.list_chunks()) == sorted(place.chunk_id for place in places)
        for place in places:
            assert Path(dm.layout.path(place), "data", NAME).read_bytes() == content(place.chunk_id, 100)
    assert {path: asked for path, asked in source.asked.items() if path.startswith("/lake/")} == {
        f"/lake/{places[0].chunk_id}": 1
    }
