"""Keys of indexes as people write them: hex digits, or text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fsdm.cli.ids import add_block
from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

HEX: Final = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2})+)\Z")


def add_block_or_key(parser: ArgumentParser) -> None:
    """Add a dataset and a block, or the key of an index in their place."""
    add_block(parser, nargs="?")
    add_key(parser)


def add_key(parser: ArgumentParser) -> None:
    """Add the key of an index, in place of what is named otherwise."""
    parser.add_argument(
        "--key",
        nargs=2,
        metavar=("NAME", "HEX|TEXT"),
        help="in place of a block, the key of an index: every chunk that holds it; hex digits are taken for bytes, and "
        "for text where no chunk holds these",
    )


def check_block_or_key(arguments: Namespace, verb: str) -> None:
    """Raise InvalidInputError unless one of both is given."""
    is_block = arguments.dataset is not None and arguments.block is not None
    if is_block == (arguments.key is not None) or (arguments.dataset is not None) != is_block:
        hint = f"fsdm {verb} --help"
        raise InvalidInputError("takes DATASET and BLOCK, or --key NAME KEY", field=verb, hint=hint)


def keys_in(text: str) -> Iterator[bytes]:
    """Yield the keys that a text may mean, the bytes first.

    Raises:
        InvalidInputError: it is empty.
    """
    if match := HEX.match(text):
        yield bytes.fromhex(match[1])
    if text:
        yield text.encode(errors="surrogateescape")
    else:
        raise InvalidInputError("is empty", field="--key")
