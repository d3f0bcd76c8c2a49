"""find --key: the chunks that hold a key, by the runs of an index over all chunks (PROTOCOL.md, "Indexes").

To read indexes is no part of what every client must do: leave this file out (`--ignore`) for one that does not.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm.index import writing
from fsdm.model.index_format import HEADER_BYTES, hash_of
from fsdm.model.layout import READY, U64_MAX, Layout, Place, index_path
from tests.conformance.clients import Client, claimed
from tests.conformance.gate import OPENS
from tests.support.chunks import flip, put_chunk, touch_delete
from tests.support.indexes import put_index, put_run

Change = Callable[[Layout, Place], object]


def found(client: Client, key: str) -> list[str]:
    """The paths that it prints; none where it says that there is none."""
    done = client.run("find", "--key", "tx", key)
    assert done.returncode == (0 if done.stdout else 3), done.stderr
    return done.stdout.splitlines()


def files(layout: Layout, *places: Place) -> list[str]:
    return [f"{layout.path(place)}/data" for place in places]


@pytest.fixture
def places(layout: Layout) -> list[Place]:
    return three_chunks(layout)


def three_chunks(layout: Layout) -> list[Place]:
    """Chunks 0, 1 and 2 have the keys `all` and their number; 0 and 1 are in one run, 1 and 2 in another."""
    found = [put_chunk(layout, start=number, end=number + 1) for number in range(3)]
    for number, place in enumerate(found):
        put_index(layout, place, [b"all", b"%d" % number])
    put_run(layout, *found[:2])
    put_run(layout, *found[1:])
    return found


def test_chunks_of_a_key_are_found_in_all_runs_each_once_in_order(
    key_client: Client, layout: Layout, places: list[Place]
) -> None:
    assert found(key_client, "all") == files(layout, *places)
    assert found(key_client, "2") == files(layout, places[2])
    assert found(key_client, "3") == []


def test_key_is_taken_for_hex_digits_and_else_for_text(key_client: Client, layout: Layout) -> None:
    ends = put_chunk(layout, start=U64_MAX - 1, end=U64_MAX, dataset="e" * 64)
    both, text = put_chunk(layout, start=7, end=2**53 + 1), put_chunk(layout, start=8, end=9)
    put_index(layout, both, [b"\x00\xab\n", b"ab", b"a\\b c"])
    put_index(layout, text, [b"00ab0a", b"0xab"])
    put_index(layout, ends, [b"ab"])
    put_run(layout, both, text, ends)
    assert found(key_client, "00ab0a") == found(key_client, "0x00AB0A") == files(layout, both)
    assert found(key_client, "ab") == files(layout, both, ends)
    assert found(key_client, "0xab") == files(layout, text)
    assert found(key_client, "a\\b c") == files(layout, both)


def test_key_is_found_among_many(key_client: Client, layout: Layout) -> None:
    place, other = put_chunk(layout), put_chunk(layout, start=10, end=20)
    put_index(layout, place, [b"key %d" % number for number in range(2000)])
    put_index(layout, other, [b"other %d" % number for number in range(2000)])
    put_run(layout, place, other)
    first, last = (pick((b"key %d" % number for number in range(2000)), key=hash_of) for pick in (min, max))
    for key in (first.decode(), last.decode(), "key 1234"):
        assert found(key_client, key) == files(layout, place)
    assert found(key_client, "other 77") == files(layout, other)
    assert found(key_client, "key 2000") == []


def is_deleted(layout: Layout, place: Place) -> None:
    touch_delete(Path(layout.root), place.chunk_id)


def has_no_ready(layout: Layout, place: Place) -> None:
    os.unlink(f"{layout.path(place)}/{READY}")


def has_another_ready(layout: Layout, place: Place) -> None:
    with open(f"{layout.path(place)}/{READY}", "ab") as ready:
        ready.write(b"\n")


def is_gone(layout: Layout, place: Place) -> None:
    os.rename(layout.path(place), f"{layout.trash}/gone")


def knows_better(layout: Layout, place: Place) -> None:
    put_index(layout, place, [b"other"])


@pytest.mark.parametrize("happens", [is_deleted, has_no_ready, has_another_ready, is_gone, knows_better])
def test_hit_counts_while_the_chunk_is_there_with_that_ready_and_key(
    key_client: Client, layout: Layout, places: list[Place], happens: Change
) -> None:
    happens(layout, places[1])
    assert found(key_client, "all") == files(layout, places[0], places[2])
    assert found(key_client, "1") == []


def test_chunk_under_a_claim_is_not_waited_for(key_client: Client, layout: Layout, places: list[Place]) -> None:
    with claimed(layout.path(places[1])):
        assert found(key_client, "all") == files(layout, places[0], places[2])


def has_none(layout: Layout, place: Place) -> None:
    os.unlink(index_path(layout.path(place), "tx"))


def is_cut_off(layout: Layout, place: Place) -> None:
    knows_better(layout, place)
    path = index_path(layout.path(place), "tx")
    os.truncate(path, os.path.getsize(path) - 1)


def is_of_another_ready(layout: Layout, place: Place) -> None:
    put_index(layout, place, [b"other"], identity=bytes(32))


@pytest.mark.parametrize("happens", [has_none, is_cut_off, is_of_another_ready])
def test_hit_counts_by_the_run_where_the_chunk_has_no_index_of_its_own(
    key_client: Client, layout: Layout, places: list[Place], happens: Change
) -> None:
    happens(layout, places[1])
    assert found(key_client, "1") == files(layout, places[1])


def cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 1)


def cut_to_its_header(path: str) -> None:
    os.truncate(path, HEADER_BYTES)


def empty(path: str) -> None:
    os.truncate(path, 0)


def lengthened(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


def with_another_head(path: str) -> None:
    flip(path, 60)


def symlink(path: str) -> None:
    os.rename(path, f"{path}.aside")
    os.symlink(f"{path}.aside", path)


def of_another_name(path: str) -> None:
    os.rename(path, f"{path}~")


@pytest.mark.parametrize(
    "harm", [cut, cut_to_its_header, empty, lengthened, with_another_head, symlink, of_another_name]
)
def test_run_that_is_not_whole_counts_as_absent(
    key_client: Client, layout: Layout, harm: Callable[[str], None]
) -> None:
    one, two = (put_chunk(layout, start=start, end=start + 1) for start in range(2))
    put_index(layout, one, [b"all", b"one"])
    put_index(layout, two, [b"all", b"two"])
    path = put_run(layout, one)
    put_run(layout, two)
    assert found(key_client, "one") == files(layout, one)
    harm(path)
    assert found(key_client, "one") == []
    assert found(key_client, "all") == files(layout, two)


def test_number_that_no_chunk_has_is_nobody(key_client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    put_index(layout, place, [b"key"])
    with open(put_run(layout, place), "r+b") as run:
        run.seek(HEADER_BYTES + 16)
        run.write(b"\1\0\0\0")
    assert found(key_client, "key") == []


def test_other_key_with_the_same_hash_is_no_hit(
    key_client: Client, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, both = (put_chunk(layout, start=start, end=start + 1) for start in range(2))
    monkeypatch.setattr(writing, "hash_of", lambda key: hash_of(b"key"))
    put_index(layout, other, [b"kez"])
    put_index(layout, both, [b"ke", b"key", b"key2"])
    put_run(layout, other, both)
    assert found(key_client, "key") == files(layout, both)


def test_run_that_goes_after_it_was_listed_is_looked_for_anew(key_client: Client, layout: Layout) -> None:
    one, two = (put_chunk(layout, start=start, end=start + 1) for start in range(2))
    put_index(layout, one, [b"all"])
    put_index(layout, two, [b"all"])
    path, is_merged = put_run(layout, one), False
    with key_client.gated(OPENS, "find", "--key", "tx", "all") as gated:
        for stop in gated.stops():
            if stop.path == path and not is_merged:
                put_run(layout, one, two)
                os.unlink(path)
                is_merged = True
        assert is_merged
        assert gated.result() == (0, "".join(f"{path}\n" for path in files(layout, one, two)))


def test_what_is_no_key_or_index_ends_with_2(key_client: Client, layout: Layout, places: list[Place]) -> None:
    for words in (["none", "all"], ["../index/tx", "all"], ["", "all"], ["tx", ""], ["tx"]):
        done = key_client.run("find", "--key", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr
