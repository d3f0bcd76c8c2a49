"""The map in a terminal: a band a dataset, what it consists of, and what somebody may want to look at.

The glyphs differ, so that it reads without colour too; in ASCII where the stream takes no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.model.units import count
from fsdm.status.band import cells
from fsdm.status.map.words import extent, first, tally_rows, troubles, unplaced_line
from fsdm.status.terminal import is_screen, takes_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.status.coverage import Atlas, Coverage, Kind

GLYPHS: Final[Mapping[Kind, str]] = {
    "here": "█", "coming": "▄", "failing": "!", "retiring": "░", "doubled": "╬", "missing": "·",
}  # fmt: skip
ASCII_GLYPHS: Final[Mapping[Kind, str]] = {
    "here": "#", "coming": "+", "failing": "!", "retiring": "-", "doubled": "=", "missing": ".",
}  # fmt: skip
# SGR parameters of ECMA-48, in the terminal's own colours; what matters most is reversed: a single cell is to be seen
COLOURS: Final[Mapping[Kind, str]] = {
    "here": "32", "coming": "36", "failing": "97;45", "retiring": "90", "doubled": "30;43", "missing": "97;41",
}  # fmt: skip

_INDENT: Final = "  "
_NARROWEST: Final = 12
_ASCII: Final = str.maketrans({"…": "..."})


@dataclass(frozen=True, slots=True)
class Style:
    """What the stream can show."""

    width: int
    colour: bool = False
    ascii: bool = False

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str], width: int) -> Style:
        """Colour for a terminal, but for NO_COLOR (https://no-color.org); ASCII where it takes no more."""
        colour = is_screen(stream) and not environ.get("NO_COLOR")
        return cls(width, colour, ascii=not takes_utf8(stream.encoding, environ))


def lines(atlas: Atlas, style: Style, listed: int) -> Iterator[str]:
    """The map, a line at a time, with so many of each dataset's gaps, double covers and failing chunks listed."""
    for line in _lines(atlas, style, listed):
        yield line.translate(_ASCII).encode("ascii", "backslashreplace").decode() if style.ascii else line


def _lines(atlas: Atlas, style: Style, listed: int) -> Iterator[str]:
    for number, coverage in enumerate(atlas.coverages):
        yield from ("",) if number else ()
        yield from _dataset(coverage, style)
        for kind, same in groupby(troubles(coverage), key=lambda trouble: trouble.kind):
            glyph = _paint(kind, 1, style)
            yield from (
                f"{_INDENT * 2}{glyph} {line}" for line in first([f"{t.where}  {t.what}" for t in same], listed)
            )
    if atlas.unplaced:
        yield from ("",) if atlas.coverages else ()
        yield f"{count(len(atlas.unplaced), 'chunk')} on no band: what blocks they cover is not known"
        yield from (_INDENT + line for line in first([unplaced_line(chunk) for chunk in atlas.unplaced], listed))


def _dataset(coverage: Coverage, style: Style) -> Iterator[str]:
    width = max(style.width - 2 * len(_INDENT), _NARROWEST)
    yield coverage.dataset_id
    yield extent(coverage)
    yield _INDENT + _band(cells(coverage, width), style)
    yield _INDENT + _axis(coverage, width)
    yield from _tallies(coverage, style)


def _band(kinds: list[Kind], style: Style) -> str:
    return "".join(_paint(kind, len(list(same)), style) for kind, same in groupby(kinds))


def _paint(kind: Kind, times: int, style: Style) -> str:
    glyphs = (ASCII_GLYPHS if style.ascii else GLYPHS)[kind] * times
    return f"\x1b[{COLOURS[kind]}m{glyphs}\x1b[0m" if style.colour else glyphs


def _axis(coverage: Coverage, width: int) -> str:
    """The first and the last block, under the ends of the band."""
    left, right = f"{coverage.start:,}", f"{coverage.end - 1:,}"
    gap = width - len(left) - len(right)
    return f"{left}{' ' * gap}{right}" if gap > 0 else f"{left} - {right}"


def _tallies(coverage: Coverage, style: Style) -> Iterator[str]:
    """A table, which is the legend as well; its last columns are left out where there is no room."""
    rows = tally_rows(coverage)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for kind, *others in rows:
        line, room = f"{kind:<{widths[0]}}", style.width - len(_INDENT) - 2
        for text, width in zip(others, widths[1:], strict=True):
            if len(line) + 2 + width > room:
                break
            line += f"  {text:>{width}}"
        yield f"{_INDENT}{_paint(kind, 1, style)} {line.rstrip()}"
