"""The settings of an index: what can be taken, what is named where it cannot, and what makes another index of it."""

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.model.indexes import Index


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "X", "indexer": "parquet:hash"}, "name: 'X' cannot be the name of an index"),
        ({"name": "x"}, "has an indexer or a command, one of them"),
        ({"name": "x", "indexer": "car", "command": "car"}, "has an indexer or a command, one of them"),
        ({"name": "x", "indexer": " "}, "indexer: is blank"),
        ({"name": "x", "command": "a\0b"}, "command: is blank, or has a NUL"),
        ({"name": "x", "indexer": "car", "timeout_s": 0.0}, "timeout_s: must be greater than 0"),
        ({"name": "x", "indexer": "car", "max_memory_bytes": 1}, "max_memory_bytes: must be greater than or equal"),
        ({"name": "x", "indexer": "car", "max_output_bytes": "1G"}, "max_output_bytes: must be a valid integer"),
        ({"name": "x", "indexer": "car", "glob": "*"}, "glob: is no setting of an index"),
        ({"indexer": "car"}, "name: Field required"),
    ],
)
def test_settings_that_cannot_be_taken_are_named(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Index(**settings)  # type: ignore[arg-type]
    assert str(refused.value).startswith(says)


def test_what_finds_the_keys_defines_an_index_and_no_bound_does() -> None:
    made = Index(name="x", indexer="parquet:hash", files="tx*")
    assert made.definition == Index(name="y", indexer="parquet:hash", files="tx*", timeout_s=7.0).definition
    others = [
        Index(name="x", command="parquet:hash", files="tx*"),
        Index(name="x", indexer="parquet:topic0", files="tx*"),
        Index(name="x", indexer="parquet:hash", files="log*"),
    ]
    assert len({made.definition, *(other.definition for other in others)}) == 4
