"""`config.toml` in the data directory: the limits that `fsdm run` keeps to, in the words of its flags.

It is the owner's: whoever may write it decides how much is fetched, and whether deletes are braked. So one that others
may write is refused, rather than half trusted. A key that is not known is an error, for a limit that is misspelt would
be none.
"""

from __future__ import annotations

import os
import stat
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.limits import Limits
from fsdm.model.units import parse_size
from fsdm.reconcile.brake import parse_share
from fsdm.store.filesystem import exists, read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsdm.model.layout import Layout

CONFIG_MAX_BYTES: Final = 1 << 16
OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def read_config(layout: Layout) -> dict[str, Any]:
    """What the file says, by the names of `Limits`; nothing where there is none.

    Raises:
        InvalidInputError: it cannot be read, is not the owner's alone, or says what cannot be taken.
        DataDirectoryError: it may not even be looked for.
    """
    path = layout.config
    try:
        read = read_regular(path, CONFIG_MAX_BYTES + 1)
    except OSError as e:
        if not exists(path):
            raise DataDirectoryError(
                f"{layout.root} cannot be looked into: {e.strerror}", hint="check the path, and who may enter it"
            ) from e
        raise InvalidInputError(f"{path} cannot be read: {e.strerror}") from e
    if read is None:
        if exists(path):
            raise InvalidInputError(f"{path} is not a file", hint="no symbolic link is followed there")
        return {}
    found, text = read
    if found.st_mode & OTHERS_MAY_WRITE or found.st_uid not in {0, os.geteuid()}:
        raise InvalidInputError(
            f"{path} may be written by others than the user that reconciles",
            hint=f"chown {os.geteuid()} {path} && chmod go-w {path}",
        )
    try:
        if len(text) > CONFIG_MAX_BYTES:
            raise InvalidInputError(f"has more than {CONFIG_MAX_BYTES} bytes")
        return parse_config(text)
    except InvalidInputError as e:
        raise InvalidInputError(f"{path}: {e}", hint=e.hint) from None


def parse_config(text: bytes) -> dict[str, Any]:
    """The limits in a TOML text, by the names of `Limits`. Pure.

    Raises:
        InvalidInputError: it is no TOML, a key is not known, or a value cannot be taken.
    """
    try:
        document = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as e:  # also: no UTF-8
        raise InvalidInputError(f"is no TOML: {e}", hint='as in: max-bytes = "900G"') from None
    limits = {}
    for key, value in document.items():
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}"
            raise InvalidInputError(f"the key {key!r:.80} is not known", hint=hint)
        name, take = KEYS[key]
        try:
            limits[name] = take(value)
            Limits(**{name: limits[name]})
        except InvalidInputError as e:
            raise InvalidInputError(str(e).removeprefix(f"{name}: "), field=key, hint=e.hint) from None
    return limits


def in_words(limits: Mapping[str, Any]) -> str:
    """Limits as the file writes them."""
    words = {name: key for key, (name, _) in KEYS.items()}
    return ", ".join(f"{words[name]} {'off' if value is None else value}" for name, value in limits.items())


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInputError(f"must be a whole number, not {value!r:.80}")
    return value


def _size(value: object) -> int:
    return parse_size(value) if isinstance(value, str) else _number(value)


def _share(value: object) -> float | None:
    if isinstance(value, str):
        return parse_share(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidInputError(f'must be a number, a percentage or "off", not {value!r:.80}')
    return float(value)


def _days(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidInputError(f"must be a number of days, not {value!r:.80}")
    return float(value)


KEYS: Final[dict[str, tuple[str, Callable[[object], Any]]]] = {
    "jobs": ("jobs", _number),
    "connections": ("connections", _number),
    "connections-per-host": ("per_host", _number),
    "connections-per-file": ("per_file", _number),
    "rate": ("bytes_per_s", _size),
    "max-bytes": ("max_bytes", _size),
    "keep-free": ("keep_free_bytes", _size),
    "brake": ("brake_share", _share),
    "scrub-days": ("scrub_days", _days),
}
LIMITS: Final = tuple(name for name, _ in KEYS.values())
