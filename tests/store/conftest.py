from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chunks import put_chunk

if TYPE_CHECKING:
    from fsdm.model.layout import Layout, Place


@pytest.fixture
def place(layout: Layout) -> Place:
    """A published chunk."""
    return put_chunk(layout, end=35)
