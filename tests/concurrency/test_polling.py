"""Polling: the same poll drives a thread and a loop, and many polls together stay cheap."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm import Client
from fsdm.concurrency.polling import FIRST_REST_S, LOOKS_PER_S, REST_S, SHARE, Poller, in_thread, on_loop
from fsdm.model.errors import ClosedError, InvalidInputError, WaitTimeoutError
from fsdm.model.layout import Layout
from tests.support.chunks import a_want, an_id, put_chunk, put_want
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def client(layout: Layout) -> Iterator[Client]:
    with Client(layout.root) as client:
        yield client


def no() -> bool:
    return False


async def looked(client: Client, times: int) -> None:
    """Until the waits of this client have looked so many times; the loop goes on meanwhile."""
    seen, asked = 0, client._waits.check
    done = asyncio.Event()

    def check() -> None:
        nonlocal seen
        seen += 1
        if seen >= times:
            done.set()
        asked()

    client._waits.check = check  # type: ignore[method-assign]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
    finally:
        client._waits.check = asked  # type: ignore[method-assign]


def test_what_is_done_already_needs_no_rest() -> None:
    with pytest.raises(StopIteration) as ended:
        next(Poller().until(lambda: True, None))
    assert ended.value.value is True


@pytest.fixture
def free_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs nothing, be the machine as busy as it may."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)


@pytest.mark.usefixtures("free_looks")
def test_rests_grow_from_a_millisecond_to_fifty() -> None:
    looks = Poller().until(no, None)
    rests = [next(looks) for _ in range(20)]
    assert rests[0] == FIRST_REST_S
    assert rests == sorted(rests)
    assert rests[-1] == REST_S


def test_no_rest_is_longer_than_what_is_left_and_the_end_is_looked_at() -> None:
    look = Mock(return_value=False)
    with pytest.raises(StopIteration) as ended:
        next(Poller().until(look, 0.0))
    assert (ended.value.value, look.call_count) == (False, 1)
    assert next(Poller().until(no, FIRST_REST_S / 2)) <= FIRST_REST_S / 2


@pytest.mark.usefixtures("free_looks")
def test_a_thousand_polls_look_less_often_until_they_end() -> None:
    waits, many = Poller(), 2 * int(LOOKS_PER_S * REST_S)
    others = [waits.until(no, None) for _ in range(many - 1)]
    for other in others:
        next(other)
    looks = waits.until(no, None)
    assert [next(looks) for _ in range(20)][-1] == many / LOOKS_PER_S == 2 * REST_S
    for other in others:
        other.close()
    assert next(looks) == REST_S


def test_a_look_that_costs_much_is_followed_by_a_longer_rest() -> None:
    def slow() -> bool:
        began = time.thread_time()
        while time.thread_time() - began < 2 * REST_S / SHARE:
            pass
        return False

    assert next(Poller().until(slow, None)) >= 2 * REST_S


@pytest.mark.usefixtures("free_looks")
def test_the_thread_rests_as_the_plan_says_and_gets_what_it_found() -> None:
    rests: list[float] = []
    assert in_thread(Poller().until(lambda: len(rests) == 3, None), rests.append) is True
    assert rests == pytest.approx([FIRST_REST_S * 1.5**n for n in range(3)])


def test_a_wait_that_ends_in_an_error_is_counted_no_more() -> None:
    waits = Poller()

    fails = Mock(side_effect=ClosedError("closed"))
    with pytest.raises(ClosedError):
        in_thread(waits.until(fails, None), time.sleep)
    with pytest.raises(ClosedError):
        asyncio.run(on_loop(waits.until(fails, None)))
    assert waits._count == 0


def test_a_thousand_waits_on_one_loop_end_when_their_markers_go(client: Client, layout: Layout, data_dir: Path) -> None:
    comes, goes = [a_want() for _ in range(500)], [an_id() for _ in range(500)]
    for chunk in comes:
        put_want(data_dir, chunk)
    for chunk_id in goes:
        (data_dir / "delete" / chunk_id).touch()

    async def main() -> None:
        threads = threading.active_count()
        ids = [chunk.id for chunk in comes] + goes
        waits = asyncio.gather(*(client.wait_async(one, PATIENCE_S) for one in ids))
        whole = asyncio.create_task(client.wait_converged_async(PATIENCE_S))
        await looked(client, 2 * len(ids))
        assert threading.active_count() <= threads
        assert not waits.done()
        for start, chunk in enumerate(comes):
            put_chunk(layout, chunk_id=chunk.id, start=start, end=start + 1)
            (data_dir / "want" / chunk.id).unlink()
        assert not whole.done()
        for chunk_id in goes:
            (data_dir / "delete" / chunk_id).unlink()
        assert await waits == [True] * 500 + [False] * 500
        await whole

    asyncio.run(main())


def test_the_loop_goes_on_between_the_looks_of_a_wait(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)
    steps: list[str] = []

    async def tick() -> None:
        while steps.count("tick") < 10:
            steps.append("tick")
            await asyncio.sleep(0)
        (data_dir / "want" / chunk.id).unlink()

    async def main() -> None:
        client._waits.check = lambda: steps.append("look")  # type: ignore[method-assign]
        ticking = asyncio.create_task(tick())
        await client.wait_async(chunk.id, PATIENCE_S)
        assert ticking.done()

    asyncio.run(main())
    # all ten turns of the other task came between the first look and the last: a wait that sat in a rest of its own
    # would have left them none
    assert (steps[0], steps[-1], steps.count("tick")) == ("look", "look", 10)


def test_a_wait_may_be_cancelled_and_leaves_nothing(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)

    async def main() -> None:
        waits = [asyncio.create_task(client.wait_async(chunk.id)), asyncio.create_task(client.wait_converged_async())]
        await looked(client, 4)
        for wait in waits:
            wait.cancel()
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
        assert client._waits._poller._count == 0
        with pytest.raises(TimeoutError):  # asyncio's own, which cancels
            async with asyncio.timeout(0.01):
                await client.wait_async(chunk.id)

    asyncio.run(main())
    assert client._waits._poller._count == 0
    assert client.list_chunks() == []


def test_a_wait_on_a_loop_in_vain_says_how_it_stands(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)
    with pytest.raises(WaitTimeoutError, match=f"{chunk.id} has not converged: wanted"):
        asyncio.run(client.wait_async(chunk.id, 0))
    with pytest.raises(WaitTimeoutError, match=r"1 intent is pending: .* \(wanted\)"):
        asyncio.run(client.wait_converged_async(0.01))
    with pytest.raises(InvalidInputError, match="chunk_id"):
        asyncio.run(client.wait_async("no id"))


def test_a_time_that_is_no_number_is_refused_since_it_would_never_be_up(client: Client, data_dir: Path) -> None:
    put_want(data_dir, a_want())
    with pytest.raises(InvalidInputError, match="timeout_s: must be a number of seconds"):
        client.wait_converged(float("nan"))
    assert client._waits._poller._count == 0


def test_a_close_ends_the_waits_on_a_loop(client: Client, data_dir: Path) -> None:
    chunk = a_want()
    put_want(data_dir, chunk)

    async def main() -> None:
        waits = asyncio.gather(client.wait_async(chunk.id), client.wait_converged_async(), return_exceptions=True)
        await looked(client, 4)
        client.close()
        async with asyncio.timeout(PATIENCE_S):
            assert [type(end) for end in await waits] == [ClosedError] * 2

    asyncio.run(main())


def test_many_ending_waits_list_the_chunks_once(
    client: Client, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [put_chunk(layout, start=start, end=start + 1) for start in range(50)]
    counted = Mock(side_effect=client._catalog.update)
    monkeypatch.setattr(client._catalog, "update", counted)

    async def main() -> list[bool]:
        return await asyncio.gather(*(client.wait_async(place.chunk_id) for place in places))

    assert asyncio.run(main()) == [True] * 50
    counted.assert_called_once()
