"""The pictures in README: they can be drawn by the documented command, are small, and are those that README shows."""

import re
import struct
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM
from tests.support.pages import PAGES, ROOT
from tests.support.pictures import FOLDER, MAX_BYTES, SIZES, draw


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height, in the first chunk of a PNG (RFC 2083, 4.1.1)."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def test_readme_shows_just_the_pictures_that_are_drawn_and_says_what_is_on_them() -> None:
    readme = PAGES["README.md"].read_text(encoding="utf-8")
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', readme)
    assert sorted(ROOT / path for path in shown) == sorted(FOLDER / name for name in SIZES)
    assert all(len(alt) > 40 for alt in re.findall(r'<img src="[^"]+" alt="([^"]*)"', readme))


def test_pictures_are_small_and_as_large_as_they_are_drawn() -> None:
    for name, size in SIZES.items():
        picture = (FOLDER / name).read_bytes()
        assert size_of(picture) == size
        assert len(picture) < MAX_BYTES


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: chromium)")
def test_pictures_can_be_drawn_anew(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw(folder, tmp_path / "data")
    drawn = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: size_of(picture) for name, picture in drawn.items()} == SIZES
    assert drawn["page-light.png"] != drawn["page-dark.png"]
