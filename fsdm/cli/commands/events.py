"""`fsdm events`: show what has happened, of the trace that `fsdm run --trace` writes."""

from __future__ import annotations

import argparse
import os
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.arguments import data_dir_of, positive
from fsdm.cli.ids import DIGITS
from fsdm.cli.signals import asked_to_end
from fsdm.model.events import PHRASES, SYMBOLS
from fsdm.model.layout import Layout
from fsdm.status.terminal import encodable, plain, print_json
from fsdm.store.prefixes import is_prefix
from fsdm.store.trace_file import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_S: Final = 0.1
OF_THE_TRACE: Final = {"began": "the process has begun", "ended": "the process has ended"}

EXAMPLES = """\
fsdm events -d data
fsdm events -d data --follow -n 10
fsdm events -d data --chunk ID --event failed --event available
fsdm events data/trace.jsonl --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    told = "the trace, or the data directory that it is in (default: that of -d)"
    parser.add_argument("file", nargs="?", metavar="FILE", help=told)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, also over rotations")
    parser.add_argument("-n", "--last", type=positive, metavar="N", help="only the last N of those that are there")
    parser.add_argument(
        "--chunk", type=_digits, action="append", default=[], metavar="ID", help="only of this chunk: 4 or more digits"
    )
    kinds = [*PHRASES, *OF_THE_TRACE]
    parser.add_argument(
        "--event", choices=kinds, action="append", metavar="EVENT", help=f"only such: {', '.join(kinds)}"
    )


def _digits(text: str) -> str:
    if not is_prefix(text):
        raise argparse.ArgumentTypeError(f"{plain(text)[:80]!r} is no id: {DIGITS}")
    return text


def run(arguments: argparse.Namespace) -> None:
    """Print the events of a trace, the oldest first."""
    found = documents(_path(arguments), follow=arguments.follow)
    for document in _wanted(arguments, found):
        if arguments.json:
            print_json(document)
        else:
            print(encodable(_line(document)), flush=arguments.follow)


def _path(arguments: argparse.Namespace) -> str:
    named = arguments.file or data_dir_of(arguments)
    return Layout(named).trace if os.path.isdir(named) or not arguments.file else str(named)


def _wanted(arguments: argparse.Namespace, found: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    stop = asked_to_end()
    kept: deque[dict[str, Any]] | None = None if arguments.last is None else deque(maxlen=arguments.last)
    for document in found:
        if document is not None and not _is_wanted(arguments, document):
            continue
        if document is not None and kept is not None:
            kept.append(document)
            continue
        if document is not None:
            yield document
            continue
        if kept is not None:
            yield from kept
            kept = None
        if stop.wait(LOOK_S):
            return
    yield from kept or ()


def _is_wanted(arguments: argparse.Namespace, document: dict[str, Any]) -> bool:
    kind, chunk_id = document.get("event"), str(document.get("chunk_id") or "")
    of_chunk = kind == "gap" or not arguments.chunk or chunk_id.startswith(tuple(arguments.chunk))
    return of_chunk and (arguments.event is None or kind in arguments.event)


def _line(document: dict[str, Any]) -> str:
    """Make a line for people: the local time, the number, and what is said."""
    kind, text = str(document.get("event")), document.get("text")
    phrase = PHRASES.get(kind) or OF_THE_TRACE.get(kind, kind)  # type: ignore[call-overload]
    chunk_id, symbol = str(document.get("chunk_id") or "")[:12], SYMBOLS.get(kind, "·")  # type: ignore[call-overload]
    words = " ".join(filter(None, (symbol, chunk_id, phrase)))
    return plain(f"{_local(document.get('time'))} {document['seq']:>6} {words}{f': {text}' if text else ''}")


def _local(time: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(time)).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return f"{'-':19}"
