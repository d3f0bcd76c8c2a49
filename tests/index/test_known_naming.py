"""`known.names` is made beside the loop, where many are registered and others than it names."""

from pathlib import Path

import pytest

import fsdm.index.known_naming
from fsdm import DataManager
from fsdm.index.known_naming import KnownNaming
from fsdm.model.errors import StoppedError
from fsdm.model.layout import Layout
from fsdm.store.known_names import KnownNames
from tests.support import PATIENCE_S, Source, eventually


def names_of(layout: Layout) -> set[str]:
    names = KnownNames.open(layout.known_names)
    return set() if names is None else {place.chunk_id for place in names.each()}


def test_a_reconciler_keeps_the_names_of_many(data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdm.index.known_naming, "LOOK_S", 0.01)
    monkeypatch.setattr(fsdm.index.known_naming, "SMALL_BYTES", 0)
    monkeypatch.setattr(fsdm.index.known_naming, "SHARE", 0)
    first, second = source.chunk(), source.chunk(start=50, end=60)
    with DataManager(data_dir) as dm:
        dm.register(first)
        eventually(lambda: names_of(dm.layout) == {first.id})
        dm.register(second)
        eventually(lambda: names_of(dm.layout) == {first.id, second.id})
        with dm.acquire((second.dataset_id, 55), timeout_s=PATIENCE_S) as ref:
            assert ref.id == second.id
        dm.delete_chunk(first.id)
        eventually(lambda: names_of(dm.layout) == {second.id})
        eventually(lambda: not KnownNaming(dm.layout).is_due())


def test_few_have_no_such_file(layout: Layout) -> None:
    assert not KnownNaming(layout).is_due()


def test_the_process_that_makes_them_ends_with_the_reconciler(layout: Layout) -> None:
    naming = KnownNaming(layout)
    assert naming.stop(0.0)
    with pytest.raises(StoppedError, match="the reconciler stops"):
        naming.make()
