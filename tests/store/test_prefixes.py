"""Ids by their first digits."""

from pathlib import Path

import pytest

from fsdm.model.errors import InvalidInputError, NotAvailableError
from fsdm.model.layout import Layout
from fsdm.store.prefixes import is_prefix, known_chunks, known_datasets, the_one
from tests.support.chunks import a_want, an_id, put_chunk, put_failure, put_partial, put_want, touch_delete


@pytest.mark.parametrize("text", ["", "abc", "ABCD", "xyz1", "abcd\n", "0x12", "a" * 65, "../a"])
def test_what_no_id_begins_with_is_no_prefix(text: str) -> None:
    assert not is_prefix(text)


def test_the_one_that_begins_so_is_found_however_often_it_is_listed() -> None:
    ids = ["aaaa1" + "0" * 59, "aaaa2" + "0" * 59, "bbbb" + "0" * 60, "bbbb" + "0" * 60]
    assert the_one("aaaa2", ids, "chunk") == ids[1]
    assert the_one("bbbb", ids, "chunk") == ids[2]
    assert the_one(ids[0], ids, "chunk") == ids[0]
    with pytest.raises(InvalidInputError, match=r"^2 chunks begin with aaaa$") as several:
        the_one("aaaa", ids, "chunk")
    assert ids[0] in several.value.hint
    assert ids[1] in several.value.hint
    with pytest.raises(NotAvailableError, match=r"^no chunk begins with cccc$"):
        the_one("cccc", ids, "chunk")
    many = [f"dddd{n:060x}" for n in range(100)]
    with pytest.raises(InvalidInputError) as caught:
        the_one("dddd", many, "dataset")
    assert caught.value.hint.endswith(" and 94 more")


def test_every_chunk_that_anything_stands_of_is_known(layout: Layout, data_dir: Path) -> None:
    here = put_chunk(layout, dataset="e" * 64).chunk_id
    wanted, deleted, begun, failed, verified, known = put_want(data_dir, a_want()).id, *(an_id() for _ in range(5))
    touch_delete(data_dir, deleted)
    put_partial(data_dir, begun, a=1)
    put_failure(data_dir, failed)
    (data_dir / "verify" / verified).touch()
    (data_dir / "known" / known).touch()
    (data_dir / "want" / "stray").touch()
    (data_dir / "chunks" / "stray").mkdir()
    (data_dir / "chunks" / ("f" * 64)).touch()
    ids = [here, wanted, deleted, begun, failed, verified, known]
    assert [list(known_chunks(layout, one)) for one in ids] == [[one] for one in ids]
    assert set(known_chunks(layout, "")) == set(ids)
    assert sorted(known_datasets(layout)) == ["e" * 64, "f" * 64]
