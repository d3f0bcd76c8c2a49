"""Keys of chunks that are not here: found by their registration, acquired one by one, and asked once they have come."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdm import Client, DataChunk, DataManager, Limits
from fsdm.index.building import Building
from fsdm.index.state import read_index_states
from fsdm.model.errors import (
    ClosedError,
    FetchFailedError,
    IndexerError,
    InvalidInputError,
    WaitTimeoutError,
)
from fsdm.store.refs import ChunkRef
from tests.support import Source, fsdm
from tests.support.chunks import a_want, an_id, chunk_dir, entries
from tests.support.indexers import by_four
from tests.support.waiting import PATIENCE_S, eventually

SHORT_S = 0.3
COMMON = b"both"


@pytest.fixture
def dm(data_dir: Path, tmp_path: Path) -> Iterator[DataManager]:
    indexes = [by_four(tmp_path, files="*.bin")]
    with DataManager(data_dir, indexes=indexes, limits=Limits(durability="none")) as dm:
        yield dm


def put(source: Source, chunk: DataChunk, *keys: bytes) -> None:
    source.put(f"/{chunk.id}/a.bin", b"".join(keys))


def made(source: Source, start: int, end: int, *keys: bytes, chunk_id: str | None = None) -> DataChunk:
    """A chunk with these keys, whose bytes may change: its want has no digest."""
    chunk_id = chunk_id or an_id()
    files = {"a.bin": f"{source.url}/{chunk_id}/a.bin"}
    chunk = a_want(id=chunk_id, block_range=(start, end), files=files)
    put(source, chunk, *keys)
    return chunk


def gathered(dm: DataManager, source: Source, *keys: bytes) -> list[DataChunk]:
    """Chunks that are registered, each with a key of its own and the common one, here and in the runs."""
    chunks = []
    for number, key in enumerate(keys):
        chunk = made(source, number, number + 1, key, COMMON)
        dm.register(chunk)
        dm.acquire(chunk.id, PATIENCE_S).close()
        chunks.append(chunk)
    eventually(lambda: _gathered(dm) == len(chunks))
    return chunks


def _gathered(dm: DataManager) -> int:
    return sum(state.gathered for state in read_index_states(dm.layout, dm.available_places()))


def evict(dm: DataManager, *chunks: DataChunk) -> None:
    """Have all go but for what is held, as soon as nobody asks for them any more."""
    asked = Path(dm.layout.acquire)
    for chunk in chunks:
        (asked / chunk.id).unlink(missing_ok=True)
    assert {one.outcome for one in dm.gc(timeout_s=PATIENCE_S) if one.id in {chunk.id for chunk in chunks}} == {
        "evicted"
    }


def found(refs: Iterator[ChunkRef]) -> list[str]:
    seen = []
    for ref in refs:
        with ref:
            seen.append(ref.id)
    return seen


def test_keys_of_what_was_evicted_bring_it_back_and_what_is_here_asks_for_nothing(
    dm: DataManager, source: Source
) -> None:
    one, here, two = gathered(dm, source, b"1111", b"2222", b"3333")
    ids = [one.id, here.id, two.id]
    with dm.acquire(here.id) as held:
        evict(dm, one, two)
        asked = dict(source.asked)
        assert found(dm.find_key("four", COMMON)) == [here.id], "what is not here is not found, only acquired"
        assert found(dm.acquire_key("four", b"2222")) == [held.id]
        assert found(dm.acquire_key("four", b"none")) == []
        assert source.asked == asked
        assert found(dm.acquire_key("four", b"3333", PATIENCE_S)) == [two.id]
        assert found(dm.acquire_key("four", COMMON, PATIENCE_S)) == ids, "by dataset and block, here or not"
    assert [source.asked[f"/{chunk.id}/a.bin"] for chunk in (one, here, two)] == [2, 1, 2]


def test_they_are_fetched_when_they_are_asked_for_and_held_until_they_are_closed(
    dm: DataManager, source: Source
) -> None:
    one, two = gathered(dm, source, b"1111", b"2222")
    evict(dm, one, two)
    refs = dm.acquire_key("four", COMMON, PATIENCE_S)
    with next(refs) as ref:
        assert ref.id == one.id
        assert source.asked[f"/{two.id}/a.bin"] == 1, "nobody has asked for the second one yet"
        assert (ref.path / "a.bin").read_bytes() == b"1111" + COMMON
    assert found(refs) == [two.id]


def test_an_asyncio_loop_acquires_them(dm: DataManager, source: Source) -> None:
    one, two = gathered(dm, source, b"1111", b"2222")
    evict(dm, one, two)

    async def acquired() -> list[str]:
        seen = []
        async for ref in dm.acquire_key_async("four", COMMON, PATIENCE_S):
            with ref:
                seen.append(ref.id)
        return seen

    assert asyncio.run(acquired()) == [one.id, two.id]


def test_a_chunk_whose_registration_does_not_stand_is_no_hit(dm: DataManager, source: Source, data_dir: Path) -> None:
    gone, moved, torn, deleted, stays = gathered(dm, source, *(bytes([n]) * 4 for n in range(5)))
    evict(dm, gone, moved, torn, deleted, stays)
    (data_dir / "known" / gone.id).unlink()
    dm.register(made(source, 7, 9, b"else", COMMON, chunk_id=moved.id))
    (data_dir / "known" / torn.id).write_text("{")
    dm.delete_chunk(deleted.id)
    dm.wait_converged(PATIENCE_S)
    asked = dict(source.asked)
    assert found(dm.acquire_key("four", COMMON, PATIENCE_S)) == [stays.id]
    assert sum(source.asked.values()) == sum(asked.values()) + 1
    assert "acquire" not in {path for path in entries(data_dir / "acquire") if path != stays.id}


def test_one_that_is_wanted_again_is_waited_for(dm: DataManager, source: Source, data_dir: Path) -> None:
    (chunk,) = gathered(dm, source, b"1111")
    evict(dm, chunk)
    (data_dir / "known" / chunk.id).unlink()
    fault = source.fault(f"/{chunk.id}/a.bin", stall_at=2)
    dm.download_chunk(chunk)
    eventually(fault.stalled.is_set)
    fault.gate.set()
    assert found(dm.acquire_key("four", b"1111", PATIENCE_S)) == [chunk.id]


def test_a_chunk_that_comes_with_other_bytes_is_asked_once_its_index_is_made(dm: DataManager, source: Source) -> None:
    lost, kept = gathered(dm, source, b"1111", b"2222")
    evict(dm, lost, kept)
    put(source, lost, b"else")
    put(source, kept, b"more", COMMON)
    assert found(dm.acquire_key("four", COMMON, PATIENCE_S)) == [kept.id]


def _blocked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have no index made until the event is set."""
    gate, build = threading.Event(), Building.build

    def late(self: Building, *given: object) -> object:
        assert gate.wait(PATIENCE_S)
        return build(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Building, "build", late)
    return gate


