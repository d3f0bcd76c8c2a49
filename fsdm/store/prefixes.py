"""Ids by their first digits: the one that begins so, of all that a data directory has. No file is read for it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError, NotAvailableError
from fsdm.model.layout import chunk_dirs, is_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.model.layout import Layout

ID: Final = 42  # where the id begins in a chunk directory's name
SHOWN: Final = 6  # of those that begin so
_PREFIX: Final = re.compile(r"[0-9a-f]{4,64}\Z")


def is_prefix(text: str) -> bool:
    """Return whether these are digits that an id may begin with: 4 to 64, in lower case."""
    return _PREFIX.match(text) is not None


def the_one(prefix: str, ids: Iterable[str], noun: str) -> str:
    """Return the one of these ids that begins so.

    Raises:
        NotAvailableError: none does.
        InvalidInputError: several do; the hint has them.
    """
    fitting = sorted({one for one in ids if one.startswith(prefix)})
    if not fitting:
        raise NotAvailableError(f"no {noun} begins with {prefix}", hint="fsdm status shows all that are known")
    if len(fitting) > 1:
        more = f" and {len(fitting) - SHOWN} more" if len(fitting) > SHOWN else ""
        hint = f"give more digits; there are {', '.join(fitting[:SHOWN])}{more}"
        raise InvalidInputError(f"{len(fitting)} {noun}s begin with {prefix}", hint=hint)
    return fitting[0]


def known_chunks(layout: Layout, prefix: str) -> Iterator[str]:
    """List the ids of the chunks with a directory, a marker, a registration, a partial or a failure that begin so.

    Some come twice.
    """
    for directory in (layout.want, layout.delete, layout.verify, layout.known, layout.partial, layout.failed):
        yield from (name for name in _listed(directory) if name.startswith(prefix) and is_id(name))
    for dataset_id in known_datasets(layout):
        names = [name for name in _listed(layout.dataset(dataset_id)) if name.startswith(prefix, ID)]
        yield from (name[ID:] for name in chunk_dirs(names))


def known_datasets(layout: Layout) -> list[str]:
    """List the ids of the datasets that have a directory."""
    return [*filter(is_id, _listed(layout.chunks))]


def _listed(directory: str) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):  # gone, or not there yet
        return os.listdir(directory)
    return []
