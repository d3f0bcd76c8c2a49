"""Documents of the command line: a file with one, files with JSON Lines, and standard input."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fsdm.cli.arguments import data_dir_of
from fsdm.cli.output import show, tell
from fsdm.cli.sources import fetching_for
from fsdm.model.errors import EXIT_OK, EXIT_USAGE, FsdmError, InvalidInputError
from fsdm.model.layout import Layout, is_id
from fsdm.status.terminal import plain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

    from fsdm.model.documents import DataChunk


def add_documents(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|URL|-",
        help="a want as JSON, or wants as JSON Lines; - is standard input; wrong ones are named, the others taken",
    )
    add_strict(parser)


def add_strict(parser: ArgumentParser) -> None:
    """Add `--strict`, for the verbs that take wants."""
    parser.add_argument(
        "--strict", action="store_true", help="refuse a want with a key that is not known (default: it is kept)"
    )


def place_each(
    arguments: Namespace, place: Callable[[DataChunk], None], done: str, refusals: type[FsdmError] = InvalidInputError
) -> int:
    """Place each document, and show the ids as `done`; name those that are refused, and go on; return the exit code."""
    from fsdm.model.documents import DataChunk, in_its_line
    from fsdm.model.unknown_keys import doubts

    code, placed = EXIT_OK, []
    for name, text, marker in _documents(arguments.files, Layout(data_dir_of(arguments))):
        try:
            chunk = DataChunk.parse_want(text, marker) if is_id(marker) else DataChunk.parse(text)
            doubtful = doubts(chunk, strict=arguments.strict)
            place(chunk)
        except InvalidInputError as e:
            said = str(e) if marker else in_its_line(e)
            tell(f"fsdm: {name}: {plain(said)}")
            code = EXIT_USAGE
        except refusals as e:
            tell(f"fsdm: {name}: {e}")
            code = code or e.exit_code
        else:
            placed.append(chunk.id)
            for key in doubtful:
                tell(f"fsdm: {name}: {plain(str(key))}")
    show(arguments, {done: placed})
    return code


def _documents(names: list[str], layout: Layout) -> Iterator[tuple[str, bytes, str]]:
    """Read each document: a name for messages, its text, the file name if it is no JSON Lines."""
    for given in names:
        name, text = _read(given, layout)
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not _is_json(text) and any(_is_json(line) for _, line in lines):
            for number, line in lines:
                yield f"{name}:{number}", line, ""
        else:
            yield name, text, os.path.basename(name)


def _read(name: str, layout: Layout) -> tuple[str, bytes]:
    """Read a file, standard input or what is at a URL: a name for messages, and the text."""
    if "://" in name:
        from fsdm.lists.assignment import open_list

        with open_list(name, fetching_for(name, layout)) as found:
            return found.name, found.file.read()
    try:
        return name, sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as e:
        raise InvalidInputError(f"{name} cannot be read: {e.strerror}", hint="check the path") from e


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
