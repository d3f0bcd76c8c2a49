"""want and delete: which markers stand afterwards, and in which order they come and go."""

import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from tests.conformance.clients import Client
from tests.conformance.gate import RENAMES, UNLINKS
from tests.support import PATIENCE_S, Source, can_lock, eventually
from tests.support.chunks import a_want, an_id, entries, put_want, touch_delete


def markers(data_dir: Path) -> tuple[list[str], list[str]]:
    """List all entries of want/ and delete/, dotfiles too."""
    return sorted(os.listdir(data_dir / "want")), sorted(os.listdir(data_dir / "delete"))


def a_document(chunk: DataChunk, **more: object) -> bytes:
    return json.dumps({**json.loads(chunk.to_json()), **more}, indent=2).encode()


def test_want_stands_under_the_id_that_its_document_names(client: Client, data_dir: Path, tmp_path: Path) -> None:
    one, two = a_want(), a_want()
    decoys = {
        "a": {"id": an_id()},
        "b": [{"id": an_id()}, "id"],
        'c\\"id': "id",
        "files": {"id": "http://host/x", "ü": "http://host/{y"},
        "z": "id",
    }
    file = tmp_path / "want *.json"
    file.write_bytes(a_document(one, **decoys))
    assert client.run("want", file).returncode == 0
    client.want(a_document(two, **decoys))
    assert markers(data_dir) == (sorted([one.id, two.id]), [])
    for chunk in (one, two):
        placed = json.loads((data_dir / "want" / chunk.id).read_bytes())
        placed.setdefault("id", chunk.id)
        assert placed.keys() == json.loads(a_document(chunk, **decoys)).keys()
        assert (placed["dataset_id"], placed["a"]) == (chunk.dataset_id, decoys["a"])
        assert placed["files"].keys() == decoys["files"].keys()


def test_want_of_almost_1_mib_is_taken(client: Client, data_dir: Path) -> None:
    text = {"more": "\n\\" * 150_000, "deep": [[[{"id": []}]]], **json.loads(a_want().to_json())}
    document = json.dumps(text | {"rest": "x" * 440_000}).encode()
    assert (1 << 20) - 10_000 < len(document) < 1 << 20
    client.want(document)
    assert markers(data_dir) == ([text["id"]], [])


