"""A list that is followed: the newest is applied, what else comes changes nothing, and nothing new costs nothing."""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataChunk
from fsdm.lists import difference, following
from fsdm.lists.fetching import Fetching, Version
from fsdm.lists.following import Follower
from fsdm.lists.last import FollowLock
from fsdm.model.errors import ReconcilerRunsError, StoppedError
from fsdm.model.follow import Follow
from fsdm.model.layout import READY, RELEASE, Layout
from fsdm.reconcile.delete_brake import MANY_BYTES
from fsdm.status.followed_text import followed_words
from fsdm.store.followed import Followed, read_followed
from fsdm.store.markers import place_delete, place_want, place_want_text, release_deletes
from tests.support import Source, fsdm
from tests.support.chunks import a_want, an_id, markers, of_place, put_chunk
from tests.support.waiting import next_tick


def text_of(*chunks: DataChunk) -> bytes:
    return b"".join(chunk.to_json() for chunk in chunks)


class Node:
    """A data directory that follows `/list` of a source, a look at a time."""

    def __init__(self, layout: Layout, source: Source) -> None:
        self.layout, self.source = layout, source
        self.follow = Follow(url=f"{source.url}/list")
        self.share: float | None = 0.25
        self.follower = self.again()

    def again(self) -> Follower:
        """A new process takes over."""
        FollowLock(self.layout).close()
        self.follower = Follower(self.layout, self.follow, Fetching(), share=self.share, spread=lambda: 1.0)
        return self.follower

    def serve(self, *chunks: DataChunk, end: bool = False) -> str:
        text = text_of(*chunks) + (b'{"end": %d}\n' % len(chunks) if end else b"")
        self.source.put("/list", text)
        return hashlib.sha256(text).hexdigest()

    def look(self, *, anew: bool = False) -> Followed:
        """Look once; what any process can read of it."""
        self.follower.look(anew=anew)
        found = read_followed(self.layout)
        assert found is not None
        return found

    @property
    def markers(self) -> tuple[list[str], list[str]]:
        wants, deletes = markers(self.layout)
        return wants, [one for one in deletes if one != RELEASE]

    def clear(self) -> None:
        """Carry the markers out, as far as a look can tell: they go."""
        for directory in (self.layout.want, self.layout.delete):
            for name in os.listdir(directory):
                os.unlink(f"{directory}/{name}")


@pytest.fixture
def node(layout: Layout, source: Source) -> Node:
    return Node(layout, source)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[object]]:
    calls, real = list[object](), getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *args, **kw: calls.append(args) or real(*args, **kw))
        yield calls


def test_list_that_changes_is_applied_and_its_digest_is_told(node: Node) -> None:
    first, second = a_want(), a_want()
    sha256 = node.serve(first)
    seen = node.look()
    assert node.markers == ([first.id], [])
    assert (seen.applied, seen.chunks, seen.error, seen.held_back) == (sha256, 1, "", "")
    sha256 = node.serve(first, second)
    assert node.look().applied == sha256
    assert node.markers == (sorted([first.id, second.id]), [])


