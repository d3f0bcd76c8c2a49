"""Targets: what each chunk and each worker is to have, where there is too little room."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.fleet.inventory import Worker, Workers
from fsdm.fleet.targets import copies_in_a_zone, effective_replicas, target_bytes
from tests.support.fleets import chunks_of

sizes = st.lists(st.integers(1, 100), min_size=1, max_size=30)


def workers_of(*capacities: int, zones: str = "", weights: dict[int, float] | None = None) -> Workers:
    return Workers.of(
        Worker(f"w{n}", capacity, zones[n : n + 1], (weights or {}).get(n, 1.0))
        for n, capacity in enumerate(capacities)
    )


@given(sizes, st.integers(1, 4), st.integers(1, 5), st.integers(0, 12_000))
def test_no_chunk_has_two_copies_more_than_another_one_that_asks_for_as_many(sizes, replicas, workers, room) -> None:
    chunks = chunks_of(dict(enumerate(sizes)), replicas)
    found = effective_replicas(chunks, np.zeros(len(sizes), np.int64), workers, room)
    assert found.max() - found.min() <= 1
    assert found.max() <= min(replicas, workers)
    assert int((found * chunks.size).sum()) <= room
    if room >= (sum(sizes) * replicas) + workers * max(sizes):
        assert found.tolist() == [min(replicas, workers)] * len(sizes)


def test_chunks_that_have_a_second_copy_keep_it_before_others_get_one() -> None:
    chunks = chunks_of(dict.fromkeys(range(40), 10), 2)
    for seed in range(5):
        kept = np.random.default_rng(seed).permutation([1] * 20 + [2] * 20)
        found = effective_replicas(chunks, kept, 2, 40 * 10 + 20 * 10 + 2 * 10)
        assert found.tolist() == kept.tolist()


@pytest.mark.parametrize(
    ("workers", "targets"),
    [
        (workers_of(1000, 1000), [300, 300]),
        (workers_of(1000, 2000), [200, 400]),  # by capacity
        (workers_of(1000, 2000, weights={0: 2.0}), [300, 300]),  # by weight
        (workers_of(1000, 2000, weights={0: 0.0}), [0, 600]),
        (workers_of(100, 1000), [600 / 11, 6000 / 11]),
        (workers_of(100, 550), [600 * 100 / 650, 600 * 550 / 650]),
        (workers_of(600, 600, 600, zones="aab"), [200, 200, 200]),
        (workers_of(50, 1000, weights={0: 9.0}), [50, 550]),  # full, and what is left
    ],
)
def test_bytes_are_shared_by_weight_up_to_what_each_may_take(workers: Workers, targets: list[float]) -> None:
    chunks = chunks_of(dict.fromkeys(range(60), 10), 1)
    replicas = np.ones(60, np.int64)
    found = target_bytes(workers, chunks, replicas, copies_in_a_zone(workers, chunks, replicas, 1.0), 1.0)
    assert found.tolist() == pytest.approx(targets, rel=0.01 if len(targets) == 2 else 1e-9)


def test_no_worker_is_to_hold_more_than_one_copy_of_each_chunk() -> None:
    chunks = chunks_of(dict.fromkeys(range(10), 10), 2)
    workers = workers_of(10_000, 100, 100)
    replicas = np.full(10, 2)
    found = target_bytes(workers, chunks, replicas, copies_in_a_zone(workers, chunks, replicas, 1.0), 1.0)
    assert found.tolist() == pytest.approx([100, 50, 50])


def test_zone_may_have_more_copies_only_where_the_others_have_no_room() -> None:
    chunks = chunks_of(dict.fromkeys(range(10), 10), 3)
    replicas = np.full(10, 3)
    assert copies_in_a_zone(workers_of(100, 100, 100, 100, zones="abcc"), chunks, replicas, 1.0).tolist() == [1] * 10
    assert copies_in_a_zone(workers_of(200, 200, 50, zones="abc"), chunks, replicas, 1.0).tolist() == [2] * 10
    assert copies_in_a_zone(workers_of(200, 200, zones="ab"), chunks, replicas, 1.0).tolist() == [2] * 10
    assert copies_in_a_zone(workers_of(100, 100, 100, zones="aaa"), chunks, replicas, 1.0).tolist() == [3] * 10
