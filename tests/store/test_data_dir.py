"""The directory that was opened, and what an error under its path comes of."""

import shutil
from pathlib import Path

import pytest

from fsdm.model.errors import NoDataDirectoryError
from fsdm.model.layout import Layout
from fsdm.store.data_dir import Root, make_layout
from fsdm.store.filesystem import FileSystem


def test_error_of_a_directory_that_is_there_is_raised_as_it_is(layout: Layout) -> None:
    with pytest.raises(OSError, match="its own"), Root(layout).kept():
        raise OSError(5, "its own")


def test_error_of_a_directory_that_has_gone_says_so(layout: Layout) -> None:
    root = Root(layout)
    shutil.rmtree(layout.root)
    with pytest.raises(NoDataDirectoryError), root.kept():
        raise OSError(5, "its own")


@pytest.mark.parametrize("name", ["chunks", "partial", "trash"])
def test_what_was_there_before_is_taken_for_ours_only_where_it_is_empty(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path / "data")
    (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / name / "of-another").mkdir()
    with pytest.raises(NoDataDirectoryError, match=f"{name} is not empty, but .* has no fsdm.json"):
        make_layout(layout, FileSystem())
    (tmp_path / "data" / name / "of-another").rmdir()
    make_layout(layout, FileSystem())
    assert (tmp_path / "data/fsdm.json").exists()
