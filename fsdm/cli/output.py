"""Printing of the verbs: data on stdout as text or as JSON, messages on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError
from fsdm.model.units import lasting, readable
from fsdm.status.terminal import plain, print_json
from fsdm.store.filesystem import FileSystem

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Iterator, Sequence

ASSUMED_BYTES_PER_S: Final = 50e6


def show(arguments: Namespace, document: object, lines: Iterable[str] = ()) -> None:
    """Print the document with --json, else the lines."""
    if arguments.json:
        print_json(document)
        return
    for line in lines:
        print(line)


def row(*cells: object) -> str:
    return "\t".join(map(str, cells))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align rows in columns below a header, for a screen; the last column is as wide as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)][:-1]
    for cells in (header, *rows):
        yield "  ".join([*(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip()


def add_human(parser: ArgumentParser) -> None:
    """Add `-h` as in ls(1), for a module with H_IS_HUMAN."""
    parser.add_argument("-h", "--human", action="store_true", help="sizes as people read them: 1.5 GB (as on a screen)")


def tell(message: str) -> None:
    print(message, file=sys.stderr)


def to_fetch(size_bytes: int, undeclared: int) -> str:
    """Say how much is to be fetched; `undeclared` files declare no size."""
    more = f", and {undeclared} files that declare no size" if undeclared else ""
    return f"{readable(size_bytes)} to fetch{more}"


def estimate(size_bytes: int, bytes_per_s: float | None) -> str:
    """Say how long so many bytes take at least; a rate without a cap is assumed, and told so."""
    rate = bytes_per_s or ASSUMED_BYTES_PER_S
    assumed = "" if bytes_per_s else ", which is assumed"
    return f"at least {lasting(size_bytes / rate)}, at {readable(int(rate))} a second{assumed}"


def write_text(name: str, text: str) -> None:
    """Write a file by a rename: a reader sees the old one or the new one, whole. `-` is stdout.

    Raises:
        InvalidInputError: it cannot be written.
    """
    if name == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(name)
    if os.path.exists(path) and not os.path.isfile(path):
        raise InvalidInputError(f"{plain(name)} is not a file", hint="name a file to be written, or - for stdout")
    try:
        FileSystem().write(path, text.encode(), durable=False)
    except OSError as e:
        raise InvalidInputError(f"{plain(name)} cannot be written: {e.strerror}", hint="check the path") from e
