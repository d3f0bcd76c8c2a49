"""The map as one SVG file that needs nothing else; details are titles, shown on hover.

Text cannot flow in it, so lines are cut, and whole in their titles; of each dataset's gaps, double covers and failing
chunks the first are listed.
"""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING, Final

from fsdm.status.coverage import KINDS, marks
from fsdm.status.map import words

if TYPE_CHECKING:
    from fsdm.status.coverage import Coverage, CoverageMap, Kind, Mark

WIDTH: Final = 1040
LEFT: Final = 40
BAND: Final = WIDTH - 2 * LEFT  # how wide a band is
PARTS: Final = 400
_LINE: Final = 20
_HEIGHT: Final = 34  # of a band
_CUT: Final = 124  # characters of a listed line: of the widest there is room for so many
_CHARACTER: Final = 7.5  # wide


def svg(found: CoverageMap, caption: words.Caption, listed: int) -> str:
    """Draw all of it, with the first `listed` troubles of each kind."""
    sheet = _Sheet()
    _head(sheet, found, caption)
    for coverage in found.coverages:
        _dataset(sheet, coverage, listed)
    if not found.coverages:
        sheet.text(words.EMPTY, "faint")
    if found.unplaced:
        sheet.down(_LINE)
        sheet.text(words.unplaced_title(found), "faint")
        for line in words.first([*map(words.chunk_line, found.unplaced)], listed):
            sheet.cut(line)
    sheet.down(_LINE)
    return Template(words.resource("drawing.svg")).substitute(
        width=WIDTH,
        height=sheet.y,
        data_dir=escape(caption.data_dir),
        description=escape(f"{words.summary(found)}. {caption.line}"),
        style=words.resource("palette.css", "drawing.css"),
        parts="\n".join(sheet.parts),
    )


class _Sheet:
    """The drawing so far, from the top down; `y` is where it goes on."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.y = 0

    def down(self, height: int) -> None:
        self.y += height

    def at(self, x: float, text: str, style: str) -> None:
        self.parts.append(f'<text x="{x:g}" y="{self.y}" class="{style}">{escape(text)}</text>')

    def text(self, text: str, style: str) -> None:
        self.down(_LINE)
        self.at(LEFT, text, style)

    def cut(self, text: str, kind: Kind | None = None) -> None:
        """Write a line that may be too long; it is whole in its title."""
        self.down(_LINE)
        if kind is not None:
            self.swatch(LEFT, kind)
        shown = text if len(text) <= _CUT else f"{text[:_CUT]}…"
        self.parts.append(
            f'<text x="{LEFT + 20}" y="{self.y}" class="list">{escape(shown)}<title>{escape(text)}</title></text>'
        )

    def swatch(self, x: int, kind: Kind) -> None:
        self.parts.append(f'<rect x="{x}" y="{self.y - 10}" width="13" height="11" rx="2" class="{kind}"/>')


def _head(sheet: _Sheet, found: CoverageMap, caption: words.Caption) -> None:
    sheet.down(_LINE)
    sheet.text(f"fsdm map {caption.data_dir}", "title")
    sheet.text(words.summary(found), "")
    sheet.text(caption.line, "faint small")
    sheet.down(8)
    for number, kind in enumerate(words.LEGEND):
        column = number % 3
        sheet.down(0 if column else _LINE)
        x = LEFT + column * (BAND // 3)
        sheet.swatch(x, kind)
        sheet.parts.append(
            f'<text x="{x + 20}" y="{sheet.y}" class="small">{kind}'
            f'<tspan class="faint" dx="6">{words.MEANINGS[kind]}</tspan></text>'
        )


def _dataset(sheet: _Sheet, coverage: Coverage, listed: int) -> None:
    sheet.down(14)
    sheet.parts.append(f'<path d="M{LEFT} {sheet.y}h{BAND}" class="card"/>')
    sheet.down(6)
    sheet.text(coverage.title, "id")
    sheet.text(words.extent(coverage), "faint")
    sheet.down(18)
    on_top_last = sorted(marks(coverage, PARTS), key=lambda mark: -KINDS.index(mark.kind))
    sheet.parts += [_mark(coverage, mark, sheet.y) for mark in on_top_last]
    sheet.down(_HEIGHT + 14)
    blocks = words.ticks(coverage)
    for number, block in enumerate(blocks):
        style = "faint small" + (" end" if number == len(blocks) - 1 else " middle" if number else "")
        sheet.at(LEFT + BAND * number / (len(blocks) - 1), f"{block:,}", style)
    sheet.down(6)
    _amounts(sheet, coverage)
    sheet.down(8)
    for kind, told in words.troubles(coverage).items():
        for line in words.first(told, listed):
            sheet.cut(line, kind)


def _amounts(sheet: _Sheet, coverage: Coverage) -> None:
    """Write a table; how wide its columns are is guessed from the characters in them."""
    rows = words.amount_rows(coverage)
    widths = [28 + _CHARACTER * max(map(len, column)) for column in zip(*rows, strict=True)]
    for kind, *cells in rows:
        sheet.down(_LINE)
        sheet.swatch(LEFT, kind)
        sheet.at(LEFT + 20, kind, "")
        for number, cell in enumerate(cells):
            sheet.at(LEFT + sum(widths[: number + 2]), cell, "end")


def _mark(coverage: Coverage, mark: Mark, y: int) -> str:
    """Draw a rectangle, never too thin to be seen; a flag over it shows where it is.

    It is half a pixel wider than it is, or the seams between neighbours would look like gaps. What joins many shows
    most of what it is below what matters most of it.
    """
    width = max(BAND * mark.width + 0.5, 2)
    x = min(LEFT + BAND * mark.left, LEFT + BAND - width)
    more = ""
    if mark.bulk != mark.kind:
        more += f'<path d="M{x:.2f} {y + 14}h{width:.2f}v20h-{width:.2f}z" class="{mark.bulk}-below"/>'
    if mark.kind in words.TROUBLES:
        more += f'<path d="M{x + width / 2 - 5:.2f} {y - 9}h10l-5 7z" class="{mark.kind}"/>'
    how = " thin" if width < 6 else "" if mark.kind in words.TROUBLES else " wide"
    return (
        f'<g><title>{escape(words.details(coverage, mark))}</title><rect x="{x:.2f}" y="{y}" width="{width:.2f}" '
        f'height="{_HEIGHT}" class="{mark.kind}{how}"/>{more}</g>'
    )
