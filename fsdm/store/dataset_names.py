"""Names of datasets, for people: `datasets.toml` in the data directory. No program depends on them.

Invariants: a name is no beginning of an id, so what is typed means one thing; it is printable ASCII.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import is_id
from fsdm.store.filesystem import exists, read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.model.layout import Layout

NAMES_MAX_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_DIGITS: Final = re.compile(r"[0-9a-f]{4,}\Z")
EXAMPLE: Final = 'as in: ethereum = "…64 hex digits…"'


def read_dataset_names(layout: Layout) -> dict[str, str]:
    """Read the ids of the datasets, by name; none where there is no file.

    Raises:
        InvalidInputError: it cannot be read, or a name or an id is none.
    """
    path = layout.dataset_names
    try:
        read = read_regular(path, NAMES_MAX_BYTES + 1)
        if read is None:
            if exists(path):
                raise InvalidInputError("is no file", hint="replace it by a file: no symbolic link is followed")
            return {}
        if len(read[1]) > NAMES_MAX_BYTES:
            raise InvalidInputError(f"has more than {NAMES_MAX_BYTES} bytes", hint=EXAMPLE)
        return parse_dataset_names(read[1])
    except OSError as e:
        raise InvalidInputError(f"{path} cannot be read: {e.strerror}", hint="or do without it: --names off") from e
    except InvalidInputError as e:
        raise InvalidInputError(f"{path}: {e}", hint=f"{e.hint}; or do without it: --names off") from None


def parse_dataset_names(text: bytes) -> dict[str, str]:
    """Parse the ids of datasets by name. Pure.

    Raises:
        InvalidInputError: it is no TOML, or a name or an id is none.
    """
    import tomllib

    try:
        document = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as e:  # also: no UTF-8
        raise InvalidInputError(f"is no TOML: {e}", hint=EXAMPLE) from None
    for name, dataset_id in document.items():
        if not _NAME.match(name) or _DIGITS.match(name):
            hint = "letters, digits, _, . and - make a name, at most 64, that is no beginning of an id"
            raise InvalidInputError(f"{name[:80]!r} is no name", hint=hint)
        if not isinstance(dataset_id, str) or not is_id(dataset_id):
            raise InvalidInputError(f"must be an id, not {dataset_id!r:.80}", field=name, hint=EXAMPLE)
    return document


def by_id(names: Mapping[str, str]) -> dict[str, str]:
    """Turn them round: the name of each dataset, the first where it has several."""
    return {dataset_id: name for name, dataset_id in reversed(list(names.items()))}