def test_list_that_is_not_new_costs_an_answer_without_a_body(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.serve(a_want())
    node.look()
    with counting(monkeypatch, following, "Comparison") as compared:
        for follower in (node.follower, node.again()):  # also after a restart
            follower.look()
    assert compared == []
    assert [head.get("If-None-Match") for head in node.source.heads["/list"]][1:] == [
        node.follower.last.version.etag
    ] * 2


def test_same_bytes_under_another_tag_cost_a_digest(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.serve(a_want())
    node.look()
    node.source.fault("/list", headers={"ETag": '"other"'})
    with counting(monkeypatch, following, "Comparison") as compared:
        assert node.look().error == ""
    assert compared == []
    assert node.follower.last.version.etag == '"other"'


def test_only_lines_that_changed_are_parsed_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [of_place(put_chunk(node.layout, start=n, end=n + 1)) for n in range(20)]
    next_tick(node.layout.root)
    node.serve(*chunks)
    node.look()
    assert node.markers == ([], [])
    new = a_want()
    node.serve(*chunks, new)
    with counting(monkeypatch, DataChunk, "parse") as parsed:
        node.look()
    assert node.markers == ([new.id], [])
    assert len(parsed) == 1  # as it is read; as it is wanted it stands as it is


@pytest.mark.parametrize("status", [404, 403, 500])
def test_list_that_is_not_given_keeps_everything(node: Node, status: int) -> None:
    chunk = of_place(put_chunk(node.layout))
    sha256 = node.serve(chunk)
    node.look()
    node.source.fault("/list", status=status)
    seen = node.look()
    assert (seen.applied, f"HTTP {status}" in seen.error, node.markers) == (sha256, True, ([], []))
    node.source.faults.clear()
    assert node.look().error == ""


@pytest.mark.parametrize(
    ("text", "error"),
    [(b"", "the list is empty"), (b"\n\n", "the list is empty"), (b'{"id": "', "list:1: "), (b"<html>", "list:1: ")],
)
def test_what_is_no_list_keeps_everything(node: Node, text: bytes, error: str) -> None:
    chunk = of_place(put_chunk(node.layout))
    sha256 = node.serve(chunk)
    node.look()
    node.source.put("/list", text)
    seen = node.look()
    assert (seen.applied, error in seen.error, node.markers) == (sha256, True, ([], []))
    assert os.listdir(node.layout.follow).count("LIST") == 1


def test_list_that_is_applied_is_told_with_where_it_came_from_though_another_is_asked_for(node: Node) -> None:
    node.serve(a_want())
    assert node.look().applied_url == node.follow.url
    first, node.follow = node.follow.url, Follow(url=f"{node.source.url}/mistyped")
    node.again()
    seen = node.look()
    assert (seen.url, seen.applied_url, "404" in seen.error) == (node.follow.url, first, True)
    assert any(f" of {first} is applied: 1 chunk" in said for said in followed_words(seen, 0.0))
    node.source.put("/mistyped", node.source.files["/list"])
    assert node.look().applied_url == node.follow.url


def test_half_a_transfer_keeps_everything(node: Node) -> None:
    chunks = [of_place(put_chunk(node.layout, start=n, end=n + 1)) for n in range(2)]
    sha256 = node.serve(*chunks)
    node.look()
    node.serve(chunks[0])
    node.source.fault("/list", cut_at=len(chunks[0].to_json()) // 2)
    seen = node.look()
    assert (seen.applied, bool(seen.error), node.markers) == (sha256, True, ([], []))


@pytest.mark.parametrize("step", ["place_want_text", "place_delete"])
def test_who_is_stopped_while_a_list_is_applied_leaves_whole_markers_and_the_next_one_goes_on(
    node: Node, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, chunks = [put_chunk(node.layout, start=n, end=n + 1) for n in range(3)], [a_want() for _ in range(3)]
    node.share = None
    node.again()
    node.serve(*chunks)
    real, stops = getattr(difference, step), []

    def stopping(layout: Layout, chunk_id: str, *more: bytes) -> None:
        real(layout, chunk_id, *more)
        stops.append(node.follower.stop())

    monkeypatch.setattr(difference, step, stopping)
    with pytest.raises(StoppedError):
        node.follower.look()
    assert stops == [True], "one marker more, and it has ended"
    assert len(node.markers[step == "place_delete"]) == 1
    monkeypatch.undo()
    assert node.follower.stop() is False
    node.again().look()
    assert node.markers == (sorted(one.id for one in chunks), sorted(one.chunk_id for one in gone))


def test_a_line_is_the_last_one_that_is_read_once_it_is_stopped(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.serve(a_want(), a_want())
    read: list[object] = []
    monkeypatch.setattr(difference.Comparison, "take", lambda _, chunk: read.append(node.follower.stop()))
    with pytest.raises(StoppedError):
        node.follower.look()
    assert read == [True]


def test_retry_after_is_kept_to(node: Node) -> None:
    node.serve(a_want())
    node.source.fault("/list", status=503, headers={"Retry-After": "300"})
    assert node.follower.look() == 300.0
    node.source.faults.clear()
    assert node.again().look() == 60.0


def test_too_much_is_held_back_as_a_whole_until_it_is_released(node: Node) -> None:
    chunks = [of_place(put_chunk(node.layout, start=n, end=n + 1)) for n in range(8)]
    sha256 = node.serve(*chunks)
    node.look()
    new = a_want()
    newer = node.serve(*chunks[3:], new)
    for _ in range(2):  # the second answer is 304
        seen = node.look()
        assert (seen.applied, seen.held_sha256, node.markers) == (sha256, newer, ([], []))
        assert "3 of the 8 chunks that are here would go" in seen.held_back
        node.again()
    next_tick(node.layout.root)
    release_deletes(node.layout)
    seen = node.look()
    assert (seen.applied, seen.held_back) == (newer, "")
    assert node.markers == ([new.id], sorted(chunk.id for chunk in chunks[:3]))


def test_release_of_before_releases_no_list(node: Node) -> None:
    release_deletes(node.layout)
    next_tick(node.layout.root)
    chunks = [of_place(put_chunk(node.layout, start=n, end=n + 1)) for n in range(8)]
    node.serve(chunks[0])
    assert node.look().held_back
    assert node.look().held_back


def test_list_that_is_mended_ends_what_was_held_back(node: Node) -> None:
    chunks = [of_place(put_chunk(node.layout, start=n, end=n + 1)) for n in range(8)]
    sha256 = node.serve(*chunks)
    node.look()
    node.serve(chunks[0])
    node.look()
    assert fsdm("release", "-d", node.layout.root).stderr.startswith("fsdm: list ")
    os.unlink(node.layout.release)
    node.serve(*chunks)
    seen = node.look()
    assert (seen.applied, seen.held_back, node.markers) == (sha256, "", ([], []))
    assert "HELD" not in os.listdir(node.layout.follow)


def test_list_of_none_that_says_so_is_held_back_where_chunks_would_go(node: Node) -> None:
    node.serve(end=True)
    assert (node.look().chunks, node.look().held_back) == (0, "")
    put_chunk(node.layout)
    node.serve(a_want())
    node.look()
    node.clear()
    node.serve(end=True)
    put_chunk(node.layout, start=3, end=4)
    assert "it is empty, and 2 chunks would go" in node.look().held_back


@pytest.mark.parametrize(("size", "is_held"), [(100, False), (MANY_BYTES, True)])
def test_one_chunk_is_no_burst_unless_it_is_large(node: Node, size: int, is_held: bool) -> None:
    there = [put_chunk(node.layout, start=n, end=n + 1) for n in range(2)]
    ready = Path(node.layout.path(there[0]), READY)
    ready.write_text(ready.read_text().replace('"size":100', f'"size":{size}'))
    node.serve(of_place(there[1]))
    assert bool(node.look().held_back) == is_held


def test_hand_made_intents_stand_until_the_list_changes_and_then_it_is_the_truth(node: Node) -> None:
    listed, unlisted = of_place(put_chunk(node.layout)), a_want()
    node.serve(listed)
    node.look()
    place_delete(node.layout, listed.id)
    place_want(node.layout, unlisted)
    node.look()
    assert node.markers == ([unlisted.id], [listed.id])
    new = a_want()
    node.serve(listed, new)
    node.look()
    assert node.markers == (sorted([listed.id, new.id]), [unlisted.id])


@pytest.mark.parametrize("line", ["same", "changed"])
def test_chunk_that_was_replaced_by_hand_is_wanted_again_once_the_list_changes(node: Node, line: str) -> None:
    """The line has not changed since it was compared: READY has."""
    there = put_chunk(node.layout)
    next_tick(node.layout.root)
    listed = of_place(there)
    node.serve(listed)
    node.look()
    ready = Path(node.layout.path(there), READY)
    ready.write_text(ready.read_text().replace('"size":100', '"size":101'))
    more = {} if line == "same" else {"note": "new"}
    node.serve(listed.model_copy(update=more), new := a_want())
    node.look()
    assert node.markers == (sorted([listed.id, new.id]), [])


def test_chunk_whose_want_was_withdrawn_by_hand_is_not_taken_for_what_is_listed(node: Node) -> None:
    """A READY of before the comparison did not satisfy the line then, either."""
    there = put_chunk(node.layout)
    next_tick(node.layout.root)
    listed = of_place(there, size=101)
    node.share = None
    node.again()
    node.serve(listed)
    node.look()
    os.unlink(node.layout.want_marker(listed.id))
    node.serve(listed, new := a_want())
    node.look()
    assert node.markers == (sorted([listed.id, new.id]), [])


def test_chunk_that_was_removed_from_the_disk_is_wanted_where_it_is_asked_anew(node: Node) -> None:
    listed = a_want()
    node.serve(listed)
    node.look()
    os.unlink(node.layout.want_marker(listed.id))
    node.look()
    assert node.markers == ([], [])
    node.look(anew=True)
    assert node.markers == ([listed.id], [])


@pytest.mark.parametrize("harm", ["other boot", "other fsdm", "LIST is another", "LIST is gone", "STATE is broken"])
def test_lines_are_not_believed_where_something_else_may_have_been_applied(node: Node, harm: str) -> None:
    listed = a_want()
    sha256 = node.serve(listed)
    node.look()
    os.unlink(node.layout.want_marker(listed.id))  # as a power failure may lose it
    state = Path(node.layout.follow, "STATE")
    if harm == "other boot":
        replace(node.follower.last, boot_id="other").write(node.layout)
    elif harm == "other fsdm":
        replace(node.follower.last, fsdm="0.0", version=Version()).write(node.layout)
    elif harm == "LIST is another":
        Path(node.layout.follow, "LIST").write_bytes(text_of(listed, a_want()))
        node.serve(listed, a_want())
    elif harm == "LIST is gone":
        os.unlink(Path(node.layout.follow, "LIST"))
        replace(node.follower.last, bytes_sha256="").write(node.layout)
    else:
        state.write_text("{")
    node.again()
    assert node.look().error == ""
    assert listed.id in node.markers[0]
    assert (node.look().applied == sha256) == (harm != "LIST is another")


class KilledError(Exception):
    """The process is gone at this point."""


@pytest.mark.parametrize("at", ["place", "rename"])
def test_process_that_is_killed_in_the_midst_of_it_is_gone_on_from(
    node: Node, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, chunks = a_want(), [a_want() for _ in range(3)]
    sha256 = node.serve(first)
    node.look()
    newer = node.serve(first, *chunks)

    def killed(*args: object, **kw: object) -> None:
        raise KilledError

    def placed(layout: Layout, chunk_id: str, text: bytes) -> None:
        killed() if len(os.listdir(layout.want)) > 1 else place_want_text(layout, chunk_id, text)

    with monkeypatch.context() as patch:
        patch.setattr(*("fsdm.lists.difference.place_want_text", placed) if at == "place" else ("os.rename", killed))
        with pytest.raises(KilledError):
            node.follower.look()
    assert read_followed(node.layout).applied == sha256  # type: ignore[union-attr]
    node.again()
    assert node.look().applied == newer
    assert node.markers == (sorted([first.id, *(chunk.id for chunk in chunks)]), [])


def test_file_is_followed_and_read_again_only_where_it_has_changed(
    layout: Layout, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, chunk = tmp_path / "list.jsonl.gz", a_want()
    path.write_bytes(gzip.compress(text_of(chunk)))
    node = Node(layout, source)
    node.follow = Follow(url=path.as_uri())
    node.again()
    assert node.look().applied == hashlib.sha256(text_of(chunk)).hexdigest()
    with (
        counting(monkeypatch, following.Asking, "_read") as read,
        counting(monkeypatch, following, "sha256_of") as read_it,
    ):
        node.look()
    assert (len(read), read_it) == (1, [])
    path.unlink()
    assert f"{path} cannot be read: No such file or directory" in node.look().error


@pytest.fixture
def pointed(node: Node) -> Callable[..., str]:
    """A placement that names a list for each node."""
    node.follow = Follow(url=f"{node.source.url}/fleet/placement.json")

    def publish(**lists: list[DataChunk]) -> str:
        named, last = {}, ""
        for name, chunks in lists.items():
            text = text_of(*chunks) + b'{"end": %d}\n' % len(chunks)
            last = hashlib.sha256(text).hexdigest()
            node.source.put(f"/fleet/lists/{last}.jsonl.gz", gzip.compress(text))
            named[name] = {"sha256": last, "chunks": len(chunks), "bytes": 0, "since": 0.0, "changed": 0.0}
        document = {"format": 1, "number": len(node.source.asked), "at": 0.0, "routes": "0" * 64, "lists": named}
        node.source.put("/fleet/placement.json", json.dumps(document).encode())
        return last

    node.follower = Follower(node.layout, node.follow, Fetching(), share=0.25, node="a1", spread=lambda: 1.0)
    return publish


def test_list_is_found_by_the_pointer_and_asked_for_only_where_it_is_another(
    node: Node, pointed: Callable[..., str]
) -> None:
    chunk, other = a_want(), a_want()
    sha256 = pointed(b1=[other], a1=[chunk])
    assert node.look().applied == sha256
    asked = node.source.asked.copy()
    pointed(b1=[], a1=[chunk])
    assert node.look().applied == sha256
    assert node.source.asked - asked == {"/fleet/placement.json": 1}
    assert node.markers == ([chunk.id], [])


@pytest.mark.parametrize("what", ["missing", "no placement", "other text"])
def test_pointer_that_has_no_list_keeps_everything(node: Node, pointed: Callable[..., str], what: str) -> None:
    chunk = a_want()
    sha256 = pointed(a1=[chunk])
    node.look()
    if what == "missing":
        pointed(b1=[chunk])
        told = "has no list for a1"
    elif what == "no placement":
        node.source.put("/fleet/placement.json", b"[]")
        told = "is no placement"
    else:
        new = pointed(a1=[a_want()])
        node.source.put(f"/fleet/lists/{new}.jsonl.gz", gzip.compress(text_of(a_want())))
        told = "has another text than its name says"
    seen = node.look()
    assert (seen.applied, told in seen.error, node.markers) == (sha256, True, ([chunk.id], []))


def test_one_process_follows(layout: Layout) -> None:
    lock = FollowLock(layout)
    Path(layout.follow, ".new.0000").touch()
    with pytest.raises(ReconcilerRunsError, match=f"another process follows a list here: pid {os.getpid()}"):
        FollowLock(layout)
    lock.close()
    FollowLock(layout).close()
    assert os.listdir(layout.follow) == ["LOCK"]


def test_state_that_makes_no_sense_is_none(layout: Layout) -> None:
    os.mkdir(layout.follow)
    for text in ("", "{", "[]", "{}", '{"url": "x", "chunks": "y"}'):
        Path(layout.follow, "STATE").write_text(text)
        assert read_followed(layout) is None


def test_secrets_of_a_url_are_not_told(node: Node) -> None:
    chunk = a_want(id=an_id())
    node.serve(chunk)
    node.follow = Follow(url=f"{node.source.url}/list?token=hidden".replace("http://", "http://user:hidden@"))
    node.again()
    assert node.look().chunks == 1
    for name in ("STATE", "LIST", "LOCK"):
        assert "hidden" not in Path(node.layout.follow, name).read_text()
