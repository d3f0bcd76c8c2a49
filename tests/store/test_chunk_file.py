"""Files of a held chunk, opened and mapped: each keeps a ref of its own, for as long as it is of use."""

import gc
import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from fsdm.model.errors import ClosedError, InvalidInputError
from fsdm.model.layout import Layout, Place
from fsdm.store.refs import ChunkRef, Refs
from tests.support.chunks import put_chunk
from tests.support.locks import can_lock


@pytest.fixture
def place(layout: Layout) -> Place:
    return put_chunk(layout, files={"a.bin": b"0123456789", "empty": b""})


@pytest.fixture
def ref(layout: Layout, place: Place, no_lock_is_left: None) -> Iterator[ChunkRef]:
    with closing(Refs(layout)) as refs:
        ref = refs.take(place)
        assert ref is not None
        yield ref


@pytest.mark.parametrize("how", ["open", "mmap"])
def test_a_file_keeps_its_chunk_until_it_is_closed(layout: Layout, place: Place, ref: ChunkRef, how: str) -> None:
    with getattr(ref, how)("a.bin") as file:
        ref.close()
        assert not can_lock(layout.path(place))
        assert file.read(4) == b"0123"
    assert can_lock(layout.path(place))
    file.close()
    with pytest.raises(ClosedError):
        getattr(ref, how)("a.bin")


@pytest.mark.parametrize("how", ["open", "mmap"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_file_that_is_of_no_use_lets_its_chunk_go(layout: Layout, place: Place, ref: ChunkRef, how: str) -> None:
    file = getattr(ref, how)("a.bin")
    ref.close()
    assert not can_lock(layout.path(place))
    del file
    gc.collect()
    assert can_lock(layout.path(place))


def test_a_view_of_a_mapping_keeps_the_chunk(layout: Layout, place: Place, ref: ChunkRef) -> None:
    view = memoryview(ref.mmap("a.bin"))
    ref.close()
    gc.collect()
    assert not can_lock(layout.path(place))
    with pytest.raises(BufferError):
        view.obj.close()
    assert not can_lock(layout.path(place))
    assert bytes(view[2:4]) == b"23"
    view.release()
    gc.collect()
    assert can_lock(layout.path(place))


@pytest.mark.parametrize("how", ["open", "mmap"])
@pytest.mark.parametrize("name", ["b.bin", "../READY", "", "..", 7, "link", "pipe", "directory"])
def test_what_is_no_file_of_the_chunk_is_refused_and_nothing_kept(
    layout: Layout, place: Place, ref: ChunkRef, how: str, name: str
) -> None:
    data = f"{layout.path(place)}/data"
    os.symlink("a.bin", f"{data}/link")
    os.mkfifo(f"{data}/pipe")
    os.mkdir(f"{data}/directory")
    with pytest.raises(InvalidInputError, match="file: ") as refused:
        getattr(ref, how)(name)
    assert "a.bin" in refused.value.hint
    ref.close()
    assert can_lock(layout.path(place))


def test_an_empty_file_is_opened_and_not_mapped(layout: Layout, place: Place, ref: ChunkRef) -> None:
    with ref.open("empty") as file:
        assert file.read() == b""
    with pytest.raises(InvalidInputError, match="empty"):
        ref.mmap("empty")
    ref.close()
    assert can_lock(layout.path(place))
