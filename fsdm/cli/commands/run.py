"""`fsdm run`: reconcile in the foreground."""

from __future__ import annotations

import json
import logging
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdm.cli.arguments import data_dir_of, from_text, open_client, size
from fsdm.cli.bounded_stream import bound
from fsdm.cli.config import INDEXES, SOURCES, add_limits, limits_of, read_config, reload
from fsdm.cli.event_log import FOLLOWING, OWN, EventLog, dropped_lines, say, write_line
from fsdm.cli.output import ASSUMED_BYTES_PER_S, estimate, row, show, tell, to_fetch
from fsdm.cli.signals import Signals, asked_to_end
from fsdm.concurrency.log import Log
from fsdm.model.errors import EXIT_NOT_CONVERGED, EXIT_OK, FsdmError, InvalidInputError, ReconcilerEndedError
from fsdm.model.layout import Layout
from fsdm.model.source_policy import check_pattern
from fsdm.model.units import count, readable
from fsdm.status.terminal import abandon_stdout, is_in_front, is_screen, plain, print_json
from fsdm.store.data_dir import open_data_dir
from fsdm.store.leader_lock import ReconcilerLock, describe_holder, find_reconciler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.model.events import Event
    from fsdm.model.limits import Limits
    from fsdm.model.sources import Source
    from fsdm.status.live_view import LiveView

logger = Log("fsdm")

LOOK_S: Final = 0.5  # how often to look whether the reconciler has ended of itself

