"""A fixture of pytest: `pytest_plugins = ["fsdm.testing.plugin"]` in a conftest.py makes it known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsdm.testing import ChunkDirectory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fsdm_dir(tmp_path: Path) -> ChunkDirectory:
    """An empty data directory, of this test alone."""
    return ChunkDirectory(tmp_path / "fsdm")