def test_what_is_wanted_comes_and_what_is_deleted_goes(client: Client, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(data_dir) as dm:
        client.want(chunk.to_json())
        assert dm.wait(chunk.id, PATIENCE_S)
        assert client.list() == [chunk.id]
        client.delete(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        assert client.list() == []


def test_each_intent_removes_its_opposite(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    client.want(chunk.to_json())
    client.delete(chunk.id)
    assert markers(data_dir) == ([], [chunk.id])
    client.want(chunk.to_json())
    assert markers(data_dir) == ([chunk.id], [])


@pytest.mark.parametrize("kind", ["want", "delete"])
def test_asking_again_makes_it_the_later_intent(client: Client, data_dir: Path, tmp_path: Path, kind: str) -> None:
    chunk = a_want()
    marker = data_dir / kind / chunk.id
    marker.write_bytes(b"")
    before, clock = marker.lstat(), tmp_path / "clock"
    clock.touch()
    eventually(lambda: os.utime(clock) or clock.stat().st_ctime_ns > before.st_ctime_ns, "a tick of the kernel's clock")
    client.want(chunk.to_json()) if kind == "want" else client.delete(chunk.id)
    after = marker.lstat()
    assert after.st_ctime_ns > before.st_ctime_ns
    assert (after.st_ino, after.st_mtime_ns, after.st_size) != (before.st_ino, before.st_mtime_ns, before.st_size)


@pytest.mark.parametrize("kind", ["want", "delete"])
def test_marker_can_be_read_by_a_reconciler_that_is_another_user(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    client.want(chunk.to_json()) if kind == "want" else client.delete(chunk.id)
    assert stat.S_IMODE((data_dir / kind / chunk.id).stat().st_mode) & 0o044 == 0o044


def test_what_cannot_be_taken_ends_with_2_and_changes_nothing(client: Client, data_dir: Path, tmp_path: Path) -> None:
    nameless = {key: value for key, value in json.loads(a_want().to_json()).items() if key != "id"}
    documents = [
        b"",
        b'{"id": 5}',
        json.dumps(nameless).encode(),
        a_document(a_want(), id="../" + "a" * 61),
        a_document(a_want(), more="x" * (1 << 20)),
    ]
    for document in documents:
        assert client.run("want", "-", stdin=document).returncode == 2, document[:200]
    assert client.run("want", tmp_path / "nowhere").returncode == 2
    for name in ("", "../want/" + "a" * 56, "A" * 64, "a" * 64 + "\n"):
        assert client.run("delete", name).returncode == 2, name
    assert markers(data_dir) == ([], [])


@pytest.mark.parametrize("kind", ["want", "delete"])
def test_directory_in_the_way_ends_with_6_and_changes_nothing(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    other = "delete" if kind == "want" else "want"
    (data_dir / kind / chunk.id).mkdir()
    (data_dir / other / chunk.id).write_bytes(chunk.to_json())
    words = ["want", "-"] if kind == "want" else ["delete", chunk.id]
    done = client.run(*words, stdin=chunk.to_json() if kind == "want" else b"")
    assert done.returncode == 6
    assert done.stderr
    assert markers(data_dir) == ([chunk.id], [chunk.id])
    assert os.listdir(data_dir / kind / chunk.id) == []


@pytest.mark.parametrize("kind", ["want", "delete"])
def test_opposite_that_is_a_directory_is_left_alone(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    (data_dir / ("delete" if kind == "want" else "want") / chunk.id).mkdir()
    client.want(chunk.to_json()) if kind == "want" else client.delete(chunk.id)
    assert markers(data_dir) == ([chunk.id], [chunk.id])


def test_holder_of_the_lock_of_intents_keeps_no_client_from_asking(client: Client, data_dir: Path) -> None:
    one, two = a_want(), an_id()
    fd = os.open(data_dir / "want", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        client.want(one.to_json())
        client.delete(two)
    finally:
        os.close(fd)
    assert markers(data_dir) == ([one.id], [two])


@pytest.mark.parametrize("before", [None, b"an older want"])
def test_want_appears_whole_under_the_lock_before_the_delete_goes(
    client: Client, data_dir: Path, tmp_path: Path, before: bytes | None
) -> None:
    chunk = a_want()
    document = tmp_path / "want.json"
    document.write_bytes(chunk.to_json())
    marker, opposite = data_dir / "want" / chunk.id, data_dir / "delete" / chunk.id
    touch_delete(data_dir, chunk.id)
    if before is not None:
        marker.write_bytes(before)
    renamed = removed = 0
    with client.gated((*RENAMES, *UNLINKS), "want", document) as gated:
        for stop in gated.stops():
            if stop.renames and stop.path == str(marker):
                renamed += 1
                assert (marker.read_bytes() if marker.exists() else None) == before, "written in place"
                assert entries(data_dir / "want") == [chunk.id] * marker.exists()
                assert opposite.exists(), "neither marker stands"
                assert not can_lock(str(data_dir / "want")), "without the lock of intents"
            if stop.unlinks and stop.path == str(opposite):
                removed += 1
                assert marker.exists(), "neither marker stands"
                assert marker.read_bytes() != before
                assert not can_lock(str(data_dir / "want")), "without the lock of intents"
        assert gated.result()[0] == 0
    assert renamed
    assert removed
    assert markers(data_dir) == ([chunk.id], [])


def test_delete_stands_before_the_want_goes_under_the_lock_of_intents(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)
    removed = 0
    with client.gated(UNLINKS, "delete", chunk.id) as gated:
        for stop in gated.stops():
            if stop.path == str(data_dir / "want" / chunk.id):
                removed += 1
                assert entries(data_dir / "delete") == [chunk.id], "neither marker stands"
                assert not can_lock(str(data_dir / "want")), "without the lock of intents"
        assert gated.result()[0] == 0
    assert removed
    assert markers(data_dir) == ([], [chunk.id])


def test_client_that_is_killed_between_its_steps_leaves_an_intent(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)
    with client.gated(UNLINKS, "delete", chunk.id) as gated:
        for stop in gated.stops():
            if stop.path == str(data_dir / "want" / chunk.id):
                break
    assert markers(data_dir) == ([chunk.id], [chunk.id])
    eventually(lambda: can_lock(str(data_dir / "want")), "its children have ended, too")
