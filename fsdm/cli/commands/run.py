"""`fsdm run`: reconcile in the foreground."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import data_dir_of, from_text
from fsdm.cli.config import add_limits, limits_of, reload
from fsdm.cli.output import ASSUMED_BYTES_PER_S, estimate
from fsdm.model.errors import EXIT_NOT_CONVERGED, EXIT_OK, InvalidInputError
from fsdm.model.layout import Layout
from fsdm.model.source_policy import check_pattern
from fsdm.status.terminal import abandon_stdout, is_in_front, is_screen, plain, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from fsdm.model.events import Event
    from fsdm.model.limits import Limits

EXAMPLES: Final = """\
fsdm run -d data
fsdm run -d data --once    # converge and exit
fsdm run -d data --once --dry-run
fsdm run -d data --log-format json 2>> fsdm.log
fsdm run -d data --metrics-addr 127.0.0.1:9464
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--once", action="store_true", help="converge and exit; code 4 if something cannot")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what --once would do, as far as a look can tell; change nothing"
    )
    parser.add_argument("--wait", action="store_true", help="where another process reconciles, take over when it ends")
    add_limits(parser)
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
        type=from_text(check_pattern),
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
    parser.add_argument(
        "--log-format",
        choices=["auto", "text", "json"],
        default="auto",
        help="what stderr shows: text, a line for each event; json, the same as JSON Lines; auto (default), a live "
        "view on a terminal, else text (nothing with --json, which prints events on stdout)",
    )
    parser.add_argument(
        "--metrics-addr",
        metavar="HOST:PORT",
        help="serve /metrics (for Prometheus), /healthz and /readyz there, as 127.0.0.1:9464",
    )
    parser.add_argument(
        "--metrics-file",
        metavar="FILE.prom",
        help="write the metrics there every 15 seconds, for the node exporter's textfile collector",
    )


def run(arguments: argparse.Namespace) -> int:
    """Reconcile until SIGTERM or SIGINT, or (`--once`) until there is nothing left that can be done."""
    limits = limits_of(arguments, Layout(data_dir_of(arguments)))
    if arguments.dry_run:
        return _foresee(arguments, limits)
    with _shown(arguments, limits) as show:
        return _reconcile(arguments, limits, show)


def _foresee(arguments: argparse.Namespace, limits: Limits) -> int:
    from fsdm.client import Client
    from fsdm.model.units import readable
    from fsdm.reconcile.dry_run import dry_run
    from fsdm.store.leader_lock import in_words, who_reconciles

    with Client(data_dir_of(arguments)) as client:
        forecast, owner = dry_run(client.layout, limits, time.time()), who_reconciles(client.layout)
    fetched, freed = forecast.total_bytes("fetch"), forecast.total_bytes("delete", "discard")
    bytes_per_s = limits.bytes_per_s or ASSUMED_BYTES_PER_S
    if arguments.json:
        document = {
            "dry_run": True,
            "steps": [asdict(step) for step in forecast.steps],
            "fetch_bytes": fetched,
            "undeclared": forecast.undeclared,
            "freed_bytes": freed,
            "bytes_per_s": bytes_per_s,
            "is_rate_assumed": limits.bytes_per_s is None,
            "seconds": fetched / bytes_per_s,
            "reconciler": owner and owner.says,
        }
        print_json(document)
        return EXIT_OK
    for step in forecast.steps:
        print(step.what, step.id, step.size_bytes, plain(step.why), sep="\t")
    undeclared = f", and {forecast.undeclared} files that declare no size" if forecast.undeclared else ""
    print(f"{readable(fetched)} to fetch{undeclared}; {readable(freed)} freed", file=sys.stderr)
    print(estimate(fetched, limits.bytes_per_s), file=sys.stderr)
    if owner is not None:
        print(f"another process reconciles, and may be doing it by now: {plain(in_words(owner.says))}", file=sys.stderr)
    return EXIT_OK


def _reconcile(arguments: argparse.Namespace, limits: Limits, show: Callable[[Event], None]) -> int:
    from fsdm.cli.event_log import say
    from fsdm.cli.signals import Signals, asked_to_end
    from fsdm.manager import run_forever, run_once
    from fsdm.monitoring.service import Service

    as_json = arguments.log_format == "json"
    if arguments.once and limits.count_bytes:
        what = "--metrics-addr and --metrics-file are of a reconciler that goes on"
        raise InvalidInputError(what, field="--once", hint="leave out --once, or them")
    data_dir = data_dir_of(arguments)
    if not arguments.once:
        signals = Signals()
        service = Service(address=arguments.metrics_addr, file=arguments.metrics_file)
        if service.url is not None:
            say(f"metrics are at {service.url}/metrics", as_json=as_json, level="info")
        with service:
            run_forever(
                data_dir,
                lambda dm: signals.serve(partial(reload, dm, arguments)),
                limits,
                show,
                wait=arguments.wait,
                allow_unknown_fs=arguments.allow_unknown_fs,
                attend=service.attend,
            )
        return EXIT_OK
    stop = asked_to_end()
    troubles = run_once(data_dir, stop, limits, show, wait=arguments.wait, allow_unknown_fs=arguments.allow_unknown_fs)
    for name, why in troubles.items():
        say(f"{name}: {why}", as_json=as_json)
    return EXIT_NOT_CONVERGED if troubles else EXIT_OK


@contextmanager
def _shown(arguments: argparse.Namespace, limits: Limits) -> Iterator[Callable[[Event], None]]:
    """How events are shown: on stdout where `--json` asks for that, and else, or besides, as `--log-format` says."""
    from fsdm.cli.event_log import Talk, write_line

    form, tell = arguments.log_format, _json_events()
    if form == "auto" and arguments.json:
        yield tell
        return
    draws = form == "auto" and is_screen(sys.stderr) and is_in_front(sys.stderr)
    with _live_view(arguments, limits) if draws else nullcontext(write_line) as write:
        talk = Talk(as_json=form == "json", write=write)

        def show(event: Event) -> None:
            if arguments.json:
                tell(event)
            talk.event(event)

        logger = logging.getLogger("fsdm")
        logger.addHandler(talk)
        try:
            yield show
        finally:
            logger.removeHandler(talk)


@contextmanager
def _live_view(arguments: argparse.Namespace, limits: Limits) -> Iterator[Callable[[str], None]]:
    from rich.console import Console

    from fsdm.status.live_view import LiveView
    from fsdm.status.progress_view import glyphs_for

    layout, glyphs = Layout(data_dir_of(arguments)), glyphs_for(sys.stderr.encoding)
    with LiveView(layout, Console(stderr=True), glyphs, max_bytes=limits.max_bytes, is_own=True) as view:
        yield view.say


def _json_events() -> Callable[[Event], None]:
    """Prints events on stdout, until it cannot be written any more, which is told once."""
    mutex = threading.Lock()  # several threads tell, and may find out at once

    def show(event: Event) -> None:
        with mutex:
            try:
                print_json(event.document())
            except OSError as e:
                abandon_stdout()
                is_unread = isinstance(e, BrokenPipeError)
                why = "nobody reads stdout any more" if is_unread else f"stdout cannot be written: {e.strerror}"
                logging.getLogger("fsdm").warning("%s: events are told there no longer", why)

    return show
