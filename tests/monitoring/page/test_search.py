"""The search: what a person types, and which chunks are meant by it."""

import pytest

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import U64_MAX
from fsdm.monitoring.page.search import Query, search
from tests.support.maps import a_chunk

CHUNKS = [
    a_chunk(0, 2000, id="ab12" + "0" * 60, dataset_id="17ab" + "0" * 60),
    a_chunk(1000, 3000, "failed", id="ab13" + "0" * 60, dataset_id="17ab" + "0" * 60),
    a_chunk(0, 2000, id="1234" + "0" * 60, dataset_id="c4d2" + "0" * 60),
]


def found(text: str) -> list[str]:
    return [chunk.id[:4] for chunk in search(CHUNKS, Query.parse(text))]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("ab12", ["ab12"]),
        ("AB12…", ["ab12"]),
        ("  ab1300 ", ["ab13"]),
        ("17ab", ["ab12", "ab13"]),
        ("1500", ["ab12", "ab13", "1234"]),
        ("1,500", ["ab12", "ab13", "1234"]),
        ("2_500", ["ab13"]),
        ("1234", ["ab12", "ab13", "1234"]),
        ("c4d2 1500", ["1234"]),
        ("17ab 2500", ["ab13"]),
        ("99999", []),
        ("0", ["ab12", "1234"]),
        (str(U64_MAX), []),
    ],
)
def test_block_id_and_dataset_are_told_apart(text: str, ids: list[str]) -> None:
    assert found(text) == ids


@pytest.mark.parametrize("text", ["", "  ", "abc", "xyzw", "-1", "17ab x", "1 2 3", "ab12 ab13", "٣٣"])
def test_what_cannot_be_searched_for_is_told_what_can(text: str) -> None:
    with pytest.raises(InvalidInputError) as e:
        Query.parse(text)
    assert "type a block" in e.value.hint


def test_name_stands_for_its_dataset() -> None:
    names = {"ethereum": "17ab" + "0" * 60, "Sol.1": "c4d2" + "0" * 60}
    for text, ids in (("ethereum", ["ab12", "ab13"]), ("ethereum 2500", ["ab13"]), ("Sol.1 0", ["1234"])):
        assert [chunk.id[:4] for chunk in search(CHUNKS, Query.parse(text, names))] == ids
    with pytest.raises(InvalidInputError, match=r"^q: nothing can be searched for by that$"):
        Query.parse("bitcoin", names)


def test_number_beyond_every_block_may_still_begin_an_id() -> None:
    assert Query.parse(str(U64_MAX)).block == U64_MAX
    assert Query.parse(str(U64_MAX + 1)) == Query(id_prefix=str(U64_MAX + 1))


def test_long_text_is_cut_and_not_worked_on() -> None:
    with pytest.raises(InvalidInputError, match=r"^q: nothing can be searched for by that$"):
        Query.parse("a" * 10_000_000)
