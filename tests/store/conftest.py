from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsdm.model.layout import Layout, Place
from fsdm.store import flock
from tests.support.chunks import put_chunk


@pytest.fixture
def place(layout: Layout) -> Place:
    """A published chunk."""
    return put_chunk(layout, end=35)


@pytest.fixture
def no_lock_is_left() -> Iterator[None]:
    """No descriptor with a lock is left when the test is over."""
    before = set(flock._descriptors)
    yield
    assert flock._descriptors <= before
