"""Names on disk: ids, chunk directories, and that no name leads out of its directory."""

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.model import layout as on_disk
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import U64_MAX, Layout, Place, as_id, file_name_fault, is_chunk_dir, is_hidden, is_id

ID = "0123456789abcdef" * 4
DATASET = "d" * 64
RANGES = (
    st.tuples(st.integers(0, U64_MAX), st.integers(0, U64_MAX)).filter(lambda r: r[0] < r[1]).map(lambda r: range(*r))
)

quick = settings(max_examples=200, deadline=None)

NO_IDS = ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, ID + "\n", "\n" + ID, ID[:-1] + "٣", " " + ID[1:], "../" + ID[3:]]


@pytest.mark.parametrize("name", NO_IDS)
def test_what_is_not_64_lower_case_hex_digits_is_no_id(name: str) -> None:
    assert not is_id(name)
    with pytest.raises(InvalidInputError, match=r"^dataset_id: must be 64 lower-case hex digits") as caught:
        as_id(name, "dataset_id")
    assert caught.value.field == "dataset_id"


@given(st.binary(min_size=32, max_size=32))
@quick
def test_32_bytes_are_an_id_in_either_form(raw: bytes) -> None:
    assert as_id(raw, "id") == as_id(bytearray(raw), "id") == as_id(raw.hex(), "id") == raw.hex()
    assert is_id(raw.hex())


@pytest.mark.parametrize("value", [None, 7, b"", b"x" * 31, b"x" * 33, ID.encode(), [ID], 1.5, "\ud800"])
def test_other_values_are_no_ids(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^id: must be "):
        as_id(value, "id")


def test_a_long_value_is_shortened_in_the_error() -> None:
    with pytest.raises(InvalidInputError) as caught:
        as_id("x" * 10_000, "id")
    assert len(str(caught.value)) < 200
    assert str(caught.value).endswith("…")


FAULTS = {
    "is empty": [""],
    "is a name of a directory": [".", ".."],
    "contains '/' or NUL": ["a/b", "/etc", "../READY", "a\0b"],
    "is not valid Unicode": ["\udcff"],
    "is longer than 255 bytes": ["a" * 256, "é" * 128],
    None: ["a" * 255, "é" * 127, "...", ".hidden", "READY", "blöcke 🧱.parquet", "new\nline", "back\\slash"],
}


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for fault, names in FAULTS.items() for name in names])
def test_a_file_name_that_could_not_be_a_file_has_a_fault(name: str, fault: str | None) -> None:
    assert file_name_fault(name) == fault


@given(st.text(st.characters(codec=None) | st.sampled_from("./\0\\~"), max_size=300))
@quick
def test_no_name_without_a_fault_leaves_its_directory(name: str) -> None:
    if file_name_fault(name) is None:
        path = os.path.join("/data", name)
        assert os.path.dirname(os.path.normpath(path)) == "/data"
        assert os.path.basename(os.path.normpath(path)) == name
        assert len(os.fsencode(name)) <= on_disk.NAME_MAX_BYTES


def test_a_data_directory_without_a_name_is_not_the_current_one() -> None:
    with pytest.raises(InvalidInputError, match="data_dir: must not be empty"):
        Layout("")
    assert Layout(".").root == os.getcwd()


@pytest.mark.parametrize(
    ("name", "hidden"),
    [(".x", True), (f".{ID}.tmp", True), (f"{ID}~", True), (ID, False), ("x.tmp", False), ("~x", False)],
)
def test_dotfiles_and_editors_backups_are_hidden(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden


@given(RANGES)
@quick
def test_a_place_says_what_it_was_made_of(blocks: range) -> None:
    place = Place.of(DATASET, blocks, ID)
    assert is_chunk_dir(place.name)
    assert (place.dataset_id, place.block_range, place.chunk_id) == (DATASET, blocks, ID)
    assert file_name_fault(place.name) is None


@given(st.lists(RANGES, max_size=20))
@quick
def test_ls_sorts_places_by_block(ranges: list[range]) -> None:
    names = sorted(Place.of(DATASET, blocks, ID).name for blocks in ranges)
    assert [Place(DATASET, name).block_range for name in names] == sorted(ranges, key=lambda r: (r.start, r.stop))


def test_a_place_is_padded_to_20_digits() -> None:
    assert Place.of(DATASET, range(U64_MAX), ID).name == f"{'0' * 20}-18446744073709551615-{ID}"


@pytest.mark.parametrize(
    ("start", "end", "fits"),
    [
        *((0, 1, True), (U64_MAX - 1, U64_MAX, True), (0, 0, False), (5, 4, False), (U64_MAX, U64_MAX + 1, False)),
        *((0, U64_MAX + 1, False), (0, 10**20 - 1, False)),
    ],
)
def test_a_chunk_dir_has_a_range_that_is_not_empty_and_within_u64(start: int, end: int, fits: bool) -> None:
    assert is_chunk_dir(f"{start:020d}-{end:020d}-{ID}") is fits


@pytest.mark.parametrize(
    "name",
    [
        *("", ID, f"0-1-{ID}", f"{0:020d}-{1:020d}-{'A' * 64}", f"{0:020d}-{1:020d}-{ID}\n", f"{0:020d}_{1:020d}_{ID}"),
        *(f"{0:020d}-{1:020d}-{ID}.tmp", f"{'٠' * 20}-{1:020d}-{ID}", f"{0:+020d}-{1:020d}-{ID}"),
    ],
)
def test_stray_names_are_no_chunk_dirs(name: str) -> None:
    assert not is_chunk_dir(name)


def test_a_layout_is_absolute_and_knows_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layout, place = Layout(Path("x/../data")), Place.of(DATASET, range(1, 2), ID)
    root = f"{tmp_path}/data"
    assert layout == Layout(root) == Layout(f"{root}/")
    assert layout.root == root
    assert {name: getattr(layout, name) for name in layout.directories()} == {
        name: f"{root}/{name}"
        for name in ("want", "delete", "verify", "known", "acquire", "evict", "partial", "chunks", "failed", "trash")
    }
    assert (layout.lock, layout.format_file) == (f"{root}/LOCK", f"{root}/fsdm.json")
    assert layout.want_marker(ID) == f"{root}/want/{ID}"
    assert layout.delete_marker(ID) == f"{root}/delete/{ID}"
    assert layout.partial_of(ID) == f"{root}/partial/{ID}"
    assert layout.failed_of(ID) == f"{root}/failed/{ID}"
    assert layout.dataset(DATASET) == f"{root}/chunks/{DATASET}"
    assert layout.path(place) == f"{root}/chunks/{DATASET}/{place.name}"


def test_a_layout_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Layout("data").root = "elsewhere"  # type: ignore[misc]


def test_the_cachedir_tag_begins_as_its_specification_asks() -> None:
    assert on_disk.CACHEDIR_TAG_TEXT.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
