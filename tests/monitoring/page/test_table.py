"""The table of chunks: it says what `fsdm status` says, after any changes, and its versions tell of each."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from fsdm.model.layout import READY, Layout, Place
from fsdm.monitoring.page import table as module
from fsdm.monitoring.page.table import ChunkTable
from fsdm.status.chunk_status import ChunkStatus
from fsdm.status.coverage import CoverageMap
from fsdm.status.reading import read_status
from fsdm.status.survey import Surveyor
from tests.support.chunks import a_want, an_id, put_chunk, put_failure, put_partial, put_want, touch_delete

D, E = "d" * 64, "e" * 64


class World:
    """A data directory, and the table of it."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.root = layout, Path(layout.root)
        self.surveyor = Surveyor(layout, read_s=60)
        self.table = ChunkTable(layout, self.surveyor, read_s=60)

    def look(self) -> dict[str, int]:
        self.table.refresh(self.surveyor.look())
        return self.table.datasets()

    def known(self) -> dict[str, ChunkStatus | None]:
        return {chunk_id: self.table.status(chunk_id) for chunk_id in self.table.ids()}


@pytest.fixture
def world(layout: Layout) -> World:
    return World(layout)


def plain(chunks: dict[str, ChunkStatus]) -> dict[str, tuple[object, ...]]:
    """What both tell: of a download that runs, the table leaves bytes and an old error to the survey."""
    return {
        key: (one.state, one.dataset_id, one.block_range)
        + ((one.size_bytes, one.error) if one.state != "downloading" else ())
        for key, one in chunks.items()
    }


def some_change(world: World, dice: random.Random, ids: list[str]) -> None:
    chunk_id, dataset, start = dice.choice(ids), dice.choice([D, E]), dice.randrange(5) * 10
    layout, root = world.layout, world.root
    match dice.choice(["want", "delete", "partial", "failed", "here", "unwant", "undelete", "unfail", "gone"]):
        case "want":
            put_want(root, a_want(id=chunk_id, dataset_id=dataset, block_range=(start, start + 10)))
        case "delete":
            touch_delete(root, chunk_id)
        case "partial" if not os.path.exists(layout.partial_of(chunk_id)):
            put_partial(root, chunk_id, a=100)
        case "failed":
            put_failure(root, chunk_id, kind=dice.choice(["transfer", "room", "want"]), error=f"no {dice.random()}")
        case "here" if not [*Path(layout.chunks).glob(f"*/*-{chunk_id}")]:
            put_chunk(layout, chunk_id=chunk_id, dataset=dataset, start=start, end=start + 10)
        case "unwant":
            Path(layout.want_marker(chunk_id)).unlink(missing_ok=True)
        case "undelete":
            Path(layout.delete_marker(chunk_id)).unlink(missing_ok=True)
        case "unfail":
            Path(layout.failed_of(chunk_id)).unlink(missing_ok=True)
        case "gone":
            for path in Path(layout.chunks).glob(f"*/*-{chunk_id}"):
                shutil.rmtree(path)


@pytest.mark.parametrize("seed", range(12))
def test_after_any_changes_it_says_what_status_says_and_draws_the_same(world: World, seed: int) -> None:
    dice, ids = random.Random(seed), [an_id(number) for number in range(8)]
    versions = world.look()
    for _ in range(40):
        for _ in range(dice.randrange(4)):
            some_change(world, dice, ids)
        before = {one: found[1] for one in versions if (found := world.table.coverage(one)) is not None}
        now = world.look()
        found, known = read_status(world.layout).chunks, {key: one for key, one in world.known().items() if one}
        running = world.table._running
        assert plain({key: one for key, one in known.items() if key not in running}) == plain(
            {key: one for key, one in found.items() if key not in running}
        )
        drawn = CoverageMap.of(known.values())
        assert [*now] == [coverage.dataset_id for coverage in drawn.coverages]
        assert sorted(one.id for one in world.table.unplaced()) == sorted(one.id for one in drawn.unplaced)
        for coverage in drawn.coverages:
            [version, ours] = world.table.coverage(coverage.dataset_id) or [0, None]
            assert ours == coverage
            if version == versions.get(coverage.dataset_id):  # what was made of a version holds
                assert before[coverage.dataset_id] == coverage
        versions = now


def test_at_rest_no_document_is_read_and_no_version_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        put_chunk(world.layout, start=number * 10, end=number * 10 + 10)
    put_want(world.root, a_want())
    put_failure(world.root, an_id(), kind="transfer", error="x")
    versions = world.look()
    assert world.look() == versions
    monkeypatch.setattr(module, "read_chunk_status", None)
    for _ in range(3):
        assert world.look() == versions
    covered = world.table.coverage(D)
    assert covered is world.table.coverage(D)


def test_record_of_a_running_download_changes_no_version(world: World) -> None:
    want = put_want(world.root, a_want())
    put_partial(world.root, want.id, a=100)
    versions = world.look()
    versions = world.look()
    Path(world.layout.partial_of(want.id), "PARTS").write_text("{}")
    assert world.look() == versions
    assert (known := world.table.status(want.id)) is not None
    assert (known.state, known.size_bytes) == ("downloading", 0)


def test_of_too_many_some_are_read_by_the_next_look(world: World) -> None:
    world.table = ChunkTable(world.layout, world.surveyor, read_s=-1)
    wants = [put_want(world.root, a_want()) for _ in range(3)]
    world.look()
    assert not world.table.is_complete
    assert [*world.table.ids()] == []
    world.table._read_s = 60
    world.look()
    assert world.table.is_complete
    assert sorted(world.table.ids()) == sorted(want.id for want in wants)


def test_sizes_that_are_read_later_change_the_versions_once_all_are_known(world: World) -> None:
    for number in range(3):
        put_chunk(world.layout, start=number * 10, end=number * 10 + 10)
    world.surveyor._read_s = -1
    before = world.look()
    assert world.table.is_counting
    world.surveyor._read_s = 60
    after = world.look()
    assert not world.table.is_counting
    assert after[D] > before[D]
    found = world.table.coverage(D)
    assert found is not None
    assert found[1].size_bytes == 300


def test_directory_without_ready_is_out_of_service(world: World) -> None:
    place = put_chunk(world.layout)
    os.unlink(f"{world.layout.path(place)}/{READY}")
    world.look()
    assert (known := world.table.status(place.chunk_id)) is not None
    assert known.state == "unready"


def test_what_may_not_be_listed_is_left_to_the_survey(world: World) -> None:
    os.rename(world.layout.failed, f"{world.layout.failed}.away")
    Path(world.layout.failed).write_text("")
    put_chunk(world.layout)
    assert [*world.look()] == [D]


def test_names_that_are_no_ids_and_wants_that_say_nonsense_are_no_chunks_of_a_map(world: World) -> None:
    (world.root / "want" / "nonsense").write_text("{}")
    odd = [an_id() for _ in range(3)]
    for chunk_id, blocks in zip(odd, [{"start": 5, "end": 5}, {"start": -1, "end": 2**70}, "x"], strict=True):
        (world.root / "want" / chunk_id).write_text(json.dumps({"dataset_id": D, "block_range": blocks}))
    assert world.look() == {}
    assert [one.id for one in world.table.unplaced()] == sorted(odd)
    assert Place.of(D, range(1), odd[0]).chunk_id == odd[0]