EXAMPLES = """\
fsdm run -d data
fsdm run -d data --once    # converge and exit
fsdm run -d data --once --dry-run
fsdm run -d data --log-format json 2>> fsdm.log
fsdm run -d data --metrics-addr 127.0.0.1:9464
fsdm run -d data --trace    # fsdm events shows it
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="converge and exit; code 4 if something cannot")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what --once would do, as far as the files tell; change nothing"
    )
    parser.add_argument("--wait", action="store_true", help="wait while another process reconciles; then take over")
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
        help="fetch only from this host, also where an answer redirects; *.DOMAIN is every host below a domain, and "
        ":PORT may follow; may be given several times",
    )
    parser.add_argument(
        "--deny-private",
        action="store_true",
        help="connect only to public addresses, whatever a name resolves to: not to loopback, private or link-local "
        "ones; and use no proxy, which could",
    )
    parser.add_argument(
        "--allow-unknown-fs", action="store_true", help="trust flock on a file system not known to be safe"
    )
    parser.add_argument(
        "--log-format",
        choices=["auto", "text", "json"],
        default="auto",
        help="text: a line on stderr for each event; json: the same as JSON Lines; auto (default): a live view on a "
        "terminal, else text (nothing with --json, which prints events on stdout)",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="say on stderr only what may ask for an action, and draw nothing"
    )
    parser.add_argument(
        "--metrics-addr",
        metavar="HOST:PORT",
        help="serve a page to look at, /metrics (for Prometheus), /healthz and /readyz at this address, as "
        "127.0.0.1:9464",
    )
    parser.add_argument(
        "--no-page",
        action="store_true",
        help="serve no page there: it shows ids, hosts, errors and the commands of holders to whoever may connect",
    )
    parser.add_argument(
        "--trace",
        nargs="?",
        const="",
        metavar="FILE",
        help="write what happens into this file as JSON Lines (default: trace.jsonl in the data directory); "
        "`fsdm events` shows it",
    )
    parser.add_argument(
        "--trace-bytes",
        type=size,
        default=64_000_000,
        metavar="SIZE",
        help="the bound of that file and FILE.1 to FILE.3 together, which it is rotated into (default 64M)",
    )
    parser.add_argument(
        "--metrics-file",
        metavar="FILE.prom",
        help="write the metrics into this file every 15 seconds, for the node exporter's textfile collector",
    )


def run(arguments: Namespace) -> int:
    """Reconcile until SIGTERM or SIGINT, or (`--once`) until nothing is left that can be done."""
    config = read_config(Layout(data_dir_of(arguments)))
    limits, sources, indexes = limits_of(arguments, config), config.get(SOURCES, ()), config.get(INDEXES, ())
    if arguments.dry_run:
        _predict(arguments, limits, sources)
        return EXIT_OK
    bound("stderr", partial(dropped_lines, as_json=arguments.log_format == "json"))
    if arguments.json:
        bound("stdout", _dropped_events, _give_up_stdout)
    with _event_sink(arguments, limits) as show, _traced(arguments, limits, show) as on_event:
        how = {"on_event": on_event, "sources": sources, "indexes": indexes}
        if arguments.once:
            return _reconcile_once(arguments, limits, how)
        return _reconcile(arguments, limits, how, config)


def _predict(arguments: Namespace, limits: Limits, sources: tuple[Source, ...]) -> None:
    from fsdm.reconcile.dry_run import dry_run
    from fsdm.transfer.http.source_settings import Sources

    Sources(sources, data_dir_of(arguments))  # it raises where one cannot be used
    with open_client(arguments) as client:
        forecast, owner = dry_run(client.layout, limits, time.time()), find_reconciler(client.layout)
    fetched, freed = forecast.total_bytes("fetch"), forecast.total_bytes("delete", "discard")
    bytes_per_s = limits.bytes_per_s or ASSUMED_BYTES_PER_S
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
    show(arguments, document, (row(one.what, one.id, one.size_bytes, plain(one.why)) for one in forecast.steps))
    if arguments.json:
        return
    tell(f"{to_fetch(fetched, forecast.undeclared)}; {readable(freed)} freed")
    tell(estimate(fetched, limits.bytes_per_s))
    if owner is not None:
        tell(f"another process reconciles, and may be doing it by now: {plain(describe_holder(owner.says))}")


def _reconcile(arguments: Namespace, limits: Limits, how: dict[str, Any], config: Mapping[str, Any]) -> int:
    from fsdm.cli.follow import Configured
    from fsdm.manager import DataManager
    from fsdm.monitoring.repeating import repeating
    from fsdm.monitoring.service import Service

    signals = Signals()
    is_page = not arguments.no_page
    service = Service(
        address=arguments.metrics_addr, file=arguments.metrics_file, page=is_page, names=arguments.names == "on"
    )
    if service.url is not None:
        where = f"metrics are at {service.url}/metrics" + f"; a page to look at is {service.url}/" * is_page
        say(where, as_json=arguments.log_format == "json", level="info")
    how |= {"limits": limits, "allow_unknown_fs": arguments.allow_unknown_fs}
    with service, DataManager(data_dir_of(arguments), **how) as dm:
        if not dm.reconciling and not arguments.wait:
            ReconcilerLock(dm.layout).close()  # raises, and says who it is

        def end_with_it() -> None:
            if dm.error is not None:
                signals.end()

        ends = repeating(end_with_it, LOOK_S, name="fsdm-end", patience_s=1.0)
        with service.attend(dm), ends, Configured(dm, config) as followed:
            signals.serve(partial(reload, dm, arguments, followed.keep_to))
    if dm.error is None:
        return EXIT_OK
    if isinstance(dm.error, FsdmError):
        raise dm.error
    hint = "start it again, and please report what the log says"
    raise ReconcilerEndedError(f"the reconciler has ended: {dm.error!r:.500}", hint=hint)


def _reconcile_once(arguments: Namespace, limits: Limits, how: dict[str, Any]) -> int:
    from fsdm.manager import run_once

    if limits.count_bytes:
        problem = "--metrics-addr and --metrics-file are of a reconciler that goes on"
        raise InvalidInputError(problem, field="--once", hint="leave out --once, or them")
    how |= {"wait": arguments.wait, "allow_unknown_fs": arguments.allow_unknown_fs}
    troubles = run_once(data_dir_of(arguments), asked_to_end(), limits, **how)
    for name, why in troubles.items():
        say(f"{name}: {why}", as_json=arguments.log_format == "json")
    return EXIT_NOT_CONVERGED if troubles else EXIT_OK


@contextmanager
def _event_sink(arguments: Namespace, limits: Limits) -> Iterator[Callable[[Event], None]]:
    """Show events on stdout with `--json`, and on stderr as `--log-format` says."""
    form, write = arguments.log_format, write_line
    if form == "auto" and arguments.json:
        yield _print_event
        return
    with ExitStack() as stack:
        if form == "auto" and not arguments.quiet and is_screen(sys.stderr) and is_in_front(sys.stderr):
            write = stack.enter_context(_live_view(arguments, limits)).say
        log = EventLog(as_json=form == "json", quiet=arguments.quiet, write=write)

        def on_event(event: Event) -> None:
            if arguments.json:
                _print_event(event)
            log.event(event)

        for name in (OWN, FOLLOWING):
            logging.getLogger(name).setLevel(logging.INFO)
        handlers = logging.getLogger("fsdm")
        handlers.addHandler(log)
        stack.callback(handlers.removeHandler, log)
        yield on_event


@contextmanager
def _traced(arguments: Namespace, limits: Limits, show: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """Write what is shown into the trace too, where one is asked for."""
    if arguments.trace is None:
        yield show
        return
    from fsdm.monitoring.trace import Trace

    layout = Layout(data_dir_of(arguments))
    if not arguments.trace:
        open_data_dir(layout.root, durable=limits.durable, allow_unknown_fs=arguments.allow_unknown_fs)
    with Trace(arguments.trace or layout.trace, arguments.trace_bytes) as trace:

        def on_event(event: Event) -> None:
            trace.tell(event)
            show(event)

        yield on_event


def _live_view(arguments: Namespace, limits: Limits) -> LiveView:
    from rich.console import Console

    from fsdm.status.live_view import LiveView
    from fsdm.status.progress_view import glyphs_for

    layout, glyphs = Layout(data_dir_of(arguments)), glyphs_for(sys.stderr.encoding)
    return LiveView(layout, Console(stderr=True), glyphs, max_bytes=limits.max_bytes, is_own=True)


def _print_event(event: Event) -> None:
    print_json(event.document())


def _dropped_events(number: int) -> str:
    text = f"{count(number, 'event')} could not be written, and {'was' if number == 1 else 'were'} dropped"
    return json.dumps({"kind": "dropped", "chunk_id": "", "text": text}) + "\n"


def _give_up_stdout(error: OSError) -> None:
    abandon_stdout()
    why = "its reader has gone" if isinstance(error, BrokenPipeError) else error.strerror
    logger.warning("stdout cannot be written: %s; no more events are printed there", why)
