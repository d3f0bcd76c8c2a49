"""The names of datasets: what `datasets.toml` may say, and what is said where it cannot be taken."""

import os
from pathlib import Path

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import Layout
from fsdm.store.dataset_names import NAMES_MAX_BYTES, by_id, parse_dataset_names, read_dataset_names
from tests.support.chunks import an_id

ETH, BTC = an_id(1), an_id(2)


def test_names_are_read_and_none_where_there_is_no_file(layout: Layout, data_dir: Path) -> None:
    assert read_dataset_names(layout) == {}
    (data_dir / "datasets.toml").write_text(f'# ours\nethereum = "{ETH}"\n"btc-main.v2" = "{BTC}"\n')
    assert read_dataset_names(layout) == {"ethereum": ETH, "btc-main.v2": BTC}


def test_of_several_names_the_first_is_shown() -> None:
    assert by_id({"eth": ETH, "ethereum": ETH, "btc": BTC}) == {ETH: "eth", BTC: "btc"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ethereum", "is no TOML"),
        (b"\xff", "is no TOML"),
        ("[" * 5000, "is no TOML"),
        (f'"" = "{ETH}"', "'' is no name"),
        (f'"a b" = "{ETH}"', "'a b' is no name"),
        (f'"x\\u001b" = "{ETH}"', "is no name"),
        (f'face = "{ETH}"', "'face' is no name"),
        (f'{"n" * 65} = "{ETH}"', "is no name"),
        (f'ethereum = "{ETH[:12]}"', "ethereum: must be an id"),
        ("ethereum = 5", "ethereum: must be an id, not 5"),
        (f'[ethereum]\nid = "{ETH}"', "ethereum: must be an id"),
    ],
)
def test_what_is_no_name_is_refused_and_named(text: str | bytes, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why) as caught:
        parse_dataset_names(text if isinstance(text, bytes) else text.encode())
    assert caught.value.hint


def test_a_file_that_cannot_be_read_says_how_to_do_without(layout: Layout, data_dir: Path) -> None:
    path = data_dir / "datasets.toml"
    path.write_bytes(b"#" * (NAMES_MAX_BYTES + 1))
    with pytest.raises(InvalidInputError, match=f"{path}: has more than") as caught:
        read_dataset_names(layout)
    assert "--names off" in caught.value.hint
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidInputError, match="is no file"):
        read_dataset_names(layout)
