"""The limits of `fsdm run`: what its flags say, then `config.toml`, then the defaults; and what a SIGHUP changes."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import positive, share, size
from fsdm.model.errors import DataDirectoryError, InvalidInputError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from fsdm.manager import DataManager
    from fsdm.model.limits import Limits

logger = logging.getLogger("fsdm")


ASSUMED_BYTES_PER_S: Final = 50e6


def estimate(size_bytes: int, bytes_per_s: float | None) -> str:
    """How long so much takes, in words: a guess where there is no cap, and it says so."""
    from fsdm.model.units import lasting, readable

    rate = bytes_per_s or ASSUMED_BYTES_PER_S
    assumed = "" if bytes_per_s else ", which is assumed"
    return f"at least {lasting(size_bytes / rate)}, at {readable(int(rate))} a second{assumed}"


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What `config.toml` may say as well. No flag has a default: it would win over the file."""
    group = parser.add_argument_group(
        "limits",
        "config.toml in the data directory may say them as well: jobs, connections, connections-per-host, "
        "connections-per-file, rate, max-bytes, keep-free, brake, scrub-days. A flag wins over it. SIGHUP has it read "
        "again.",
        argument_default=argparse.SUPPRESS,
    )
    group.add_argument("--jobs", dest="jobs", type=positive, metavar="N", help="chunks fetched at once (default 8)")
    group.add_argument(
        "--connections",
        dest="connections",
        type=positive,
        metavar="N",
        help="files fetched at once, and a quarter more of small ones (default 8)",
    )
    group.add_argument(
        "--connections-per-host",
        dest="per_host",
        type=positive,
        metavar="N",
        help="files fetched at once from one server",
    )
    group.add_argument(
        "--connections-per-file",
        dest="per_file",
        type=positive,
        metavar="N",
        help="a large file may come over so many connections where one is slow and more bring more (default 4)",
    )
    group.add_argument(
        "--limit-rate",
        dest="bytes_per_s",
        type=size,
        metavar="SIZE",
        help="all connections together bring at most so much a second, as 10M",
    )
    group.add_argument(
        "--max-bytes",
        dest="max_bytes",
        type=size,
        metavar="SIZE",
        help="all chunks together take at most so much, as 900G or 1.5Ti; a want over it waits until it fits",
    )
    group.add_argument(
        "--keep-free",
        dest="keep_free_bytes",
        type=size,
        metavar="SIZE",
        help="no download begins that would leave less free on the disk",
    )
    group.add_argument(
        "--brake",
        dest="brake_share",
        type=share,
        metavar="SHARE",
        help="hold deletes back where more than this part of what is here, and 100 chunks, would go within 10 minutes, "
        "until they are released (fsdm release); off: never (default 25%%)",
    )
    group.add_argument(
        "--scrub-days",
        dest="scrub_days",
        type=float,
        metavar="N",
        help="read every byte that is here about once in N days, slowly, and fetch again what is damaged",
    )


def limits_of(arguments: argparse.Namespace, data_dir: str | os.PathLike[str]) -> Limits:
    """The limits to begin with.

    Raises:
        InvalidInputError: `config.toml` cannot be taken.
        DataDirectoryError: nor even be looked for.
    """
    from fsdm.cli.config import read_config
    from fsdm.model.layout import Layout

    return _limits(arguments, read_config(Layout(data_dir)))


def reload(dm: DataManager, arguments: argparse.Namespace) -> None:
    """Read the file again, and say what it says; where it cannot be taken, all stays as it was."""
    from fsdm.cli.config import in_words, read_config

    try:
        config = read_config(dm.layout)
        dm.change(_limits(arguments, config))
    except (InvalidInputError, DataDirectoryError) as e:
        logger.warning("%s; all stays as it was%s", e, f" ({e.hint})" if e.hint else "")
        return
    outdone = {name: value for name, value in config.items() if name in arguments}
    words = in_words({name: value for name, value in config.items() if name not in outdone}) or "nothing"
    won = f"; a flag wins over {in_words(outdone)}" if outdone else ""
    logger.warning("%s says %s%s", dm.layout.config, words, won)


def _limits(arguments: argparse.Namespace, config: Mapping[str, Any]) -> Limits:
    from fsdm.cli.config import LIMITS
    from fsdm.model.limits import Limits
    from fsdm.reconcile.brake import SHARE

    said = {"brake_share": SHARE, **config, **{name: getattr(arguments, name) for name in LIMITS if name in arguments}}
    return Limits(
        **said,
        durability=arguments.durability,
        allow_hosts=tuple(arguments.allow_host),
        deny_private=arguments.deny_private,
        count_bytes=bool(arguments.metrics_addr or arguments.metrics_file),
    )
