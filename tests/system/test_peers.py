"""Copies from peers: a node's chunks served by the examples of `tools/service`, and a node that is lost made good."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fsdm import DataChunk, DataManager
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


def test_lost_node_is_made_good_from_its_peers_and_digests_decide(
    peer: RealServer, layout: Layout, source: Source, tmp_path: Path
) -> None:
    """The list names the peer first, and the lake as the mirror. One of twenty copies of the peer is damaged."""
    places = [put_chunk(layout, start=n, end=n + 1) for n in range(CHUNKS)]
    Path(layout.path(places[0]), "data", NAME).write_bytes(b"x" * 100)
    chunks = []
    for place in places:
        data = content(place.chunk_id, 100)
        lake = source.put(f"/lake/{place.chunk_id}", data)
        file = {"url": peer.url + path_of(place), "mirrors": [lake], "sha256": hashlib.sha256(data).hexdigest()}
        chunks.append(
            DataChunk(id=place.chunk_id, dataset_id=place.dataset_id, block_range=place.block_range, files={NAME: file})
        )
    text = b"".join(chunk.to_json() for chunk in chunks) + b'{"end": %d}\n' % CHUNKS
    follow = Follow(url=source.put("/list", text))
    with DataManager(tmp_path / "lost") as dm:
        FollowLock(dm.layout).close()
        Follower(dm.layout, follow, Fetching(), share=0.25).look()
        dm.wait_converged(PATIENCE_S)
        assert sorted(dm.list_chunks()) == sorted(place.chunk_id for place in places)
        for place in places:
            assert Path(dm.layout.path(place), "data", NAME).read_bytes() == content(place.chunk_id, 100)
    assert {path: asked for path, asked in source.asked.items() if path.startswith("/lake/")} == {
        f"/lake/{places[0].chunk_id}": 1
    }
