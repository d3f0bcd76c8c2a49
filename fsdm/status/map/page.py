"""The map as one HTML file that loads nothing else, and whose policy lets it load nothing.

Each mark is an element with its details as a title, which a script shows by pointer, focus and arrow keys. Gaps, double
covers and failing chunks stand in lists beneath: all, up to thousands.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from string import Template
from typing import TYPE_CHECKING, Final

from fsdm.model.units import count
from fsdm.status.coverage import marks
from fsdm.status.map import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.status.coverage import Coverage, CoverageMap

PARTS: Final = 400  # what is narrower than that is drawn with its neighbours: about 3 px of a screen
_WIDE: Final = 1 / 120  # from here on there is room for a line between neighbours
_OPEN: Final = 12  # a list of so many is shown at once
LISTED: Final = 5000  # … and no more than so many are in the page, which a browser is to open at once


def html(found: CoverageMap, caption: words.Caption) -> str:
    """Write the whole page."""
    script = words.resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return Template(words.resource("page.html")).substitute(
        policy=policy,
        data_dir=escape(caption.data_dir),
        style=words.resource("palette.css", "page.css"),
        body="\n".join(_body(found, caption)),
        script=script,
    )


def _body(found: CoverageMap, caption: words.Caption) -> Iterator[str]:
    yield f"<header><h1>fsdm map <span>{escape(caption.data_dir)}</span></h1>"
    yield f'<p class="faint">{escape(caption.line)}</p>'
    yield "</header>\n<main>"
    yield f'<dl class="tiles" aria-label="{escape(words.summary(found))}">'
    for number, noun, bad in words.tiles(found):
        yield f"<div{' class=bad' if bad else ''}><dt>{noun}</dt><dd>{number}</dd></div>"
    yield '</dl>\n<ul class="legend" aria-label="What the colours and patterns mean">'
    for kind in words.LEGEND:
        yield f'<li><b class="swatch {kind}"></b>{kind} <span>{words.MEANINGS[kind]}</span></li>'
    yield "</ul>"
    for coverage in found.coverages:
        yield from _dataset(coverage)
    if not found.coverages:
        yield f'<section><p class="faint">{words.EMPTY}</p></section>'
    if found.unplaced:
        yield f'<section><h2 class="words">{words.unplaced_title(found)}</h2><ul class="unplaced">'
        yield from (f"<li>{escape(words.chunk_line(chunk))}</li>" for chunk in found.unplaced)
        yield "</ul></section>"
    yield "</main>"


def _dataset(coverage: Coverage) -> Iterator[str]:
    name = coverage.dataset_id
    yield f'<section aria-labelledby="d{name}"><h2 id="d{name}">{coverage.title}</h2>'
    yield f'<p class="faint">{words.extent(coverage)}</p>'
    yield f'<div class="band" role="group" aria-label="Blocks of dataset {name[:12]}; arrow keys go along">'
    for number, mark in enumerate(marks(coverage, PARTS)):
        more = " wide" if mark.width > _WIDE else f" over {mark.bulk}-below" if mark.bulk != mark.kind else ""
        where = f"--x:{100 * mark.left:.5f};--w:{100 * mark.width:.5f}"
        yield (
            f'<i class="{mark.kind}{more}" role="img" tabindex="{0 if number == 0 else -1}" style="{where}" '
            f'title="{escape(words.details(coverage, mark))}"></i>'
        )
    first, *between, last = words.ticks(coverage)
    spans = "".join(f'<span class="between">{block:,}</span>' for block in between)
    yield f'</div>\n<div class="axis"><span>{first:,}</span>{spans}<span>{last:,}</span></div>'
    yield '<div class="below"><div class="scroll"><table class="kinds">'
    for kind, *cells in words.amount_rows(coverage):
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        yield f'<tr><th scope="row"><b class="swatch {kind}"></b>{kind}</th>{row}</tr>'
    yield "</table></div><div>"
    for kind, told in words.troubles(coverage).items():
        yield from _list(words.TROUBLES[kind], told)
    yield "</div></div></section>"


def _list(noun: str, told: words.Troubles) -> Iterator[str]:
    yield f"<details{' open' if len(told) <= _OPEN else ''}><summary>{count(len(told), noun)}</summary>"
    yield '<div class="scroll"><table>'
    yield from (f"<tr><td>{trouble.where}</td><td>{escape(trouble.what)}</td></tr>" for trouble in told[:LISTED])
    more = f"<p>… and {len(told) - LISTED:,} more: fsdm map --json tells all</p>" if len(told) > LISTED else ""
    yield f"</table></div>{more}</details>"
