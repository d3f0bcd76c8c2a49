from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.model.layout import Layout
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support import Source

pytest_plugins = ("tests.support.disks", "tests.support.skips", "tests.support.users")


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        yield source


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a data directory is to be; it is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def layout(data_dir: Path) -> Layout:
    """A data directory that nobody reconciles."""
    layout = Layout(data_dir)
    make_layout(layout, FileSystem())
    return layout


@pytest.fixture
def dm(data_dir: Path) -> Iterator[DataManager]:
    """A data directory that this process reconciles."""
    with DataManager(data_dir) as dm:
        yield dm
