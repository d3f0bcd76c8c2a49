"""Of want, register and delete the last wins, by whatever hand each comes."""

import json
import os
from itertools import permutations
from pathlib import Path

import pytest

from fsdm import AlreadyKnownError, Client, DataChunk, DataManager
from fsdm.model.layout import WANT, Layout
from fsdm.store.markers import registered_since
from tests.support import fsdm, fsdm_json
from tests.support.chunks import a_want, bring, chunk_dir, entries, put_known, put_want, touch_delete
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually, next_tick

ORDERS = list(permutations(("want", "register", "delete")))


def is_pinned(data_dir: Path, chunk: DataChunk) -> bool:
    wanted_ns = (chunk_dir(data_dir, chunk) / WANT).stat().st_mtime_ns
    return registered_since(Layout(data_dir), chunk.id, wanted_ns) is None


def test_registration_costs_no_fetch_and_stays(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk, other = source.chunk(), source.chunk()
    dm.register(chunk)
    bring(dm, other)  # so the reconciler has been at work since
    dm.wait_converged(PATIENCE_S)
    assert entries(data_dir / "known") == [chunk.id]
    assert json.loads((data_dir / "known" / chunk.id).read_bytes())["id"] == chunk.id
    assert not any(chunk.id in path for path in source.asked)
    assert dm.list_chunks() == [other.id]


def test_exclusive_registration_changes_nothing_where_one_stands(data_dir: Path, layout: Layout) -> None:
    first, second = a_want(block_range=(0, 10)), a_want(block_range=(0, 10))
    second = second.model_copy(update={"id": first.id, "block_range": range(10, 20)})
    with Client(data_dir) as client:
        client.register(first, exclusive=True)
        client.delete_chunk(second.id)
        touch = data_dir / "known" / first.id
        put_known(data_dir, first)
        before = touch.read_bytes()
        with pytest.raises(AlreadyKnownError, match=first.id):
            client.register(second, exclusive=True)
        assert touch.read_bytes() == before
        assert entries(data_dir / "delete") == [first.id], "nothing was overruled"
        assert os.listdir(data_dir / "known") == [first.id], "nothing is left of it"
        client.register(second)
        assert DataChunk.parse(touch.read_bytes()) == second
        assert entries(data_dir / "delete") == []


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("here", [False, True], ids=["absent", "here"])
def test_last_of_three_careless_intents_wins(
    data_dir: Path, source: Source, order: tuple[str, ...], here: bool
) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        if here:
            bring(dm, chunk)
    place = {"want": put_want, "register": put_known, "delete": lambda root, one: touch_delete(root, one.id)}
    for intent in order:
        next_tick(data_dir)
        place[intent](data_dir, chunk)
    with DataManager(data_dir) as dm:
        dm.wait_converged(PATIENCE_S)
        eventually(lambda: not entries(data_dir / "failed"))
        available = dm.list_chunks() == [chunk.id]
    known = entries(data_dir / "known") == [chunk.id]
    match order[-1]:
        case "want":
            assert available
            assert is_pinned(data_dir, chunk)
        case "register":
            assert known
            assert available is here
            assert not available or not is_pinned(data_dir, chunk)
        case "delete":
            assert (available, known) == (False, False)
            assert not chunk_dir(data_dir, chunk).exists()


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_last_of_three_careful_calls_wins_in_one_tick(data_dir: Path, layout: Layout, order: tuple[str, ...]) -> None:
    chunk = a_want()
    with Client(data_dir) as client:
        place = {
            "want": lambda: client.download_chunk(chunk),
            "register": lambda: client.register(chunk),
            "delete": lambda: client.delete_chunk(chunk.id),
        }
        for intent in order:
            place[intent]()
    stands = {kind for kind in ("want", "delete", "known") if entries(data_dir / kind)}
    after = order[order.index("register") :]
    is_known = "delete" not in after
    assert stands == {{"register": "known"}.get(order[-1], order[-1])} | ({"known"} if is_known else set())


def test_registration_that_cannot_be_read_overrules_nothing(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        touch_delete(data_dir, chunk.id)
        (data_dir / "known" / chunk.id).write_text("{")
        assert not dm.wait(chunk.id, PATIENCE_S)
    assert not chunk_dir(data_dir, chunk).exists()
    assert (data_dir / "known" / chunk.id).read_text() == "{", "it may be mended"


def test_damaged_chunk_that_was_registered_since_does_not_come_back(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        next_tick(data_dir)
        dm.register(chunk)
        (chunk_dir(data_dir, chunk) / "data" / "blocks.parquet").write_bytes(b"other bytes")
        dm.verify_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
        dm.wait_converged(PATIENCE_S)
    assert sum(source.asked.values()) == 1
    assert entries(data_dir / "known") == [chunk.id]


def test_register_takes_what_want_takes(data_dir: Path, layout: Layout, tmp_path: Path) -> None:
    chunks = [a_want() for _ in range(3)]
    lines = tmp_path / "lines"
    lines.write_bytes(b"".join(chunk.to_json() for chunk in chunks))
    assert fsdm_json("register", "-d", data_dir, lines) == {"registered": [chunk.id for chunk in chunks]}
    assert entries(data_dir / "known") == sorted(chunk.id for chunk in chunks)
    again = fsdm("register", "-d", data_dir, "--exclusive", lines)
    assert again.returncode == 1
    assert again.stderr.count("is registered already") == 3
    lines.write_bytes(b"{}\n" + a_want().to_json())
    wrong = fsdm("register", "-d", data_dir, lines)
    assert wrong.returncode == 2
    assert f"{lines}:1:" in wrong.stderr
    assert len(entries(data_dir / "known")) == 4
