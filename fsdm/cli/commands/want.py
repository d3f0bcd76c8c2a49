"""`fsdm want`: ask for chunks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import open_client
from fsdm.model.errors import EXIT_OK, EXIT_USAGE, InvalidInputError
from fsdm.status.terminal import plain, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fsdm.model.documents import DataChunk

EXAMPLES: Final = """\
fsdm want -d data chunk.json
make-wants | fsdm want -d data -    # JSON Lines
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a want as JSON, or JSON Lines; - is standard input; one that cannot be taken does not keep the others",
    )


def run(arguments: argparse.Namespace) -> int:
    """Place a want for each document; those that cannot be taken do not keep the others."""
    from fsdm.model.documents import in_its_line

    code, placed = EXIT_OK, []
    with open_client(arguments) as client:
        for name, text, marker in _documents(arguments.files):
            try:
                chunk = _parse_want(text, marker)
                client.download_chunk(chunk)
            except InvalidInputError as e:
                said = str(e) if marker else in_its_line(e)
                print(f"fsdm: {name}: {plain(said)}", file=sys.stderr)
                code = EXIT_USAGE
                continue
            placed.append(chunk.id)
    if arguments.json:
        print_json({"wanted": placed})
    return code


def _parse_want(text: bytes, marker: str) -> DataChunk:
    from fsdm.model.documents import DataChunk
    from fsdm.model.layout import is_id

    return DataChunk.parse_want(text, marker) if is_id(marker) else DataChunk.parse(text)


def _documents(names: list[str]) -> Iterator[tuple[str, bytes, str]]:
    """(what to call it, its text, the name of its file) of each document; a file has one, or, without that name, one a
    line."""
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
