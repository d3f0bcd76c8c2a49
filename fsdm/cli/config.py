"""The limits of `fsdm run`: its options, then `config.toml`, then the defaults. And that file's sources and indexes.

The file belongs to the user that reconciles: its writer decides how much is fetched, and whether deletes are held back.
So a file that others may write is refused, and one with a secret that others may read. A key that is not known is an
error: a misspelt limit would not hold. No error shows a value of a source.
"""

from __future__ import annotations

import argparse
import os
import stat
import tomllib
from difflib import get_close_matches
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fsdm.cli.arguments import from_text
from fsdm.cli.event_log import OWN
from fsdm.concurrency.log import Log
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.follow import KEYS as FOLLOW_KEYS
from fsdm.model.follow import Follow
from fsdm.model.source_policy import check_directory, check_source
from fsdm.model.units import count, parse_size
from fsdm.reconcile.delete_brake import SHARE, parse_share
from fsdm.store.filesystem import exists, read_regular
from fsdm.transfer.http.target import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fsdm.manager import DataManager
    from fsdm.model.indexes import Index
    from fsdm.model.layout import Layout
    from fsdm.model.limits import Limits
    from fsdm.model.sources import Source

CONFIG_MAX_BYTES: Final = 1 << 16
OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
OTHERS_MAY_READ: Final = stat.S_IRGRP | stat.S_IROTH
SOURCES: Final = "source"  # the name of their tables
INDEXES: Final = "index"
FOLLOW: Final = "follow"
TABLES: Final = frozenset({SOURCES, INDEXES, FOLLOW})
LIMIT_RATE: Final = "limit-rate"
METAVARS: Final[dict[object, str]] = {int: "N", float: "N", str: "NAME", parse_size: "SIZE", parse_share: "SHARE"}
LISTS: Final[dict[object, str]] = {check_source: "URL*", check_directory: "DIR"}  # and the names of what is listed

logger = Log(OWN)


class Setting(NamedTuple):
    """A limit that a user may set: its field of `Limits`, its key, its type and its option."""

    field: str
    key: str
    parse: Callable[[str], Any]
    help: str

    also: str = ""  # an older name of it, which is taken too

    @property
    def option(self) -> str:
        return f"--{self.key}"


