"""`fsdm want`: ask for chunks."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fsdm.cli.arguments import open_client
from fsdm.cli.output import show, tell
from fsdm.model.errors import EXIT_OK, EXIT_USAGE, InvalidInputError
from fsdm.model.layout import is_id
from fsdm.status.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = """\
fsdm want -d data chunk.json
make-wants | fsdm want -d data -    # JSON Lines
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a want as JSON, or wants as JSON Lines; - is standard input; wrong ones are named, the others taken",
    )


def run(arguments: Namespace) -> int:
    """Place a want for each document; name those that cannot be taken, and go on."""
    from fsdm.model.documents import DataChunk, in_its_line

    code, placed = EXIT_OK, []
    with open_client(arguments) as client:
        for name, text, marker in _documents(arguments.files):
            try:
                chunk = DataChunk.parse_want(text, marker) if is_id(marker) else DataChunk.parse(text)
                client.download_chunk(chunk)
            except InvalidInputError as e:
                said = str(e) if marker else in_its_line(e)
                tell(f"fsdm: {name}: {plain(said)}")
                code = EXIT_USAGE
                continue
            placed.append(chunk.id)
    show(arguments, {"wanted": placed})
    return code


def _documents(names: list[str]) -> Iterator[tuple[str, bytes, str]]:
    """Read each document: a name for messages, its text, the file name if it is no JSON Lines."""
    for name in names:
        try:
            text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as e:
            raise InvalidInputError(f"{name} cannot be read: {e.strerror}", hint="check the path") from e
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not _is_json(text) and any(_is_json(line) for _, line in lines):
            for number, line in lines:
                yield f"{name}:{number}", line, ""
        else:
            yield name, text, os.path.basename(name)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
