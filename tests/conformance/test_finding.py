"""list and find: which chunks are available, and which one is responsible for a block."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fsdm
from fsdm.model.layout import U64_MAX, Layout, Place
from tests.conformance.clients import Client, claimed
from tests.support.chunks import an_id, put_chunk, touch_delete

Hiding = Callable[[Layout, Place], None]
DATASET = "d" * 64
OTHER = "e" * 64


def files_at(layout: Layout, place: Place) -> str:
    return f"{layout.path(place)}/data"


def test_chunk_is_found_by_every_block_of_its_half_open_range(client: Client, layout: Layout) -> None:
    low, high = put_chunk(layout, start=1, end=35), put_chunk(layout, start=35, end=36)
    assert client.find(DATASET, 0) is None
    assert client.find(DATASET, 1) == client.find(DATASET, 34) == files_at(layout, low)
    assert client.find(DATASET, 35) == files_at(layout, high)
    assert client.find(DATASET, 36) is None
    assert client.find(OTHER, 1) is None
    assert client.list() == [low.chunk_id, high.chunk_id]


def test_of_overlapping_chunks_the_greatest_start_is_responsible(client: Client, layout: Layout) -> None:
    put_chunk(layout, start=9, end=12)
    late = put_chunk(layout, start=10, end=1000)
    put_chunk(layout, start=0, end=11)
    assert client.find(DATASET, 10) == files_at(layout, late)


def test_of_equal_starts_the_smallest_end_is_responsible(client: Client, layout: Layout) -> None:
    put_chunk(layout, start=5, end=100, chunk_id="0" * 64)
    short = put_chunk(layout, start=5, end=20, chunk_id="1" * 64)
    put_chunk(layout, start=5, end=30, chunk_id="0" * 63 + "1")
    assert client.find(DATASET, 10) == files_at(layout, short)


def test_of_equal_ranges_the_smallest_id_is_responsible(client: Client, layout: Layout) -> None:
    ids = ["f" * 64, "0" + "a" * 63, "0" + "9" * 63]
    places = [put_chunk(layout, chunk_id=one) for one in ids]
    assert client.find(DATASET, 0) == files_at(layout, places[2])


def test_wide_chunk_is_found_where_a_narrow_one_inside_it_ends(client: Client, layout: Layout) -> None:
    wide = put_chunk(layout, start=0, end=1000)
    for start in (10, 500, 900):
        put_chunk(layout, start=start, end=start + 5)
    assert client.find(DATASET, 905) == files_at(layout, wide)


def test_block_numbers_are_exact_up_to_the_end_of_u64(client: Client, layout: Layout) -> None:
    last = put_chunk(layout, start=U64_MAX - 1, end=U64_MAX)
    before = put_chunk(layout, start=U64_MAX - 2, end=U64_MAX - 1)
    middle = put_chunk(layout, start=2**63 - 1, end=2**63)
    exact = put_chunk(layout, start=2**53 + 1, end=2**53 + 2)  # no floating-point number
    assert client.find(DATASET, U64_MAX - 1) == files_at(layout, last)
    assert client.find(DATASET, U64_MAX - 2) == files_at(layout, before)
    assert client.find(DATASET, 2**53 + 1) == files_at(layout, exact)
    for block in (U64_MAX, U64_MAX - 3, 2**63, 2**53):
        assert client.find(DATASET, block) is None
    assert client.list() == [one.chunk_id for one in (exact, middle, before, last)]


def delete_file(layout: Layout, place: Place) -> None:
    touch_delete(Path(layout.root), place.chunk_id)


def delete_directory(layout: Layout, place: Place) -> None:
    os.mkdir(layout.delete_marker(place.chunk_id))


def delete_symlink_to_nowhere(layout: Layout, place: Place) -> None:
    os.symlink("nowhere", layout.delete_marker(place.chunk_id))


def no_ready(layout: Layout, place: Place) -> None:
    os.unlink(f"{layout.path(place)}/READY")


def symlink_in_place_of_a_chunk(layout: Layout, place: Place) -> None:
    aside = f"{layout.root}/aside"
    os.rename(layout.path(place), aside)
    os.symlink(aside, layout.path(place))


def file_in_place_of_a_chunk(layout: Layout, place: Place) -> None:
    os.rename(layout.path(place), f"{layout.root}/aside")
    os.close(os.open(layout.path(place), os.O_CREAT))


def fifo_in_place_of_a_chunk(layout: Layout, place: Place) -> None:
    os.rename(layout.path(place), f"{layout.root}/aside")
    os.mkfifo(layout.path(place))


@pytest.mark.parametrize(
    "hide",
    [
        delete_file,
        delete_directory,
        delete_symlink_to_nowhere,
        no_ready,
        symlink_in_place_of_a_chunk,
        file_in_place_of_a_chunk,
        fifo_in_place_of_a_chunk,
    ],
)
def test_next_in_line_is_found_where_a_chunk_is_not_available(client: Client, layout: Layout, hide: Hiding) -> None:
    wide, hidden = put_chunk(layout, start=0, end=100), put_chunk(layout, start=10, end=20)
    alone = put_chunk(layout, start=200, end=300)
    hide(layout, hidden)
    assert client.list() == [wide.chunk_id, alone.chunk_id]
    assert client.find(DATASET, 15) == files_at(layout, wide)
    assert client.run("find", DATASET, 150).returncode == 3


def test_where_nothing_is_available_find_and_hold_end_with_3(client: Client, layout: Layout) -> None:
    assert client.list() == []
    place = put_chunk(layout)
    delete_file(layout, place)
    assert client.list() == []
    assert client.find(DATASET, 5) is None
    assert client.run("hold", DATASET, 5, "--", "echo", "held").returncode == 3
    assert client.run("hold", OTHER, 5, "--", "echo", "held").stdout == ""


def test_chunk_under_a_claim_is_not_waited_for(client: Client, layout: Layout) -> None:
    wide, narrow = put_chunk(layout, start=0, end=100), put_chunk(layout, start=10, end=20)
    with claimed(layout.path(narrow)):
        assert client.find(DATASET, 15) == files_at(layout, wide)
        with claimed(layout.path(wide)):
            assert client.find(DATASET, 15) is None
    assert client.find(DATASET, 15) == files_at(layout, narrow)


def test_odd_entries_are_left_aside(client: Client, layout: Layout, data_dir: Path) -> None:
    good, number = put_chunk(layout, start=3, end=4), f"{3:020d}"
    for name in (
        *(f"{number}-{number}-{an_id()}", f"{4:020d}-{3:020d}-{an_id()}"),  # empty, backwards
        *(f"{number}-{U64_MAX + 1:020d}-{an_id()}", f"{number}-{10**20 - 1}-{an_id()}", f"3-9-{an_id()}"),
        *(f"{number}-{number[1:]}9-{odd}" for odd in (an_id().upper(), f"{an_id()}0", an_id()[1:])),
        *(f"{number}-{number[1:]}9-{an_id()}{end}" for end in ("\n", ".old")),
        *(f" {number}-{number[1:]}9-{an_id()}", "stray", ".hidden", "sp ace * $x\\"),
    ):
        (data_dir / "chunks" / DATASET / name / "data").mkdir(parents=True)
        (data_dir / "chunks" / DATASET / name / "READY").touch()
    os.close(os.open(os.fsencode(layout.dataset(DATASET)) + b"/\xff\xfe", os.O_CREAT))
    os.mkdir(os.fsencode(layout.chunks) + b"/\xff\xfe")
    put_chunk(layout, dataset="b" * 64)
    (data_dir / "chunks" / ("b" * 64)).rename(data_dir / "chunks" / ("B" * 64))
    (data_dir / "chunks" / ("c" * 64)).touch()
    (data_dir / "delete" / "stray").touch()
    assert client.list() == [good.chunk_id]
    assert client.find(DATASET, 3) == files_at(layout, good)
    assert client.find(DATASET, 5) is None
    assert client.find("c" * 64, 5) is None


def test_chunks_are_listed_by_dataset_and_start(client: Client, layout: Layout) -> None:
    places = [
        put_chunk(layout, dataset=dataset, start=start, end=start + 1, chunk_id=an_id())
        for dataset in (OTHER, DATASET)
        for start in (100, 9, 20)
    ]
    assert client.list() == [place.chunk_id for place in sorted(places)]


def test_any_layout_is_answered_as_the_python_client_answers(client: Client, layout: Layout) -> None:
    throw = random.Random(7)
    for _ in range(40):
        start = throw.randrange(30)
        place = put_chunk(layout, start=start, end=start + throw.choice([1, 2, 5, 30]))
        throw.choice([delete_file, no_ready, *[lambda layout, place: None] * 4])(layout, place)
    with fsdm.Client(layout.root) as reference:
        assert sorted(client.list()) == sorted(reference.list_chunks())
        for block in throw.sample(range(40), 8):
            ref = reference.find_chunk(DATASET, block)
            assert client.find(DATASET, block) == (None if ref is None else str(ref.path))


@pytest.mark.parametrize("verb", ["find", "hold"])
def test_dataset_or_block_that_is_none_ends_with_2(client: Client, layout: Layout, verb: str) -> None:
    put_chunk(layout)
    rest = ["--", "echo", "held"] if verb == "hold" else []
    words = [(DATASET, block) for block in ("-1", "", str(2**64), "1e3", "0x1")]
    for dataset, block in [*words, ("D" * 64, "0"), ("../" + "d" * 61, "0")]:
        done = client.run(verb, dataset, block, *rest)
        assert (done.returncode, done.stdout) == (2, ""), (dataset, block)
        assert done.stderr


def test_wrong_usage_ends_with_2(client: Client) -> None:
    for words in ([], ["no-such-verb"], ["want"], ["find", DATASET], ["hold", DATASET, "0", "--"]):
        done = client.run(*words)
        assert done.returncode == 2, words


def test_who_may_not_look_into_delete_is_told_so(client: Client, layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    delete_file(layout, place)
    (data_dir / "delete").chmod(0o600)
    if os.geteuid() == 0:  # root may look everywhere, as long as it has its capabilities
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not on this machine")
        client = Client(["setpriv", "--inh-caps=-all", "--bounding-set=-all", *client.command], data_dir)
    for words in (["list"], ["find", DATASET, 5], ["hold", DATASET, 5, "--", "echo", "held"]):
        done = client.run(*words)
        assert (done.returncode, done.stdout) == (6, "")


def test_directory_that_is_missing_or_of_another_format_ends_with_6(client: Client, data_dir: Path) -> None:
    verbs = [["list"], ["find", DATASET, "0"], ["delete", an_id()]]
    for text in ('{"format": 2}', '{"format": "1"}', '{"format": 10}', ""):
        (data_dir / "fsdm.json").write_text(text)
        assert client.run("list").returncode == 6, text
    (data_dir / "fsdm.json").write_text('{"later": [{"format": 3}], "format" : 1}\n')
    assert client.list() == []
    os.unlink(data_dir / "fsdm.json")
    elsewhere = Client(client.command, data_dir / "missing")
    for verb in verbs:
        assert client.run(*verb).returncode == 6
        assert elsewhere.run(*verb).returncode == 6
    assert not elsewhere.data_dir.exists()
    assert os.listdir(data_dir / "delete") == []
