from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsdm.store import flock
from tests.support.chunks import put_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.layout import Layout, Place


@pytest.fixture
def place(layout: Layout) -> Place:
    """A published chunk."""
    return put_chunk(layout, end=35)


@pytest.fixture
def no_lock_is_left() -> Iterator[None]:
    """No descriptor with a lock is left when the test is over."""
    before = set(flock._descriptors)
    yield
    assert flock._descriptors == before
