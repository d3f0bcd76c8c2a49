"""Keys that are not known: which are told, and which known one they are nearly."""

import json

import pytest

from fsdm.model.documents import DataChunk
from fsdm.model.errors import InvalidInputError
from fsdm.model.unknown_keys import doubts, unknown_keys
from tests.support.chunks import a_want


def want(**more: object) -> DataChunk:
    """A want with more keys, each of which begins with `file_` in its only file."""
    document = json.loads(
        a_want(**{key: value for key, value in more.items() if not key.startswith("file_")}).to_json()
    )
    in_file = {key.removeprefix("file_"): value for key, value in more.items() if key.startswith("file_")}
    document["files"]["blocks.parquet"] |= in_file
    return DataChunk.parse(json.dumps(document))


def test_a_want_of_known_keys_has_no_doubts() -> None:
    sizes = {"file_size": 5, "file_sha256": "a" * 64, "file_blake3": "b" * 64, "file_mirrors": ["https://h/a"]}
    assert list(unknown_keys(want(**sizes))) == []
    assert doubts(want(**sizes), strict=True) == []


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("file_sha265", "the key 'files.blocks.parquet.sha265' is not known: did you mean sha256?"),
        ("file_blake", "the key 'files.blocks.parquet.blake' is not known: did you mean blake3?"),
        ("file_sizes", "the key 'files.blocks.parquet.sizes' is not known: did you mean size?"),
        ("dataset", "the key 'dataset' is not known: did you mean dataset_id?"),
        ("block_ranges", "the key 'block_ranges' is not known: did you mean block_range?"),
    ],
)
def test_a_key_that_is_nearly_known_is_told(key: str, said: str) -> None:
    assert [str(one) for one in doubts(want(**{key: 1}), strict=False)] == [said]


def test_a_key_of_ones_own_is_kept_in_peace_and_refused_where_all_are_to_be_known() -> None:
    chunk = want(note="ours", file_compression="zstd")
    assert doubts(chunk, strict=False) == []
    assert [one.where for one in unknown_keys(chunk)] == ["note", "files.blocks.parquet.compression"]
    with pytest.raises(InvalidInputError, match="'note' is not known") as caught:
        doubts(chunk, strict=True)
    assert "--strict" in caught.value.hint
