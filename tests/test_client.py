"""What any process may do with a data directory, and what each call says where it cannot."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import Client, DataChunk, DataManager, FileSource
from fsdm.model import errors
from fsdm.model.layout import U64_MAX, Layout, Place
from tests.support import PATIENCE_S, Source, can_lock, eventually, in_a_fork, ran
from tests.support.chunks import a_want, an_id, entries, failure, put_chunk, put_want, touch_delete

DATASET = "d" * 64


@pytest.fixture
def client(layout: Layout) -> Iterator[Client]:
    with Client(layout.root) as client:
        yield client


def calls(client: Client) -> list[Callable[[], object]]:
    """Every call that a client has."""
    return [
        lambda: client.download_chunk(a_want()),
        lambda: client.delete_chunk(an_id()),
        client.list_chunks,
        lambda: client.find_chunk(DATASET, 0),
        client.status,
        lambda: client.wait(an_id(), 0),
        lambda: client.wait_converged(0),
        lambda: asyncio.run(client.wait_async(an_id(), 0)),
        lambda: asyncio.run(client.wait_converged_async(0)),
    ]


def looks(client: Client) -> threading.Event:
    """Set once `client.wait_converged` has begun to look."""
    begun, asked = threading.Event(), client._waits.pending

    def pending() -> list[str]:
        begun.set()
        return asked()

    client._waits.pending = pending  # type: ignore[method-assign]
    return begun


def found(client: Client, block: int, dataset_id: str | bytes = DATASET) -> str | None:
    """The id of the chunk that is found there."""
    ref = client.find_chunk(dataset_id, block)
    if ref is None:
        return None
    with ref:
        return ref.id


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "it does not exist"),
        (lambda path: path.mkdir(), "it has no fsdm.json that is a file"),
        (lambda path: path.touch(), "it is not a directory"),
    ],
)
def test_no_data_directory_is_not_opened_nor_changed(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    path = tmp_path / "data"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    for open_it in (Client, lambda path: DataManager(path, reconcile=False)):
        with pytest.raises(errors.NoDataDirectoryError, match=f"is not a data directory: {why}$") as caught:
            open_it(path)
        assert "fsdm run" in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ['{"format": 2}', '{"format": "1"}', "{}", "", "[1]", "null", "{", "\0\0"])
@pytest.mark.parametrize("opens", [Client, DataManager])
def test_unknown_format_is_not_opened_nor_changed(
    layout: Layout, data_dir: Path, text: str, opens: Callable[[Path], Client]
) -> None:
    (data_dir / "fsdm.json").write_text(text)
    with pytest.raises(errors.UnknownFormatError, match="this version knows 1"):
        opens(data_dir)
    assert (data_dir / "fsdm.json").read_text() == text
    assert entries(data_dir) == sorted([*Layout.directories(), "CACHEDIR.TAG", "fsdm.json"])


def test_a_format_file_may_say_more_than_this_version_knows(layout: Layout, data_dir: Path) -> None:
    (data_dir / "fsdm.json").write_text('{"later": [], "format": 1}')
    with Client(data_dir) as client:
        assert client.list_chunks() == []


def test_asking_places_markers_and_waits_for_nobody(client: Client, data_dir: Path) -> None:
    chunk, gone = a_want(), an_id()
    client.download_chunk(chunk)
    client.delete_chunk(bytes.fromhex(gone))
    assert (entries(data_dir / "want"), entries(data_dir / "delete")) == ([chunk.id], [gone])
    client.delete_chunk(chunk.id)
    assert (entries(data_dir / "want"), entries(data_dir / "delete")) == ([], sorted([gone, chunk.id]))


def test_a_chunk_is_found_by_every_block_of_its_half_open_range(client: Client, layout: Layout) -> None:
    low, high = put_chunk(layout, start=0, end=35), put_chunk(layout, start=35, end=U64_MAX)
    ends = [(0, low), (34, low), (35, high), (U64_MAX - 1, high)]
    assert [found(client, block) for block, _ in ends] == [place.chunk_id for _, place in ends]
    assert found(client, U64_MAX) is None
    assert found(client, 0, bytes.fromhex(DATASET)) == low.chunk_id
    assert found(client, 0, "e" * 64) is None
    assert client.list_chunks() == [low.chunk_id, high.chunk_id]


@pytest.mark.parametrize("block", [-1, U64_MAX + 1, "5", 5.0, None])
def test_a_block_that_is_none_is_refused(client: Client, block: int) -> None:
    with pytest.raises(errors.InvalidInputError, match=r"^block: "):
        client.find_chunk(DATASET, block)


def test_a_path_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.DataDirectoryError, match="cannot be read: File name too long"):
        Client(tmp_path / ("x" * 300))


@pytest.mark.parametrize("chunk", [{"id": "d" * 64}, "d" * 64, None])
def test_what_is_no_chunk_is_refused(client: Client, chunk: Any) -> None:
    with pytest.raises(errors.InvalidInputError, match=r"^chunk: must be a DataChunk, not ") as e:
        client.download_chunk(chunk)
    assert "DataChunk(" in e.value.hint
    assert os.listdir(client.layout.want) == []


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"id": "../" * 21 + "d"}, "^id: must be "),
        ({"block_range": (9, 3)}, "^block_range: must not be empty or reversed"),
        ({"files": {"a/b": "https://example.org/a"}}, "^files: the file name 'a/b' contains "),
        (
            {"files": {"a": FileSource(url="https://example.org/a").model_copy(update={"url": "a"})}},
            r"^files\.a\.url: ",
        ),
    ],
)
def test_copy_of_a_chunk_is_checked_when_it_is_asked_for(client: Client, update: Any, said: str) -> None:
    copy = a_want().model_copy(update=update)
    for ask in (client.download_chunk, client.register):
        with pytest.raises(errors.InvalidInputError, match=said):
            ask(copy)
    assert os.listdir(client.layout.want) == os.listdir(client.layout.known) == []


def test_copy_of_a_chunk_may_have_what_a_chunk_is_made_of(client: Client) -> None:
    update = {"id": b"1" * 32, "block_range": (3, 9), "files": {"a": "https://example.org/a"}, "more": 7}
    client.download_chunk(a_want().model_copy(update=update))
    want = DataChunk.parse(Path(client.layout.want_marker("31" * 32)).read_bytes())
    assert (want.block_range, want.files["a"].urls, want.model_extra) == (
        range(3, 9), ("https://example.org/a",), {"more": 7},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["", "../../etc", "D" * 64, "d" * 63, b"d" * 31, None])
def test_an_id_that_is_none_is_refused_by_every_call(client: Client, name: str) -> None:
    for call in (client.delete_chunk, client.wait, lambda name: client.find_chunk(name, 0)):
        with pytest.raises(errors.InvalidInputError, match=r"^(chunk|dataset)_id: must be "):
            call(name)


def begin(layout: Layout) -> str:
    chunk = a_want()
    put_want(Path(layout.root), chunk)
    os.makedirs(f"{layout.partial_of(chunk.id)}/data")
    return chunk.id


def put_unready(layout: Layout) -> str:
    place = put_chunk(layout)
    os.unlink(f"{layout.path(place)}/READY")
    return place.chunk_id


def put_symlink(layout: Layout) -> str:
    place = put_chunk(layout)
    os.rename(layout.path(place), f"{layout.root}/aside")
    os.symlink(f"{layout.root}/aside", layout.path(place))
    return place.chunk_id


@pytest.mark.parametrize("make", [begin, put_unready, put_symlink])
def test_unavailable_chunk_is_neither_listed_nor_found(
    client: Client, layout: Layout, make: Callable[[Layout], str]
) -> None:
    chunk_id = make(layout)
    assert client.list_chunks() == []
    assert found(client, 0) is None
    assert not client._waits.is_available(chunk_id)


def test_next_in_line_is_found_when_the_first_retires(client: Client, layout: Layout, data_dir: Path) -> None:
    wide, narrow = put_chunk(layout, start=0, end=100), put_chunk(layout, start=10, end=20)
    assert found(client, 15) == narrow.chunk_id
    with client.find_chunk(DATASET, 15) as held:  # type: ignore[union-attr]
        touch_delete(data_dir, narrow.chunk_id)
        assert held.id == narrow.chunk_id
        assert found(client, 15) == wide.chunk_id
    os.unlink(data_dir / "delete" / narrow.chunk_id)
    assert found(client, 15) == narrow.chunk_id


def test_delete_by_another_process_is_heeded_at_once(client: Client, layout: Layout, data_dir: Path) -> None:
    stays, goes = put_chunk(layout), put_chunk(layout, start=10, end=20)
    assert client.list_chunks() == [stays.chunk_id, goes.chunk_id]
    with client.find_chunk(DATASET, 15) as held:  # type: ignore[union-attr]
        subprocess.run(["touch", data_dir / "delete" / goes.chunk_id], check=True)
        assert client.list_chunks() == [stays.chunk_id]
        assert client.find_chunk(DATASET, 15) is None
        assert held.clone().id == goes.chunk_id
    subprocess.run(["rm", data_dir / "delete" / goes.chunk_id], check=True)
    assert client.list_chunks() == [stays.chunk_id, goes.chunk_id]


def test_a_chunk_that_has_just_been_published_is_found_at_once(client: Client, layout: Layout) -> None:
    for start in range(20):
        assert found(client, start) is None
        place = put_chunk(layout, start=start, end=start + 1)
        assert found(client, start) == place.chunk_id


def test_one_id_in_two_places_is_listed_once(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    put_chunk(layout, chunk_id=place.chunk_id, dataset="e" * 64)
    assert client.list_chunks() == [place.chunk_id]
    assert len(client.available_places()) == 2


def test_stray_names_disturb_no_call(client: Client, layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    for directory in Layout.directories():
        (data_dir / directory / "stray").touch()
        (data_dir / directory / "\udcff").mkdir()
    (data_dir / "chunks" / DATASET / "stray").mkdir()
    assert client.list_chunks() == [place.chunk_id]
    assert found(client, 0) == place.chunk_id
    client.wait_converged(0)
    assert len(client.status().oddities) == 2 * 8 + 1


def test_what_nobody_asked_for_needs_no_waiting(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    assert client.wait(place.chunk_id, 0) is True
    assert client.wait(an_id(), 0) is False
    client.wait_converged(0)


def test_a_wait_ends_when_the_marker_goes(client: Client, layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want())
    answers: list[bool] = []
    waiting = looks(client)
    threads = [
        threading.Thread(target=lambda: answers.append(client.wait(chunk.id, PATIENCE_S))),
        threading.Thread(target=lambda: answers.append(client.wait_converged(PATIENCE_S) is None)),
    ]
    for thread in threads:
        thread.start()
    assert waiting.wait(PATIENCE_S)
    put_chunk(layout, chunk_id=chunk.id)
    os.unlink(data_dir / "want" / chunk.id)
    for thread in threads:
        thread.join()
    assert answers == [True, True]


def test_a_wait_in_vain_says_how_the_chunk_stands(client: Client, layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want())
    with pytest.raises(errors.WaitTimeoutError, match=f"{chunk.id} has not converged: wanted"):
        client.wait(chunk.id, 0)
    (data_dir / "failed" / chunk.id).write_text('{"error": "HTTP 503 Service Unavailable"}')
    with pytest.raises(TimeoutError, match="failed, HTTP 503 Service Unavailable"):
        client.wait(chunk.id, 0.01)
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    with pytest.raises(errors.WaitTimeoutError, match="retiring"):
        client.wait(place.chunk_id, 0)


@pytest.mark.parametrize("directory", ["want", "delete", "verify"])
def test_wait_for_everything_is_for_each_kind_of_marker(client: Client, data_dir: Path, directory: str) -> None:
    client.wait_converged(0)
    (data_dir / directory / an_id()).touch()
    with pytest.raises(errors.WaitTimeoutError, match="1 intent is pending: "):
        client.wait_converged(0)


def test_a_wait_for_everything_in_vain_says_what_is_pending(client: Client, data_dir: Path) -> None:
    chunks = [put_want(data_dir, a_want()) for _ in range(3)]
    with pytest.raises(errors.WaitTimeoutError, match=r"3 intents are pending: .*, .*, .*\(wanted\)\Z"):
        client.wait_converged(0)
    chunks += [put_want(data_dir, a_want()) for _ in range(2)]
    with pytest.raises(errors.WaitTimeoutError) as caught:
        client.wait_converged(0)
    first, *_, last = sorted(chunk.id for chunk in chunks)
    assert str(caught.value).startswith(f"5 intents are pending: {first[:12]} (wanted), ")
    assert str(caught.value).endswith(" …")
    assert last[:12] not in str(caught.value)


WAITS: list[Callable[..., object]] = [
    lambda client, chunk_id, **how: client.wait(chunk_id, PATIENCE_S, **how),
    lambda client, chunk_id, **how: client.wait_converged(PATIENCE_S, **how),
    lambda client, chunk_id, **how: client.wait_converged(PATIENCE_S, chunk_ids=[chunk_id], **how),
    lambda client, chunk_id, **how: asyncio.run(client.wait_async(chunk_id, PATIENCE_S, **how)),
    lambda client, chunk_id, **how: asyncio.run(client.wait_converged_async(PATIENCE_S, **how)),
]


@pytest.mark.parametrize("waits", WAITS)
def test_a_wait_for_what_cannot_pass_ends_and_has_the_failure(
    dm: DataManager, source: Source, waits: Callable[..., object]
) -> None:
    chunk = a_want(files={"a.parquet": f"{source.url}/typo.parquet"})
    dm.download_chunk(chunk)
    with pytest.raises(errors.ChunkFailedError, match=r"1 intent cannot be carried out: .*HTTP 404") as caught:
        waits(dm, chunk.id)
    failure = caught.value.failure
    assert (failure.id, failure.kind, failure.transient) == (chunk.id, "transfer", False)
    assert caught.value.exit_code == 4
    assert f"fsdm explain -d {dm.layout.root} {chunk.id}" in caught.value.hint
    assert "keep_waiting=True" in caught.value.hint


@pytest.mark.parametrize("waits", WAITS)
def test_a_wait_that_is_to_keep_waiting_ends_once_it_is_mended(
    dm: DataManager, data_dir: Path, source: Source, waits: Callable[..., object]
) -> None:
    chunk = a_want(files={"a.parquet": f"{source.url}/typo.parquet"})
    dm.download_chunk(chunk)
    eventually(lambda: failure(data_dir, chunk.id))
    mended = a_want(id=chunk.id, files={"a.parquet": source.put("/a", b"a")})
    looks, pending = threading.Event(), dm._waits.is_pending

    def mend() -> None:
        assert looks.wait(PATIENCE_S)
        dm.download_chunk(mended)

    def is_pending(chunk_id: str) -> bool:
        looks.set()
        return pending(chunk_id)

    dm._waits.is_pending = is_pending  # type: ignore[method-assign]
    all_pending = dm._waits.pending
    dm._waits.pending = lambda: [*filter(is_pending, all_pending())]  # type: ignore[method-assign]
    mending = threading.Thread(target=mend)
    mending.start()
    waits(dm, chunk.id, keep_waiting=True)
    mending.join()
    assert dm.list_chunks() == [chunk.id]


def test_a_wait_for_several_ends_only_once_all_that_is_left_cannot_pass(dm: DataManager, source: Source) -> None:
    good, bad, others = source.chunk(files=1), a_want(files={"a": f"{source.url}/typo"}), source.chunk(start=50, end=51)
    stall = source.fault(f"/{good.id}/blocks.parquet", stall_at=5)
    ever = source.fault(f"/{others.id}/blocks.parquet", stall_at=5)
    for chunk in (good, bad, others):
        dm.download_chunk(chunk)
    assert stall.stalled.wait(PATIENCE_S)
    assert ever.stalled.wait(PATIENCE_S)
    eventually(lambda: dm.status().chunks[bad.id].state == "failed")
    with pytest.raises(errors.WaitTimeoutError, match="2 intents are pending"):
        dm.wait_converged(0.05, chunk_ids=[good.id, bytes.fromhex(bad.id)])
    stall.gate.set()
    with pytest.raises(errors.ChunkFailedError) as caught:
        dm.wait_converged(PATIENCE_S, chunk_ids=[good.id, bad.id])
    assert [one.id for one in caught.value.failures] == [bad.id]
    assert dm.wait(good.id, 0)
    with pytest.raises(errors.InvalidInputError, match=r"^chunk_ids: "):
        dm.wait_converged(0, chunk_ids=["x"])


def test_wait_is_false_once_the_chunk_has_gone(client: Client, layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    assert client.wait(place.chunk_id, 0)
    os.unlink(f"{layout.path(place)}/READY")
    assert not client.wait(place.chunk_id, 0)


@pytest.mark.parametrize("opens", [Client, DataManager])
def test_close_ends_every_call_and_releases_every_ref(layout: Layout, opens: Callable[[str], Client]) -> None:
    place = put_chunk(layout)
    client = opens(layout.root)
    ref = client.find_chunk(DATASET, 0)
    assert ref is not None
    client.close()
    client.close()
    assert ref.closed
    assert can_lock(layout.path(place))
    for call in calls(client):
        with pytest.raises(errors.ClosedError, match="has been closed"):
            call()
    assert os.listdir(layout.want) == os.listdir(layout.delete) == []


def test_a_client_shows_its_directory_and_whether_it_is_closed(layout: Layout) -> None:
    for opens, more in ((Client, ""), (lambda root: DataManager(root, reconcile=False), ", a client")):
        with opens(layout.root) as client:
            assert repr(client) == f"<{type(client).__name__} {layout.root}{more}>"
        assert repr(client) == f"<{type(client).__name__} {layout.root}, closed>"


def test_a_close_ends_a_wait_in_another_thread(client: Client, data_dir: Path) -> None:
    put_want(data_dir, a_want())
    waiting, raised = looks(client), []

    def wait() -> None:
        try:
            client.wait_converged()
        except errors.ClosedError as e:
            raised.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(PATIENCE_S)
    client.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert len(raised) == 1


@pytest.mark.parametrize("opens", [Client, DataManager])
def test_a_fork_of_it_says_so_and_its_close_there_does_no_harm(layout: Layout, opens: Callable[[str], Client]) -> None:
    place: Place = put_chunk(layout)
    with opens(layout.root) as client, client.find_chunk(DATASET, 0) as ref:  # type: ignore[union-attr]
        for call in calls(client):
            assert in_a_fork(call) == errors.ForeignProcessError.__name__
        assert in_a_fork(client.close) == "None"
        assert client.list_chunks() == [place.chunk_id]
        assert not ref.closed
        assert not can_lock(layout.path(place))
        if isinstance(client, DataManager):
            assert client.reconciling
            assert client.status().reconciler is not None
    assert os.listdir(layout.want) == os.listdir(layout.delete) == []


def test_a_child_may_open_the_directory_for_itself(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)

    def find() -> str | None:
        with Client(layout.root) as mine:
            return found(mine, 0)

    assert in_a_fork(find) == place.chunk_id


def test_markers_that_may_not_be_listed_are_an_error(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(errors.DataDirectoryError, match="may not be listed by this user"):
        client.wait_converged(0)


def test_directory_that_has_gone_is_told_in_our_words(client: Client, layout: Layout) -> None:
    shutil.rmtree(layout.root)
    for call in (client.list_chunks, lambda: client.wait_converged(0)):
        with pytest.raises(errors.FsdmError):
            call()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be played by root alone")
def test_user_who_may_not_look_into_delete_is_refused(layout: Layout, data_dir: Path) -> None:
    def as_nobody() -> str:
        os.setuid(65534)
        with pytest.raises(errors.DataDirectoryError, match="may not be searched"):
            Client(layout.root)
        return "refused"

    os.chmod(layout.delete, 0o700)
    for directory in (data_dir, *data_dir.parents[:-2]):
        directory.chmod(0o755)
    assert in_a_fork(as_nobody) == "refused"


def test_find_of_an_available_chunk_lists_no_other_candidates(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put_chunk(layout)
    with Client(layout.root) as client:
        monkeypatch.setattr(client._catalog, "candidates", None)
        ref = client.find_chunk(place.dataset_id, place.block_range.start)
        assert ref is not None
        ref.close()


WITHOUT_DESCRIPTORS = """
import os, sys
from fsdm import DataManager, FsdmError
asks = {"find": lambda: dm.find_chunk("d" * 64, 0), "status": lambda: dm.status(), "ls": lambda: dm.list_chunks()}
with DataManager(sys.argv[1], reconcile=False) as dm:
    if sys.argv[2] == "warm":
        for ask in asks.values():
            ask()
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    for name, ask in asks.items():
        try:
            print(name, ask())
        except FsdmError as e:
            print(name, e.hint)
"""


@pytest.mark.parametrize("caches", ["warm", "cold"])
def test_process_without_descriptors_is_told_so(layout: Layout, caches: str) -> None:
    put_chunk(layout)
    command = 'ulimit -n 64; exec "$0" -c "$@"'
    done = ran("bash", "-c", command, sys.executable, WITHOUT_DESCRIPTORS, layout.root, caches)
    hint = "let this process have more open files (ulimit -n), or close refs"
    assert done.stdout == "".join(f"{name} {hint}\n" for name in ("find", "status", "ls")), done.stderr
