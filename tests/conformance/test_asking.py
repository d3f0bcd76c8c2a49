"""want, register and delete: which markers stand afterwards, and in which order they come and go."""

import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from tests.conformance.clients import Client
from tests.conformance.gate import LINKS, RENAMES, UNLINKS
from tests.support import PATIENCE_S, Source, can_lock, eventually
from tests.support.chunks import a_want, an_id, entries, put_known, put_want, touch_delete

KINDS = ["want", "known", "delete"]
OVERRULED = {"want": ["delete"], "known": ["delete", "want"], "delete": ["want", "known"]}


def markers(data_dir: Path) -> dict[str, list[str]]:
    """List all entries of want/, known/ and delete/, dotfiles too; those that are empty are left out."""
    found = {kind: sorted(os.listdir(data_dir / kind)) for kind in KINDS}
    return {kind: names for kind, names in found.items() if names}


def place(client: Client, kind: str, chunk: DataChunk) -> None:
    """Have the client place a marker."""
    match kind:
        case "want":
            client.want(chunk.to_json())
        case "known":
            client.register(chunk.to_json())
        case _:
            client.delete(chunk.id)


def put(data_dir: Path, kind: str, chunk: DataChunk) -> None:
    """Place a marker as `cp` does it."""
    (data_dir / kind / chunk.id).write_bytes(b"" if kind == "delete" else chunk.to_json())


def a_document(chunk: DataChunk, **more: object) -> bytes:
    return json.dumps({**json.loads(chunk.to_json()), **more}, indent=2).encode()


@pytest.mark.parametrize(("verb", "kind"), [("want", "want"), ("register", "known")])
def test_document_stands_under_the_id_that_it_names(
    client: Client, data_dir: Path, tmp_path: Path, verb: str, kind: str
) -> None:
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
    assert client.run(verb, file).returncode == 0
    assert client.run(verb, "-", stdin=a_document(two, **decoys)).returncode == 0
    assert markers(data_dir) == {kind: sorted([one.id, two.id])}
    for chunk in (one, two):
        placed = json.loads((data_dir / kind / chunk.id).read_bytes())
        placed.setdefault("id", chunk.id)
        assert placed.keys() == json.loads(a_document(chunk, **decoys)).keys()
        assert (placed["dataset_id"], placed["a"]) == (chunk.dataset_id, decoys["a"])
        assert placed["files"].keys() == decoys["files"].keys()


def test_want_of_almost_1_mib_is_taken(client: Client, data_dir: Path) -> None:
    text = {"more": "\n\\" * 150_000, "deep": [[[{"id": []}]]], **json.loads(a_want().to_json())}
    document = json.dumps(text | {"rest": "x" * 440_000}).encode()
    assert (1 << 20) - 10_000 < len(document) < 1 << 20
    client.want(document)
    assert markers(data_dir) == {"want": [text["id"]]}


