"""`fsdm run`: reconcile in the foreground."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from fsdm.arguments import data_dir_of, host, positive, size
from fsdm.console import plain, print_json
from fsdm.errors import EXIT_NOT_CONVERGED, EXIT_OK

if TYPE_CHECKING:
    import argparse

    from fsdm.events import Event

EXAMPLES: Final = """\
fsdm run -d data
fsdm run -d data --once    # converge and exit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--once", action="store_true", help="converge and exit; code 4 if something cannot")
    parser.add_argument("--wait", action="store_true", help="where another process reconciles, take over when it ends")
    parser.add_argument("--jobs", type=positive, default=8, metavar="N", help="chunks fetched at once (default 8)")
    parser.add_argument(
        "--connections",
        type=positive,
        default=8,
        metavar="N",
        help="files fetched at once, and a quarter more of small ones (default 8)",
    )
    parser.add_argument(
        "--connections-per-host", type=positive, metavar="N", help="files fetched at once from one server"
    )
    parser.add_argument(
        "--connections-per-file",
        type=positive,
        default=4,
        metavar="N",
        help="a large file may come over so many connections where one is slow and more bring more (default 4)",
    )
    parser.add_argument(
        "--limit-rate",
        type=size,
        metavar="SIZE",
        help="all connections together bring at most so much a second, as 10M",
    )
    parser.add_argument(
        "--max-bytes",
        type=size,
        metavar="SIZE",
        help="all chunks together take at most so much, as 900G or 1.5Ti; a want over it waits until it fits",
    )
    parser.add_argument(
        "--keep-free",
        type=size,
        default=0,
        metavar="SIZE",
        help="no download begins that would leave less free on the disk",
    )
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
        "--scrub-days",
        type=float,
        metavar="N",
        help="read every byte that is here about once in N days, slowly, and fetch again what is damaged",
    )
    parser.add_argument(
        "--allow-unknown-fs", action="store_true", help="trust flock on a file system not known to be safe"
    )


def run(arguments: argparse.Namespace) -> int:
    """Reconcile until SIGTERM or SIGINT, or (`--once`) until there is nothing left that can be done."""
    from fsdm.limits import Limits
    from fsdm.manager import run_forever, run_once

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    show = _show_json_event if arguments.json else _show_event
    data_dir = data_dir_of(arguments)
    limits = Limits(
        jobs=arguments.jobs,
        connections=arguments.connections,
        per_host=arguments.connections_per_host,
        per_file=arguments.connections_per_file,
        bytes_per_s=arguments.limit_rate,
        max_bytes=arguments.max_bytes,
        keep_free_bytes=arguments.keep_free,
        durability=arguments.durability,
        allow_hosts=tuple(arguments.allow_host),
        deny_private=arguments.deny_private,
        scrub_days=arguments.scrub_days,
    )
    if not arguments.once:
        run_forever(data_dir, stop, limits, show, wait=arguments.wait, allow_unknown_fs=arguments.allow_unknown_fs)
        return EXIT_OK
    troubles = run_once(data_dir, stop, limits, show, wait=arguments.wait, allow_unknown_fs=arguments.allow_unknown_fs)
    for name, why in troubles.items():
        print(f"fsdm: {plain(name)}: {plain(why)}", file=sys.stderr)
    return EXIT_NOT_CONVERGED if troubles else EXIT_OK


def _show_event(event: Event) -> None:
    text = str(event)
    encoding = sys.stderr.encoding or "ascii"
    print(plain(text).encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def _show_json_event(event: Event) -> None:
    print_json(asdict(event))
