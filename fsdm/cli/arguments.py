"""What several verbs take from their arguments: the data directory, a chunk by one of its blocks, numbers and sizes."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from fsdm.model.errors import InvalidInputError, NotAvailableError

if TYPE_CHECKING:
    import argparse

    from fsdm.client import Client
    from fsdm.store.refs import ChunkRef


def data_dir_of(arguments: argparse.Namespace) -> str:
    """The data directory that was named.

    Raises:
        InvalidInputError: none was.
    """
    if not arguments.data_dir:
        raise InvalidInputError("which data directory?", hint="pass -d DIR, or set FSDM_DATA_DIR")
    return str(arguments.data_dir)


def open_client(arguments: argparse.Namespace) -> Client:
    """A client of that directory."""
    from fsdm.client import Client

    return Client(data_dir_of(arguments))


def find_ref(client: Client, arguments: argparse.Namespace) -> ChunkRef:
    """A ref to the chunk of DATASET that is responsible for BLOCK.

    Raises:
        NotAvailableError: there is none.
    """
    ref = client.find_chunk(arguments.dataset, arguments.block)
    if ref is None:
        raise NotAvailableError(f"no available chunk of {arguments.dataset} holds block {arguments.block}")
    return ref


def positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError("must be at least 1")
    return value


def seconds(text: str) -> float:
    """A time in seconds, from a hundredth to a day."""
    value = float(text)
    if not 0.01 <= value <= 86_400:
        raise ArgumentTypeError("must be from 0.01 to 86400 seconds")
    return value


def size(text: str) -> int:
    """A number of bytes, as 900G or 1.5Ti."""
    from fsdm.model.units import parse_size

    try:
        return parse_size(text)
    except InvalidInputError as e:
        raise ArgumentTypeError(f"{e}: {e.hint}") from None


def share(text: str) -> float | None:
    """A part of what is here, as 0.25 or 25%, or off."""
    from fsdm.reconcile.brake import parse_share

    try:
        return parse_share(text)
    except InvalidInputError as e:
        raise ArgumentTypeError(f"{e}: {e.hint}") from None


def add_brake(parser: argparse.ArgumentParser) -> None:
    """`--brake`, `--yes` and `--dry-run`, of the verbs that may remove much at once."""
    parser.add_argument(
        "--brake",
        type=share,
        default="0.25",
        metavar="SHARE",
        help="stop, with code 8 and nothing changed, where more than this part of what is here would go; off: never "
        "(default 25%%)",
    )
    parser.add_argument("--yes", action="store_true", help="it is meant: no brake, neither here nor in the reconciler")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")


def host(text: str) -> str:
    """A pattern of hosts, as `policy` takes it."""
    from fsdm.model.source_policy import check_pattern

    try:
        return check_pattern(text)
    except InvalidInputError as e:
        raise ArgumentTypeError(f"{e}: {e.hint}") from None
