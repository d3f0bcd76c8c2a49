"""`fsdm place`: say which worker of a fleet is to hold which chunks, and publish it."""

from __future__ import annotations

import os
import re
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict
from importlib import import_module
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from fsdm.cli.arguments import add_brake, positive, seconds, share, size
from fsdm.cli.output import row, show, tell, write_text
from fsdm.model.errors import FsdmError, InvalidInputError
from fsdm.model.layout import as_id
from fsdm.model.units import count, readable
from fsdm.status.terminal import plain
from fsdm.transfer.http.target import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.fleet.moves import Move
    from fsdm.fleet.object_shelf import ObjectShelf
    from fsdm.fleet.shelf import Shelf
    from fsdm.fleet.summary import Amount, Summary
    from fsdm.model.plain_wants import PlainWant

EXAMPLES = """\
fsdm place assignment.jsonl --workers workers.jsonl --reports reports --to fleet --dry-run
fsdm place assignment.jsonl --workers workers.jsonl --reports reports --to fleet --replicas 2
fsdm place assignment.jsonl --workers workers.jsonl --to fleet --explain w1      # or a chunk's id
fsdm place assignment.jsonl --workers workers.jsonl --to fleet --dry-run --html fleet.html
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "list", metavar="FILE|URL|-", help="all the chunks of the fleet: JSON Lines, as `fsdm sync` takes them"
    )
    parser.add_argument("--workers", required=True, metavar="FILE", help="the workers: JSON Lines (`fsdm docs fleet`)")
    parser.add_argument("--to", required=True, metavar="DIR|s3://…", help="publish there, and go on from what is there")
    parser.add_argument(
        "--sources", metavar="FILE", help="how the store is reached: [[source]] tables (`fsdm docs sources`)"
    )
    parser.add_argument(
        "--reports", metavar="DIR|s3://…", help="the workers' reports: NAME.json; without, nothing is confirmed"
    )
    parser.add_argument("--expect", type=positive, metavar="N", help="refuse a list that has not just N wants")
    parser.add_argument(
        "--replicas",
        type=_replicas,
        action="append",
        default=[],
        metavar="[DATASET=]N",
        help="copies of each chunk, or of each of a dataset; several times (default 3)",
    )
    parser.add_argument("--assume-bytes", type=size, metavar="SIZE", help="the size of a file that declares none")
    parser.add_argument("--full", type=share, default="0.95", metavar="SHARE", help="of a capacity is given (95%%)")
    parser.add_argument(
        "--in-flight", type=size, default="100G", metavar="SIZE", help="a worker may have to fetch at once (100G)"
    )
    parser.add_argument(
        "--moves", type=positive, default=10_000, metavar="N", help="copies moved in a round at most (10000)"
    )
    parser.add_argument("--silent", type=seconds, default=120.0, metavar="S", help="a worker is away after (120)")
    parser.add_argument(
        "--grace", type=seconds, default=600.0, metavar="S", help="its copies are made anew elsewhere after (600)"
    )
    parser.add_argument(
        "--peers",
        type=_peers,
        metavar="URL",
        help="workers without a `url` serve their chunks at, as http://{name}:8081: lists name who holds a chunk",
    )
    parser.add_argument(
        "--explain", metavar="CHUNK|WORKER", help="say where it is to be, or what it is to hold, and why"
    )
    parser.add_argument("--html", metavar="FILE", help="draw it as one HTML file; - is standard output")
    parser.add_argument(
        "--metrics-file", metavar="FILE", help="write the figures there, for the textfile collector of node_exporter"
    )
    parser.add_argument(
        "--list-short", type=int, default=10, metavar="N", help="name so many chunks that stay short (10)"
    )
    parser.add_argument(
        "--list-moves", type=int, default=20, metavar="N", help="of a dry run, say so many moves (20); --json: all"
    )
    add_brake(parser)


def _peers(text: str) -> str:
    from fsdm.fleet.documents import NAME_IN_URL, as_peer_url

    try:
        url = as_peer_url(text)
    except ValueError as e:
        raise ArgumentTypeError(str(e)) from None
    if NAME_IN_URL not in url:
        raise ArgumentTypeError(f"must have {NAME_IN_URL} in it, for the worker's name: else give each a `url`")
    return url


def _replicas(text: str) -> tuple[str | None, int]:
    dataset, _, number = text.rpartition("=")
    if not re.fullmatch("[0-9]{1,2}", number) or not 1 <= int(number) <= 64:
        raise ArgumentTypeError(f"{text!r} must be a number from 1 to 64, perhaps behind DATASET=")
    try:
        return (as_id(dataset, "") if dataset else None), int(number)
    except InvalidInputError as e:
        raise ArgumentTypeError(f"the dataset {e}") from None


def run(arguments: Namespace) -> None:
    """Read all, place it, and publish it unless it is only asked for."""
    from fsdm.lists.assignment import read_assignment

    if arguments.html == "-" and (arguments.json or arguments.explain):
        raise InvalidInputError("only one thing can be written to standard output", hint="give the page a FILE")
    how = _options(arguments)
    wants = how.wants()

    def add(want: PlainWant) -> bool:
        wants.add(want)
        return True

    with read_assignment(arguments.list, arguments.expect, wants.add, add) as assignment:
        if not len(assignment) and not arguments.yes:
            raise InvalidInputError("the list is empty", hint="nothing was changed; where all is to go, say so: --yes")
        shelf, reports = _shelf(arguments), _reports(arguments)
        one = _round().Round.read(wants, arguments.workers, reports, shelf, how, time.time())
        for name, why in one.broken.items():
            tell(f"fsdm: the report of {plain(name)} cannot be read, and {plain(name)} counts as away: {plain(why)}")
        if arguments.explain is not None:
            lines = one.explain(arguments.explain)
            show(arguments, {"asked": arguments.explain, "why": lines}, lines)
            return
        if arguments.html is not None:
            write_text(arguments.html, import_module("fsdm.fleet.picture.page").html(one))
        pointer = None if arguments.dry_run else one.publish(assignment)
    if arguments.metrics_file is not None and not arguments.dry_run:
        text = import_module("fsdm.fleet.metrics").metrics(one, pointer or one.published.pointer)
        write_text(arguments.metrics_file, text)
    number = None if pointer is None else pointer.number
    document = {"dry_run": arguments.dry_run, "published": number, **asdict(found := one.summary())}
    moves = one.moves() if arguments.dry_run else []
    if arguments.dry_run and arguments.json:
        document["moves"] = [move.to_json() for move in moves]
    if arguments.html != "-":  # else stdout has the page
        lines = chain(_lines(found, arguments.list_short), _move_lines(moves, max(arguments.list_moves, 0)))
        show(arguments, document, lines)
    if not arguments.json:
        said = f"published as number {number}" if number else "nothing has changed: the last lists hold"
        tell("nothing was published: this was a dry run" if arguments.dry_run else said)


def _shelf(arguments: Namespace) -> Shelf:
    """Open the place that is published to."""
    to, reports = arguments.to, arguments.reports or ""
    if arguments.sources is not None and "://" not in to + reports:
        raise InvalidInputError("it is of use for an object store alone", field="--sources")
    if "://" not in to:
        from fsdm.fleet.shelf import Directory

        return Directory(to)
    if not to.startswith("s3://"):
        hint = "or into a directory that a web server serves"
        raise InvalidInputError(f"{shown(to)}: it is published into s3:// alone", field="--to", hint=hint)
    return _object_shelf(arguments, to)


def _reports(arguments: Namespace) -> str | dict[str, bytes] | None:
    """Return the directory of the reports, or those of an object store."""
    where: str | None = arguments.reports
    if where is None or "://" not in where:
        return where
    if not where.startswith("s3://"):
        hint = "or from a directory, where what takes their PUT writes them"
        raise InvalidInputError(f"{shown(where)}: they are read from s3:// alone", field="--reports", hint=hint)
    return _object_shelf(arguments, where).read_all(".json")


def _object_shelf(arguments: Namespace, url: str) -> ObjectShelf:
    from fsdm.cli.config import SOURCES, read_config_at
    from fsdm.fleet.object_shelf import ObjectShelf
    from fsdm.transfer.http.source_settings import Sources

    file = arguments.sources
    if file is not None and not os.path.exists(file):
        raise InvalidInputError(f"{file} is not there", field="--sources", hint="check the path")
    tables = () if file is None else read_config_at(os.path.abspath(file)).get(SOURCES, ())
    return ObjectShelf(url, Sources(tables, os.path.dirname(os.path.abspath(file or "."))))


def _round() -> Any:
    try:
        return import_module("fsdm.fleet.round")
    except ModuleNotFoundError as e:
        if e.name != "numpy":
            raise
        raise FsdmError("numpy is missing, which places chunks", hint="pip install 'fsdm[fleet]'") from e


def _options(arguments: Namespace) -> Any:
    round_ = _round()
    bounds = round_.Bounds(
        full=1.0 if arguments.full is None else arguments.full,
        in_flight_bytes=arguments.in_flight,
        moves=arguments.moves,
        brake=None if arguments.yes else arguments.brake,
    )
    copies = dict(arguments.replicas)
    return round_.Options(
        replicas={dataset: number for dataset, number in copies.items() if dataset},
        otherwise=copies.get(None, 3),
        assumed_bytes=arguments.assume_bytes,
        bounds=bounds,
        peers=arguments.peers or "",
        silent_s=arguments.silent,
        grace_s=max(arguments.grace, arguments.silent),
    )


def _lines(found: Summary, listed: int) -> Iterator[str]:
    standing = ", ".join(f"{number} {name}" for name, number in found.workers.items() if number)
    yield f"{count(found.chunks, 'chunk')} on workers: {standing}"
    for reason, amount in found.added.items():
        yield row("added", _amount(amount), reason)
    yield row("leaving", _amount(found.leaving))
    yield row("dropped", _amount(found.dropped))
    yield f"the lists take {found.fullness[0]:.1%} to {found.fullness[1]:.1%} of the capacities"
    if found.lost:
        yield f"{count(found.lost, 'chunk')} confirmed by no worker that is live"
    if found.failing:
        yield row("failing", f"{count(found.failing, 'chunk')} that workers cannot fetch: fsdm status there says why")
    if found.braked:
        braked = f"{count(len(found.braked), 'worker')} whose own brake holds deletes back"
        yield row("braked", braked, " ".join(found.braked[:listed]))
    if found.short:
        yield f"{count(len(found.short), 'chunk')} with too few copies"
    for short in found.short[:listed]:
        yield row(short.id, f"{short.confirmed} confirmed, {short.copies} of {short.wanted}", short.why)


def _move_lines(moves: Iterable[Move], listed: int) -> Iterator[str]:
    """Say so many of the moves, and how many more there are."""
    rest = iter(moves)
    for move in islice(rest, listed):
        way = f"{move.origin or '(new)'} → {move.target or '(gone)'}"
        yield row(move.chunk, way, readable(move.bytes), f"{move.reason}: {move.why}")
    if more := sum(1 for _ in rest):
        yield f"{count(more, 'more move')}: --list-moves N, or --json for all"


def _amount(amount: Amount) -> str:
    return f"{amount.copies} ({readable(amount.bytes)})"
