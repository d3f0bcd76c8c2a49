"""Arguments that several verbs take: data directory, sizes, shares, brake."""

from __future__ import annotations

import argparse
import os
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from fsdm.cli.output import tell
from fsdm.client import Client
from fsdm.model.errors import InvalidInputError
from fsdm.model.units import parse_size
from fsdm.reconcile.delete_brake import parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsdm.store.refs import ChunkRef

T = TypeVar("T")


def data_dir_of(arguments: argparse.Namespace) -> str:
    """Return the data directory that the user named.

    Raises:
        InvalidInputError: none was named.
    """
    if not arguments.data_dir:
        raise InvalidInputError("no data directory is named", hint="pass -d DIR, or set FSDM_DATA_DIR")
    return str(arguments.data_dir)


def open_client(arguments: argparse.Namespace) -> Client:
    return Client(data_dir_of(arguments))


def become(refs: Sequence[ChunkRef], command: list[str]) -> int:
    """Become a command that inherits refs, and finds the chunks in its environment; return a code where that fails."""
    paths = [str(ref.path) for ref in refs]
    environment = {**os.environ, "FSDM_CHUNK_PATHS": "\n".join(paths)}
    if len(refs) == 1:
        environment |= {"FSDM_CHUNK_PATH": paths[0], "FSDM_CHUNK_ID": refs[0].id}
    for ref in refs:
        ref.keep_over_exec()
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 that is what it is for
    except OSError as e:
        tell(f"fsdm: {command[0]}: {e.strerror}")
        return 127 if isinstance(e, FileNotFoundError) else 126


def from_text(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Make a type for argparse of a function that reads text: its hint is shown with its error."""

    @wraps(parse)
    def taken(text: str) -> T:
        try:
            return parse(text)
        except InvalidInputError as e:
            raise argparse.ArgumentTypeError(f"{e}: {e.hint}") from None

    return taken


size = from_text(parse_size)
share = from_text(parse_share)


def positive(text: str) -> int:
    """Read a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def seconds(text: str) -> float:
    """Read a time in seconds, from a hundredth to a day."""
    value = float(text)
    if not 0.01 <= value <= 86_400:
        raise argparse.ArgumentTypeError("must be from 0.01 to 86400 seconds")
    return value


def add_brake(parser: argparse.ArgumentParser) -> None:
    """Add `--brake`, `--yes` and `--dry-run`, for the verbs that may remove much at once."""
    parser.add_argument(
        "--brake",
        type=share,
        default="0.25",
        metavar="SHARE",
        help="stop, with code 8 and nothing changed, where more than this part of what is here would go; off: never "
        "(default 25%%)",
    )
    parser.add_argument("--yes", action="store_true", help="do it without a brake, here and in the reconciler")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the verbs, by name."""
    choices = (one.choices for one in actions_of(parser) if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    return {name: verb for verbs in choices for name, verb in verbs.items()}


def actions_of(parser: argparse._ActionsContainer) -> list[argparse.Action]:
    """Return the options and arguments of a parser, or of one of its groups."""
    return parser._group_actions if isinstance(parser, argparse._ArgumentGroup) else parser._actions  # noqa: SLF001