SETTINGS: Final = (
    Setting("jobs", "jobs", int, "chunks fetched at once (default 8)"),
    Setting("connections", "connections", int, "files fetched at once, and a quarter more of small ones (default 8)"),
    Setting("per_host", "connections-per-host", int, "files fetched at once from one server"),
    Setting("per_file", "connections-per-file", int, "connections of a large file, where more are faster (default 4)"),
    Setting(
        *("bytes_per_s", LIMIT_RATE, parse_size, "all connections together bring at most so much a second, as 10M"),
        also="rate",
    ),
    Setting(
        "max_bytes",
        "max-bytes",
        parse_size,
        "all chunks together take at most so much, as 900G or 1.5Ti; a want over it waits",
    ),
    Setting("keep_free_bytes", "keep-free", parse_size, "no download begins that would leave less free on the disk"),
    Setting(
        "cache_low_share",
        "cache-low",
        parse_share,
        "once a fetch does not fit, registered chunks go until no more than this part of --max-bytes is taken "
        "(default 90%%)",
    ),
    Setting(
        "brake_share",
        "brake",
        parse_share,
        "hold deletes back where more than this part of what is here would go within 10 minutes, and 100 chunks, or 10 "
        "with 100 GB, until they are released (fsdm release); off: never (default 25%%)",
    ),
    Setting(
        "recover",
        "recover",
        str,
        "what has a chunk fetched again that failed or is damaged: now: time (default); acquire: the next who acquires "
        "it; never: fsdm retry alone",
    ),
    Setting("max_attempts", "max-attempts", int, "give a chunk up that has failed so often, until asked for anew"),
    Setting("scrub_days", "scrub-days", float, "read all that is here once in N days, slowly; refetch what is damaged"),
    Setting(
        "require_length",
        "require-length",
        bool,
        "refuse a file whose end nothing proves: the answer says no length, and the want no size or digest",
    ),
    Setting("index_jobs", "index-jobs", int, "indexes of chunks made at once (default 1)"),
    Setting("transport", "transport", str, "what fetches files: libcurl (default), or requests"),
    Setting("http_version", "http-version", str, "what is offered over TLS: 1.1 (default), or 2"),
    Setting(
        "allow_sources",
        "allow-source",
        check_source,
        "fetch also from URLs of another scheme that begin so, as s3://lake/public/*, with what the owner may; may be "
        "given several times",
    ),
    Setting(
        "allow_dirs",
        "allow-dir",
        check_directory,
        "fetch also files of this machine below this directory, as file:///srv/in/a; may be given several times",
    ),
)
KEYS: Final = {setting.key: setting for setting in SETTINGS}
TAKEN: Final = {  # by any of its names: also the older ones, as they are in Python
    name: one for one in SETTINGS for name in (one.key, one.also, one.field.replace("_", "-")) if name
}
INDEX_SIZES: Final = {"max-output": "max_output_bytes", "max-memory": "max_memory_bytes"}
INDEX_KEYS: Final = {"indexer": "indexer", "command": "command", "files": "files", "timeout": "timeout_s"} | INDEX_SIZES
SOURCE_RATES: Final = (LIMIT_RATE, "rate", "bytes-per-s")  # one limit, by its name and by older ones


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that set limits. None has a default, which would win over the file."""
    told = f"config.toml in the data directory may set them too: {', '.join(KEYS)}. An option wins over it."
    told = fill(f"{told} It may have sources, too (fsdm docs sources). SIGHUP has it read again.", width=76)
    group = parser.add_argument_group("limits", told, argument_default=argparse.SUPPRESS)
    for one in SETTINGS:
        if one.parse is bool:
            group.add_argument(one.option, dest=one.field, action="store_true", help=one.help)
            continue
        kind = from_text(one.parse)
        if one.parse in LISTS:
            metavar = LISTS[one.parse]
            group.add_argument(one.option, dest=one.field, type=kind, action="append", metavar=metavar, help=one.help)
            continue
        names = (one.option, *([f"--{one.also}"] if one.also else ()))
        group.add_argument(*names, dest=one.field, type=kind, metavar=METAVARS[one.parse], help=one.help)


def reload(
    dm: DataManager, arguments: argparse.Namespace, follow: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> None:
    """Read the file again, change the limits, and what is followed; a file that cannot be taken changes nothing."""
    try:
        config = read_config(dm.layout)
        dm.change(limits_of(arguments, config), config.get(SOURCES, ()), config.get(INDEXES, ()))
        follow(config)
    except (InvalidInputError, DataDirectoryError) as e:
        logger.warning("%s; all stays as it was%s", e, f" ({e.hint})" if e.hint else "")
        return
    outdone = {field: config.pop(field) for field in [*config] if field in arguments}
    words = in_words(config) or "nothing"
    won = f"; an option wins over {in_words(outdone)}" if outdone else ""
    logger.info("%s says %s%s", dm.layout.config, words, won)


def limits_of(arguments: argparse.Namespace, config: Mapping[str, Any]) -> Limits:
    """Put together what the options and the file say; raise InvalidInputError for a bad option."""
    from fsdm.model.limits import Limits

    given = {s.field: checked(s, getattr(arguments, s.field), s.option) for s in SETTINGS if s.field in arguments}
    config = {field: value for field, value in config.items() if field not in TABLES}
    return Limits(
        **{"brake_share": SHARE, **config, **given},
        durability=arguments.durability,
        allow_hosts=tuple(arguments.allow_host),
        deny_private=arguments.deny_private,
        count_bytes=bool(arguments.metrics_addr or arguments.metrics_file),
    )


def read_config(layout: Layout) -> dict[str, Any]:
    """Read the limits in the file, by the fields of `Limits`, and its sources; none where there is no file.

    Raises:
        InvalidInputError: it cannot be read, or says what cannot be taken; others may write it, or read its secret.
        DataDirectoryError: the directory cannot be looked into.
    """
    return read_config_at(layout.config)


def read_config_at(path: str) -> dict[str, Any]:
    """Read such a file wherever it is, as `read_config` does."""
    try:
        read = read_regular(path, CONFIG_MAX_BYTES + 1)
    except OSError as e:
        if exists(path):
            raise InvalidInputError(f"{path} cannot be read: {e.strerror}") from e
        hint = "check the path, and who may enter it"
        raise DataDirectoryError(f"{os.path.dirname(path)} cannot be looked into: {e.strerror}", hint=hint) from e
    if read is None:
        if exists(path):
            raise InvalidInputError(f"{path} is not a file", hint="replace it by a file: no symbolic link is followed")
        return {}
    found, text = read
    if found.st_mode & OTHERS_MAY_WRITE or found.st_uid not in {0, os.geteuid()}:
        hint = f"chown {os.geteuid()} {path} && chmod go-w {path}"
        raise InvalidInputError(f"{path} may be written by others than the user that reconciles", hint=hint)
    try:
        if len(text) > CONFIG_MAX_BYTES:
            raise InvalidInputError(f"has more than {CONFIG_MAX_BYTES} bytes")
        config = parse_config(text)
        if found.st_mode & OTHERS_MAY_READ and any(source.has_secret for source in config.get(SOURCES, ())):
            hint = f"chmod go-rw {path}; or keep the secret in a headers-file of its own"
            raise InvalidInputError("has a secret of a source, and may be read by others", hint=hint)
        return config
    except InvalidInputError as e:
        raise InvalidInputError(f"{path}: {e}", hint=e.hint) from None


def parse_config(text: bytes) -> dict[str, Any]:
    """Parse the limits in a TOML text, by the fields of `Limits`, and the sources, as "source". Pure.

    Raises:
        InvalidInputError: it is no TOML, a key is not known, or a value cannot be taken.
    """
    try:
        document = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as e:  # also: no UTF-8
        raise InvalidInputError(f"is no TOML: {e}", hint='as in: max-bytes = "900G"') from None
    tables, indexes, follow = (document.pop(name, None) for name in (SOURCES, INDEXES, FOLLOW))
    said: dict[str, str] = {}
    for key in document:
        _check_key(key, TAKEN, (*KEYS, *TABLES))
        if said.setdefault(TAKEN[key].field, key) != key:
            raise InvalidInputError(f"is {said[TAKEN[key].field]} by another name, and both are there", field=key)
    config = {TAKEN[key].field: checked(TAKEN[key], value, key) for key, value in document.items()}
    if tables is not None:
        config[SOURCES] = _parse_sources(tables)
    if indexes is not None:
        config[INDEXES] = _parse_indexes(indexes)
    if follow is not None:
        config[FOLLOW] = _parse_follow(follow)
    return config


def _parse_follow(table: object) -> Follow:
    if not isinstance(table, dict):
        raise InvalidInputError("must be a table", field=FOLLOW, hint="it begins with a line [follow]")
    for key in table:
        _check_key(key, FOLLOW_KEYS, FOLLOW_KEYS)
    if "url" not in table:
        raise InvalidInputError("has no url", field=FOLLOW, hint='as in: url = "https://example.org/list.jsonl.gz"')
    try:
        return Follow().given(table)
    except InvalidInputError as e:
        raise InvalidInputError(f"{FOLLOW}: {e}", hint=e.hint) from None


def _parse_sources(tables: object) -> tuple[Source, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidInputError("must be a table, or several", field=SOURCES, hint="each begins with a line [[source]]")
    sources = []
    for number, table in enumerate(tables, 1):
        try:
            sources.append(_parse_source(table))
        except InvalidInputError as e:
            raise InvalidInputError(f"source {number} ({shown(str(table.get('match')))}): {e}", hint=e.hint) from None
    return tuple(sources)


def _parse_source(table: Mapping[str, Any]) -> Source:
    from fsdm.model.sources import Source

    keys = {field.replace("_", "-"): field for field in Source.model_fields}
    keys |= dict.fromkeys(SOURCE_RATES, "bytes_per_s")
    for key in table:
        _check_key(key, keys, [*(key for key in keys if key not in SOURCE_RATES), LIMIT_RATE])
    rates = [key for key in table if key in SOURCE_RATES]
    if len(rates) > 1:
        raise InvalidInputError(f"is {rates[0]} by another name, and both are there", field=rates[1])
    try:
        given: dict[str, Any] = {keys[key]: value for key, value in table.items()}
        if isinstance(given.get("bytes_per_s"), str):
            given["bytes_per_s"] = parse_size(given["bytes_per_s"])
        return Source(**given)
    except InvalidInputError as e:
        field = next((key for key in table if keys[key] == e.field), rates[0] if rates else e.field)
        raise InvalidInputError(str(e).removeprefix(f"{e.field}: "), field=field, hint=e.hint) from None


def _parse_indexes(tables: object) -> tuple[Index, ...]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InvalidInputError("must be a table for each", field=INDEXES, hint="each begins with a line [index.NAME]")
    indexes = []
    for name, table in tables.items():
        try:
            indexes.append(_parse_index(name, table))
        except InvalidInputError as e:
            raise InvalidInputError(f"index {name:.80}: {e}", hint=e.hint) from None
    return tuple(indexes)


def _parse_index(name: str, table: Mapping[str, Any]) -> Index:
    from fsdm.model.indexes import Index

    for key in table:
        _check_key(key, INDEX_KEYS, INDEX_KEYS)
    given: dict[str, Any] = {
        INDEX_KEYS[key]: _size(key, value) if key in INDEX_SIZES else value for key, value in table.items()
    }
    try:
        return Index(name=name, **given)
    except InvalidInputError as e:
        key = next((key for key, field in INDEX_KEYS.items() if field == e.field), e.field)
        raise InvalidInputError(str(e).removeprefix(f"{e.field}: "), field=key, hint=e.hint) from None


def _size(key: str, value: object) -> object:
    try:
        return parse_size(value) if isinstance(value, str) else value
    except InvalidInputError as e:
        raise InvalidInputError(str(e), field=key, hint=e.hint) from None


def _check_key(key: str, taken: Collection[str], named: Collection[str]) -> None:
    """Raise where a key is not taken; those that are `named` are what may have been meant."""
    if key not in taken and key not in named:
        near = get_close_matches(key, named, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(named)}"
        raise InvalidInputError(f"the key {key!r:.80} is not known", hint=hint)


def checked(setting: Setting, value: object, name: str) -> Any:
    """Return the value of one limit, perhaps a size or a share; an error has the user's name of it."""
    from fsdm.model.limits import Limits

    try:
        if setting.parse in LISTS:
            value = _parse_list(setting, value)
        if isinstance(value, str) and METAVARS.get(setting.parse, "N") != "N":
            value = setting.parse(value)
        Limits(**{setting.field: value})  # type: ignore[arg-type]  # it checks that
    except InvalidInputError as e:
        raise InvalidInputError(str(e).removeprefix(f"{setting.field}: "), field=name, hint=e.hint) from None
    return value


def _parse_list(setting: Setting, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidInputError("must be a list of texts", hint=f'as in: {setting.key} = ["{LISTS[setting.parse]}"]')
    return tuple(map(setting.parse, value))


def in_words(config: Mapping[str, Any]) -> str:
    """Write limits as the file does, and count the sources."""
    keys = {setting.field: setting.key for setting in SETTINGS}
    words = [f"{keys[field]} {_in_words(value)}" for field, value in config.items() if field in keys]
    words += [count(len(config[SOURCES]), SOURCES)] if SOURCES in config else []
    words += [f"follow {shown(config[FOLLOW].url)}"] if FOLLOW in config else []
    return ", ".join([*words, *(f"index {index.name}" for index in config.get(INDEXES, ()))])


def _in_words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "off" if value is None else str(value)
