"""`fsdm map`: draw which blocks are here, coming, retiring, registered, missing or doubly covered."""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fsdm.cli.arguments import data_dir_of, open_client
from fsdm.cli.ids import dataset_of, names_of
from fsdm.cli.output import tell, write_text
from fsdm.model.errors import InvalidInputError
from fsdm.status.chunk_status import known_chunks
from fsdm.status.coverage import CoverageMap
from fsdm.status.map.text import Style, lines
from fsdm.status.map.words import Caption, summary
from fsdm.status.reading import StatusReading
from fsdm.status.terminal import print_json
from fsdm.store.data_dir import unreadable

if TYPE_CHECKING:
    from fsdm.model.layout import Layout
    from fsdm.status.chunk_status import ChunkStatus, Status

EXAMPLES = """\
fsdm map -d data
fsdm map -d data 17ab                    # the one dataset whose id begins so
fsdm map -d data --html map.html         # the same as a page that needs nothing else; --svg as a drawing
fsdm map -d data --json | jq '.datasets[].segments[] | select(.kind == "missing")'
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="only this: an id, 4 or more digits of it, or a name"
    )
    parser.add_argument("--html", metavar="FILE", help="write it as one HTML file instead; - is standard output")
    parser.add_argument("--svg", metavar="FILE", help="write it as one SVG file instead; - is standard output")
    parser.add_argument(
        "--list",
        type=int,
        default=5,
        metavar="N",
        help="list so many gaps, double covers and failing chunks of a dataset (default 5; a page lists thousands)",
    )
    parser.add_argument(
        "--without-known", action="store_true", help="leave out what is only registered: a million takes a minute"
    )


def run(arguments: Namespace) -> None:
    """Draw the map, from the files alone: on the terminal, into files, or as JSON."""
    if arguments.list < 0:
        raise InvalidInputError("must not be negative", field="--list", hint="0 lists none")
    if [arguments.html, arguments.svg, "-" if arguments.json else None].count("-") > 1:
        raise InvalidInputError("only one thing can be written to standard output", hint="give the others a FILE")
    with open_client(arguments) as client:
        chunks, seen = _read(client.layout, without_known=arguments.without_known)
        caption = Caption.of(data_dir_of(arguments), time.time(), seen)
        found = CoverageMap.of(chunks, names_of(arguments, client.layout))
        del chunks  # as large as the map
        if arguments.dataset is not None:
            one = dataset_of(arguments, client.layout, [coverage.dataset_id for coverage in found.coverages])
            found = found.only(one)
    if arguments.html is not None:
        from fsdm.status.map.page import html

        write_text(arguments.html, html(found, caption))
    if arguments.svg is not None:
        from fsdm.status.map.drawing import svg

        write_text(arguments.svg, svg(found, caption, arguments.list))
    if arguments.json:
        print_json(_document(found))
    elif arguments.html is None and arguments.svg is None:
        _print(found, caption, arguments.list)


def _read(layout: Layout, *, without_known: bool) -> tuple[list[ChunkStatus], Status]:
    """Read how all chunks stand; what else was read for it is let go of, for the map is as large."""
    try:
        reading = StatusReading(layout)
        chunks = [*reading.each()]
        seen = reading.rest()
    except OSError as e:
        raise unreadable(layout, e) from e
    if reading.some_known and not without_known:
        chunks += [*known_chunks(layout, {chunk.id for chunk in chunks})]
    return chunks, seen


def _print(found: CoverageMap, caption: Caption, listed: int) -> None:
    style = Style.of(sys.stdout, os.environ, shutil.get_terminal_size().columns)
    for line in lines(found, style, listed):
        print(line)
    sys.stdout.flush()
    tell("; ".join([summary(found), *caption.facts]))


def _document(found: CoverageMap) -> dict[str, Any]:
    return {
        "datasets": [
            {
                "dataset_id": coverage.dataset_id,
                "dataset_name": coverage.name,
                "start": coverage.start,
                "end": coverage.end,
                "size_bytes": coverage.size_bytes,
                "kinds": {kind: asdict(amount) for kind, amount in coverage.amounts.items()},
                "segments": [asdict(segment) for segment in coverage.segments],
            }
            for coverage in found.coverages
        ],
        "unplaced": [{"id": c.id, "state": c.state, "error": c.error} for c in found.unplaced],
    }