def test_an_index_that_is_not_made_in_time_is_told_and_nothing_stays_held(
    dm: DataManager, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chunk,) = gathered(dm, source, b"1111")
    evict(dm, chunk)
    put(source, chunk, b"else", COMMON)
    gate = _blocked(monkeypatch)
    try:
        refs = dm.acquire_key("four", COMMON, SHORT_S)
        dm.acquire(chunk.id, PATIENCE_S).close()
        with pytest.raises(WaitTimeoutError, match=f"index four of chunk {chunk.id}, which came with other bytes"):
            next(refs)
        assert not dm._refs._held
    finally:
        gate.set()
    assert found(dm.acquire_key("four", COMMON, PATIENCE_S)) == [chunk.id]


def test_an_index_that_cannot_be_made_is_told(
    dm: DataManager, source: Source, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chunk,) = gathered(dm, source, b"1111")
    evict(dm, chunk)
    put(source, chunk, b"else", COMMON)
    (tmp_path / "indexer.py").write_text("import sys\nsys.exit('it has gone')\n")
    with pytest.raises(IndexerError, match=f"index four of chunk {chunk.id} cannot be made: .*it has gone"):
        next(dm.acquire_key("four", COMMON, PATIENCE_S))
    assert not dm._refs._held


def test_a_chunk_that_cannot_be_fetched_is_told_and_the_next_one_comes(dm: DataManager, source: Source) -> None:
    one, two = gathered(dm, source, b"1111", b"2222")
    evict(dm, one, two)
    source.fault(f"/{one.id}/a.bin", status=404)
    refs = dm.acquire_key("four", COMMON, PATIENCE_S)
    with pytest.raises(FetchFailedError, match=f"chunk {one.id}: .*404"):
        next(refs)
    assert found(refs) == [two.id]


