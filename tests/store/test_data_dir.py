"""The directory that was opened, and what an error under its path comes of."""

import shutil

import pytest

from fsdm.model.errors import NoDataDirectoryError
from fsdm.model.layout import Layout
from fsdm.store.data_dir import Root


def test_error_of_a_directory_that_is_there_is_raised_as_it_is(layout: Layout) -> None:
    with pytest.raises(OSError, match="its own"), Root(layout).kept():
        raise OSError(5, "its own")


def test_error_of_a_directory_that_has_gone_says_so(layout: Layout) -> None:
    root = Root(layout)
    shutil.rmtree(layout.root)
    with pytest.raises(NoDataDirectoryError), root.kept():
        raise OSError(5, "its own")
