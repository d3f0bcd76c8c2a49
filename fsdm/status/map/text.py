"""The map in a terminal: a band a dataset, the amount of each kind, and its troubles.

The glyphs differ, so that it reads without colour too; in ASCII where the stream takes no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, TextIO

from fsdm.status.coverage import cells
from fsdm.status.map import words
from fsdm.status.terminal import is_screen, takes_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.status.coverage import Coverage, CoverageMap, Kind

# a glyph, one in ASCII, and SGR parameters of ECMA-48; what matters most is reversed: a single cell is to be seen
LOOKS: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "here": ("█", "#", "32"),
    "known": ("▁", "_", "92"),
    "coming": ("▄", "+", "36"),
    "failing": ("!", "!", "97;45"),
    "retiring": ("░", "-", "90"),
    "doubled": ("╬", "=", "30;43"),
    "missing": ("·", ".", "97;41"),
}

_INDENT: Final = "  "
_NARROWEST: Final = 12


@dataclass(frozen=True, slots=True)
class Style:
    """The width, the colours and the characters of a stream."""

    width: int
    colour: bool = False
    ascii: bool = False

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str], width: int) -> Style:
        """Choose colour for a terminal, but for NO_COLOR (https://no-color.org); else ASCII."""
        colour = is_screen(stream) and not environ.get("NO_COLOR")
        return cls(width, colour, ascii=not takes_utf8(stream.encoding, environ))

    def paint(self, kind: Kind, times: int = 1) -> str:
        glyph, ascii_glyph, colour = LOOKS[kind]
        glyphs = (ascii_glyph if self.ascii else glyph) * times
        return f"\x1b[{colour}m{glyphs}\x1b[0m" if self.colour else glyphs


def lines(found: CoverageMap, style: Style, listed: int) -> Iterator[str]:
    """Draw the map line by line, with the first `listed` troubles of each kind."""
    for line in _lines(found, style, listed):
        yield line.replace("…", "...").encode("ascii", "backslashreplace").decode() if style.ascii else line


def _lines(found: CoverageMap, style: Style, listed: int) -> Iterator[str]:
    for number, coverage in enumerate(found.coverages):
        yield from ("",) if number else ()
        yield from _dataset(coverage, style, listed)
    if found.unplaced:
        yield from ("",) if found.coverages else ()
        yield words.unplaced_title(found)
        yield from (_INDENT + line for line in words.first([*map(words.chunk_line, found.unplaced)], listed))


def _dataset(coverage: Coverage, style: Style, listed: int) -> Iterator[str]:
    width = max(style.width - 2 * len(_INDENT), _NARROWEST)
    yield coverage.title
    yield words.extent(coverage)
    yield _INDENT + "".join(style.paint(kind, len([*same])) for kind, same in groupby(cells(coverage, width)))
    left, right = f"{coverage.start:,}", f"{coverage.end - 1:,}"
    gap = width - len(left) - len(right)
    yield _INDENT + (f"{left}{' ' * gap}{right}" if gap > 0 else f"{left} - {right}")
    yield from _amounts(coverage, style)
    for kind, told in words.troubles(coverage).items():
        yield from (f"{_INDENT * 2}{style.paint(kind)} {line}" for line in words.first(told, listed))


def _amounts(coverage: Coverage, style: Style) -> Iterator[str]:
    """Write a table, which is the legend as well; columns that do not fit are left out."""
    rows = words.amount_rows(coverage)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for kind, *others in rows:
        line, room = f"{kind:<{widths[0]}}", style.width - len(_INDENT) - 2
        for text, width in zip(others, widths[1:], strict=True):
            if len(line) + 2 + width > room:
                break
            line += f"  {text:>{width}}"
        yield f"{_INDENT}{style.paint(kind)} {line.rstrip()}"
