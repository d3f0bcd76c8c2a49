"""`fsdm run`: reconcile in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdm.arguments import data_dir_of, host, positive, share, size
from fsdm.console import plain, print_json
from fsdm.errors import EXIT_NOT_CONVERGED, EXIT_OK, InvalidInputError

if TYPE_CHECKING:
    from fsdm.events import Event
    from fsdm.limits import Limits
    from fsdm.manager import DataManager

EXAMPLES: Final = """\
fsdm run -d data
fsdm run -d data --once    # converge and exit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--once", action="store_true", help="converge and exit; code 4 if something cannot")
    parser.add_argument("--wait", action="store_true", help="where another process reconciles, take over when it ends")
    _add_limits(parser)
    parser.add_argument(
        "--durability",
        choices=["none", "chunk"],
        default="chunk",
        help="chunk (default): every file is fsynced before its chunk is available, and every step after it; "
        "none: nothing is, and after a power failure an available chunk may have wrong or empty bytes, and "
        "intents may be lost (a crash of the process alone loses nothing either way)",
    )
    parser.add_argument(
        "--allow-host",
        type=host,
        action="append",
        default=[],
        metavar="HOST",
        help="fetch from this host alone, also where an answer redirects; *.DOMAIN is every host below a "
        "domain, and :PORT may follow; may be given several times",
    )
    parser.add_argument(
        "--deny-private",
        action="store_true",
        help="connect to public addresses alone: not to loopback, private or link-local ones, whatever a name "
        "leads to; and ask no proxy, which could",
    )
    parser.add_argument(
        "--allow-unknown-fs", action="store_true", help="trust flock on a file system not known to be safe"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """What `config.toml` may say as well. The defaults are those of `Limits`: here they would win over the file."""
    group = parser.add_argument_group(
        "limits",
        "config.toml in the data directory may say them as well: jobs, connections, connections-per-host, "
        "connections-per-file, rate, max-bytes, keep-free, brake. A flag wins over it. SIGHUP has it read again.",
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


def run(arguments: argparse.Namespace) -> int:
    """Reconcile until SIGTERM or SIGINT, or (`--once`) until there is nothing left that can be done."""
    from fsdm.config import read_config
    from fsdm.layout import Layout
    from fsdm.manager import run_forever, run_once
    from fsdm.signals import Signals

    show = _show_json_event if arguments.json else _show_event
    data_dir = data_dir_of(arguments)
    how = {"wait": arguments.wait, "allow_unknown_fs": arguments.allow_unknown_fs}
    if not arguments.once:
        signals = Signals()
        limits = _limits(arguments, read_config(Layout(data_dir)))
        run_forever(data_dir, lambda dm: signals.serve(partial(_reload, dm, arguments)), limits, show, **how)
        return EXIT_OK
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    limits = _limits(arguments, read_config(Layout(data_dir)))
    troubles = run_once(data_dir, stop, limits, show, **how)
    for name, why in troubles.items():
        print(f"fsdm: {plain(name)}: {plain(why)}", file=sys.stderr)
    return EXIT_NOT_CONVERGED if troubles else EXIT_OK


def _limits(arguments: argparse.Namespace, config: dict[str, Any]) -> Limits:
    """What the flags say, then the file, then the defaults."""
    from fsdm.brake import SHARE
    from fsdm.config import LIMITS
    from fsdm.limits import Limits

    said = {"brake_share": SHARE, **config, **{name: getattr(arguments, name) for name in LIMITS if name in arguments}}
    return Limits(
        **said,
        durability=arguments.durability,
        allow_hosts=tuple(arguments.allow_host),
        deny_private=arguments.deny_private,
    )


def _reload(dm: DataManager, arguments: argparse.Namespace) -> None:
    """Read the file again; where it cannot be taken, all stays as it was."""
    from fsdm.config import in_words, read_config

    try:
        config = read_config(dm.layout)
        dm.change(_limits(arguments, config))
    except InvalidInputError as e:
        print(f"fsdm: {plain(str(e))}; all stays as it was. {plain(e.hint)}", file=sys.stderr, flush=True)
        return
    outdone = {name: value for name, value in config.items() if name in arguments}
    words = in_words({name: value for name, value in config.items() if name not in outdone}) or "nothing"
    won = f"; a flag wins over {in_words(outdone)}" if outdone else ""
    print(f"fsdm: {plain(dm.layout.config)} says {words}{won}", file=sys.stderr, flush=True)


def _show_event(event: Event) -> None:
    text = str(event)
    encoding = sys.stderr.encoding or "ascii"
    print(plain(text).encode(encoding, "replace").decode(encoding) + "\n", end="", file=sys.stderr, flush=True)


def _show_json_event(event: Event) -> None:
    print_json(asdict(event))
