"""The picture as one HTML file, without a script, that loads nothing and whose policy lets it load nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.inventory import totals
from fsdm.fleet.picture.ranges import MEANINGS, parts_of
from fsdm.fleet.placing import Reason
from fsdm.fleet.summary import KEYS, REASONS
from fsdm.model.units import count, readable
from fsdm.status.map.words import resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.fleet.picture.ranges import Part
    from fsdm.fleet.round import Round
    from fsdm.fleet.summary import Amount, Summary

LISTED: Final = 200  # workers and chunks in a table


def html(one: Round) -> str:
    """Write the whole page."""
    here = files("fsdm.fleet.picture")
    style = resource("palette.css", "page.css") + here.joinpath("page.css").read_text(encoding="utf-8")
    page = here.joinpath("page.html").read_text(encoding="utf-8")
    return Template(page).substitute(title=escape(one.shelf.path), style=style, body="\n".join(_body(one)))


def _body(one: Round) -> Iterator[str]:
    found = one.summary()
    at = f"{datetime.fromtimestamp(one.now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    yield f"<header><h1>fsdm place <span>{escape(one.shelf.path)}</span></h1>"
    yield f'<p class="faint">{at}</p></header>\n<main>'
    yield from _tiles(found)
    yield from _workers(one)
    yield '<ul class="legend" aria-label="What the colours mean">'
    yield from (f'<li><b class="swatch {kind}"></b><span>{said}</span></li>' for kind, said in MEANINGS.items())
    yield "</ul>"
    for dataset, parts in parts_of(one.wants, one.chunks, one.workers, one.placement):
        yield from _dataset(dataset, parts)
    yield from _moves(one, found)
    yield from _short(found)
    yield "</main>"


def _tiles(found: Summary) -> Iterator[str]:
    added = sum(amount.bytes for amount in found.added.values())
    tiles = [
        (f"{found.chunks:,}", "chunks", False),
        *(
            (f"{number:,}", f"workers {name}", name in {"away", "gone"})
            for name, number in found.workers.items()
            if number
        ),
        (readable(added), "added", False),
        (readable(found.leaving.bytes), "leaving", False),
        (readable(found.dropped.bytes), "dropped", False),
        (f"{len(found.short):,}", "chunks with too few copies", bool(found.short)),
        (f"{found.lost:,}", "chunks confirmed by none", bool(found.lost)),
    ]
    yield '<dl class="tiles">'
    for number, noun, bad in tiles:
        yield f"<div{' class=bad' if bad else ''}><dt>{noun}</dt><dd>{number}</dd></div>"
    yield "</dl>"


def _workers(one: Round) -> Iterator[str]:
    """Draw a bar for each worker: what its list takes of its capacity, and a line at its share."""
    loads = one.placement.loads
    yield '<section><h2 class="words">How full the workers are</h2>'
    yield '<p class="faint">Each bar is a capacity; the line is the share that it is to have.</p>'
    yield '<div class="bars" role="group" aria-label="Workers">'
    for number in np.lexsort((np.arange(len(one.workers)), one.workers.zone)).tolist():
        worker = one.workers.all[number]
        capacity = max(worker.capacity_bytes, 1)
        kept, target = int(loads.kept[number]), int(loads.target[number])
        standing = "draining" if worker.draining else worker.presence.name.lower()
        said = (
            f"{worker.name}{f' in {worker.zone}' if worker.zone else ''}, {standing}: {readable(kept)} of "
            f"{readable(worker.capacity_bytes)} ({kept / capacity:.1%}), its share is {readable(target)}, "
            f"{readable(int(loads.flight[number]))} on its way"
        )
        where = f"--f:{min(100 * kept / capacity, 100):.1f};--t:{min(100 * target / capacity, 100):.1f}"
        yield f'<i class="{standing}" role="img" style="{where}" title="{escape(said)}"></i>'
    yield "</div></section>"


def _dataset(dataset: str, parts: list[Part]) -> Iterator[str]:
    chunks = sum(part.chunks for part in parts)
    yield f"<section><h2>{dataset}</h2>"
    yield f'<p class="faint">{count(chunks, "chunk")}, blocks {parts[0].start:,} to {parts[-1].end:,}</p>'
    yield '<div class="band" role="group" aria-label="Chunks in the order of their blocks">'
    for part in parts:
        said = (
            f"blocks {part.start:,} to {part.end:,}: {count(part.chunks, 'chunk')}, of {part.wanted} copies at least "
            f"{part.listed} in the lists and {part.confirmed} confirmed"
        )
        where = f"--x:{100 * part.left:.5f};--w:{100 * part.width:.5f}"
        yield f'<i class="{part.kind}" role="img" style="{where}" title="{said}"></i>'
    yield "</div></section>"


def _moves(one: Round, found: Summary) -> Iterator[str]:
    """List what is added, and why; and the workers that are given most."""
    yield '<section><h2 class="words">What moves</h2><div class="scroll"><table class="kinds">'
    for reason in Reason:
        yield _row(f"added: {REASONS[reason]}", found.added[KEYS[reason]])
    yield _row("leaving, once others are confirmed", found.leaving)
    yield _row("dropped", found.dropped)
    yield "</table></div>"
    workers, size, placement = len(one.workers), one.chunks.size, one.placement
    added, leaving, dropped = (
        totals(some % workers, size[some // workers], workers)
        for some in (placement.added, placement.leaving, placement.dropped)
    )
    busy = np.flatnonzero(added + leaving + dropped)
    if busy.size:
        heads = "".join(f"<td>{head}</td>" for head in ("added", "leaving", "dropped"))
        yield f'<div class="scroll"><table class="kinds"><tr><th>worker</th>{heads}</tr>'
    for number in busy[np.lexsort((busy, -(added + leaving + dropped)[busy]))][:LISTED].tolist():
        cells = "".join(f"<td>{readable(int(some[number]))}</td>" for some in (added, leaving, dropped))
        yield f'<tr><th scope="row">{escape(one.workers.all[number].name)}</th>{cells}</tr>'
    if busy.size:
        yield f"</table></div>{_more(busy.size)}"
    yield "</section>"


def _row(said: str, amount: Amount) -> str:
    return f'<tr><th scope="row">{said}</th><td>{amount.copies:,}</td><td>{readable(amount.bytes)}</td></tr>'


def _short(found: Summary) -> Iterator[str]:
    if not found.short:
        return
    yield f'<section><h2 class="words">{count(len(found.short), "chunk")} with too few copies</h2>'
    yield '<div class="scroll"><table>'
    for short in found.short[:LISTED]:
        told = f"{short.confirmed} confirmed, {short.copies} of {short.wanted} in the lists"
        yield f"<tr><td>{short.id}</td><td>{told}</td><td>{short.why}</td></tr>"
    yield f"</table></div>{_more(len(found.short))}</section>"


def _more(number: int) -> str:
    return f"<p>… and {number - LISTED:,} more: fsdm place --json tells all</p>" if number > LISTED else ""