def test_a_chunk_that_does_not_come_in_time_is_told(dm: DataManager, source: Source) -> None:
    (chunk,) = gathered(dm, source, b"1111")
    evict(dm, chunk)
    fault = source.fault(f"/{chunk.id}/a.bin", stall_at=2)
    with pytest.raises(WaitTimeoutError, match=f"chunk {chunk.id} has not come"):
        next(dm.acquire_key("four", b"1111", SHORT_S))
    fault.gate.set()


def test_an_id_that_is_registered_elsewhere_while_it_comes_is_no_hit(dm: DataManager, source: Source) -> None:
    (chunk,) = gathered(dm, source, b"1111")
    evict(dm, chunk)
    fault = source.fault(f"/{chunk.id}/a.bin", stall_at=2)
    got: list[list[str]] = []
    waiter = threading.Thread(target=lambda: got.append(found(dm.acquire_key("four", b"1111", PATIENCE_S))))
    waiter.start()
    eventually(fault.stalled.is_set)
    dm.register(made(source, 7, 9, b"else", COMMON, chunk_id=chunk.id))
    fault.gate.set()
    waiter.join()
    assert got == [[]]
    assert not dm._refs._held


def test_a_command_holds_the_chunks_of_a_key(dm: DataManager, source: Source, data_dir: Path) -> None:
    one, two = gathered(dm, source, b"\xaa\xbb\xcc\xdd", b"text")
    evict(dm, one, two)
    paths = [str(chunk_dir(data_dir, chunk) / "data") for chunk in (one, two)]
    timeout, key = ("--timeout", f"{PATIENCE_S:g}"), ("acquire", "-d", data_dir, "--key", "four")
    told = fsdm(*key, "aabbccdd", *timeout, "--", "sh", "-c", "echo $FSDM_CHUNK_ID $FSDM_CHUNK_PATH")
    assert told.stdout == f"{one.id} {paths[0]}\n"
    assert fsdm(*key, "text", "--", "sh", "-c", 'cat "$FSDM_CHUNK_PATH/a.bin"').stdout == "textboth"
    held = f'echo "$FSDM_CHUNK_PATHS"; "{sys.executable}" -m fsdm holders -d "{data_dir}" {two.id}'
    told = fsdm(*key, "both", *timeout, "--", "sh", "-c", held)
    assert told.stdout.splitlines()[:2] == paths
    assert any("\tsh -c" in line for line in told.stdout.splitlines()[2:]), told.stdout
    for words, code, says in (
        (("no such key", "--", "true"), 3, "no chunk that is here or registered holds the key 'no such key'"),
        (("", "--", "true"), 2, "is empty"),
        (("both",), 2, "no command follows"),
    ):
        done = fsdm(*key, *words)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    done = fsdm("acquire", "-d", data_dir, "d" * 64, "7", "--key", "four", "both", "--", "true")
    assert (done.returncode, "takes an ID, DATASET and BLOCK, or --key NAME KEY" in done.stderr) == (2, True)


@pytest.mark.parametrize("ask", [Client.acquire_key, Client.acquire_key_async], ids=["in a thread", "on a loop"])
def test_what_cannot_be_asked_is_told_at_once(dm: DataManager, ask: Callable[..., object]) -> None:
    with pytest.raises(InvalidInputError, match="no index 'none' over all chunks"):
        ask(dm, "none", b"key")
    os.makedirs(dm.layout.runs_of("four"))
    with pytest.raises(InvalidInputError, match="must be bytes, not str"):
        ask(dm, "four", "key")
    dm.close()
    with pytest.raises(ClosedError):
        ask(dm, "four", b"key")