def test_what_is_wanted_comes_and_what_is_deleted_goes(client: Client, data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(data_dir) as dm:
        client.want(chunk.to_json())
        assert dm.wait(chunk.id, PATIENCE_S)
        assert client.list() == [chunk.id]
        client.delete(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        assert client.list() == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_intent_removes_what_it_overrules(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    for other in KINDS:
        put(data_dir, other, chunk)
    place(client, kind, chunk)
    assert markers(data_dir) == {other: [chunk.id] for other in KINDS if other not in OVERRULED[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_asking_again_makes_it_the_later_intent(client: Client, data_dir: Path, tmp_path: Path, kind: str) -> None:
    chunk = a_want()
    marker = data_dir / kind / chunk.id
    marker.write_bytes(b"")
    before, clock = marker.lstat(), tmp_path / "clock"
    clock.touch()
    eventually(lambda: os.utime(clock) or clock.stat().st_ctime_ns > before.st_ctime_ns, "a tick of the kernel's clock")
    place(client, kind, chunk)
    after = marker.lstat()
    assert after.st_ctime_ns > before.st_ctime_ns
    assert (after.st_ino, after.st_mtime_ns, after.st_size) != (before.st_ino, before.st_mtime_ns, before.st_size)


@pytest.mark.parametrize("kind", KINDS)
def test_marker_can_be_read_by_a_reconciler_that_is_another_user(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    place(client, kind, chunk)
    assert stat.S_IMODE((data_dir / kind / chunk.id).stat().st_mode) & 0o044 == 0o044


def test_exclusive_registration_is_refused_where_one_stands(client: Client, data_dir: Path) -> None:
    chunk, other = a_want(), a_want(block_range=(10, 20))
    other = other.model_copy(update={"id": chunk.id})
    words = ["register", "--exclusive", "-"]
    touch_delete(data_dir, chunk.id)
    assert client.run(*words, stdin=chunk.to_json()).returncode == 0
    assert markers(data_dir) == {"known": [chunk.id]}
    text = (data_dir / "known" / chunk.id).read_bytes()
    for kind in ("want", "delete"):
        put(data_dir, kind, chunk)
    done = client.run(*words, stdin=other.to_json())
    assert done.returncode == 1
    assert done.stderr
    assert markers(data_dir) == {kind: [chunk.id] for kind in KINDS}, "something was overruled"
    assert (data_dir / "known" / chunk.id).read_bytes() == text
    client.register(other.to_json())
    assert (data_dir / "known" / chunk.id).read_bytes() != text


def test_registration_that_comes_at_the_last_moment_is_not_overwritten(
    client: Client, data_dir: Path, tmp_path: Path
) -> None:
    chunk, document, others = a_want(), tmp_path / "chunk.json", 0
    document.write_bytes(chunk.to_json())
    marker = data_dir / "known" / chunk.id
    with client.gated((*LINKS, *RENAMES), "register", "--exclusive", document) as gated:
        for stop in gated.stops():
            if stop.path == str(marker) and not marker.exists():
                marker.write_bytes(b"another one's")
                others += 1
        assert gated.result()[0] == 1
    assert others
    assert marker.read_bytes() == b"another one's"
    assert markers(data_dir) == {"known": [chunk.id]}


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
    assert client.run("register", "-", stdin=documents[1]).returncode == 2
    for words in (["want", tmp_path / "nowhere"], ["register", "--exclusive", tmp_path / "nowhere"]):
        assert client.run(*words).returncode == 2
    for name in ("", "../want/" + "a" * 56, "A" * 64, "a" * 64 + "\n"):
        assert client.run("delete", name).returncode == 2, name
    assert markers(data_dir) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_directory_in_the_way_ends_with_6_and_changes_nothing(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    (data_dir / kind / chunk.id).mkdir()
    for other in OVERRULED[kind]:
        put(data_dir, other, chunk)
    words = {"want": ["want", "-"], "known": ["register", "-"], "delete": ["delete", chunk.id]}[kind]
    done = client.run(*words, stdin=b"" if kind == "delete" else chunk.to_json())
    assert done.returncode == 6
    assert done.stderr
    assert markers(data_dir) == {other: [chunk.id] for other in [kind, *OVERRULED[kind]]}
    assert os.listdir(data_dir / kind / chunk.id) == []


@pytest.mark.parametrize("kind", KINDS)
def test_opposite_that_is_a_directory_is_left_alone(client: Client, data_dir: Path, kind: str) -> None:
    chunk = a_want()
    for other in OVERRULED[kind]:
        (data_dir / other / chunk.id).mkdir()
    place(client, kind, chunk)
    assert markers(data_dir) == {other: [chunk.id] for other in [kind, *OVERRULED[kind]]}


def test_holder_of_the_lock_of_intents_keeps_no_client_from_asking(client: Client, data_dir: Path) -> None:
    one, two = a_want(), an_id()
    fd = os.open(data_dir / "want", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        client.want(one.to_json())
        client.delete(two)
    finally:
        os.close(fd)
    assert markers(data_dir) == {"want": [one.id], "delete": [two]}


@pytest.mark.parametrize("before", [None, b"an older one"])
@pytest.mark.parametrize(("verb", "kind"), [("want", "want"), ("register", "known")])
def test_document_appears_whole_under_the_lock_before_the_others_go(
    client: Client, data_dir: Path, tmp_path: Path, verb: str, kind: str, before: bytes | None
) -> None:
    chunk = a_want()
    document = tmp_path / "document.json"
    document.write_bytes(chunk.to_json())
    marker, opposites = data_dir / kind / chunk.id, [data_dir / other / chunk.id for other in OVERRULED[kind]]
    for other in OVERRULED[kind]:
        put(data_dir, other, chunk)
    if before is not None:
        marker.write_bytes(before)
    renamed, removed = 0, set()
    with client.gated((*RENAMES, *UNLINKS), verb, document) as gated:
        for stop in gated.stops():
            if stop.renames and stop.path == str(marker):
                renamed += 1
                assert (marker.read_bytes() if marker.exists() else None) == before, "written in place"
                assert entries(data_dir / kind) == [chunk.id] * marker.exists()
                assert all(opposite.exists() for opposite in opposites), "neither marker stands"
                assert not can_lock(str(data_dir / "want")), "without the lock of intents"
            if stop.unlinks and Path(stop.path) in opposites:
                removed.add(Path(stop.path))
                assert marker.exists(), "neither marker stands"
                assert marker.read_bytes() != before
                assert not can_lock(str(data_dir / "want")), "without the lock of intents"
        assert gated.result()[0] == 0
    assert renamed
    assert removed == set(opposites)
    assert markers(data_dir) == {kind: [chunk.id]}


def test_delete_stands_before_the_others_go_under_the_lock_of_intents(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)
    put_known(data_dir, chunk)
    removed = set()
    with client.gated(UNLINKS, "delete", chunk.id) as gated:
        for stop in gated.stops():
            if stop.path in {str(data_dir / "want" / chunk.id), str(data_dir / "known" / chunk.id)}:
                removed.add(stop.path)
                assert entries(data_dir / "delete") == [chunk.id], "neither marker stands"
                assert not can_lock(str(data_dir / "want")), "without the lock of intents"
        assert gated.result()[0] == 0
    assert len(removed) == 2
    assert markers(data_dir) == {"delete": [chunk.id]}


def test_client_that_is_killed_between_its_steps_leaves_an_intent(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)
    with client.gated(UNLINKS, "delete", chunk.id) as gated:
        for stop in gated.stops():
            if stop.path == str(data_dir / "want" / chunk.id):
                break
    assert markers(data_dir) == {"want": [chunk.id], "delete": [chunk.id]}
    eventually(lambda: can_lock(str(data_dir / "want")), "its children have ended, too")
