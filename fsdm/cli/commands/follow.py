"""`fsdm follow`: keep the wanted chunks equal to a list that changes."""

from __future__ import annotations

import logging
from argparse import SUPPRESS, ArgumentParser, Namespace

from fsdm.cli.arguments import data_dir_of, share
from fsdm.cli.config import FOLLOW, SOURCES, read_config
from fsdm.cli.event_log import FOLLOWING, EventLog
from fsdm.cli.signals import Signals
from fsdm.model.errors import FsdmError
from fsdm.model.follow import Follow
from fsdm.model.layout import Layout
from fsdm.reconcile.delete_brake import SHARE
from fsdm.store.data_dir import check_format

EXAMPLES = """\
fsdm follow -d data https://example.org/assignment.jsonl.gz --every 60s
fsdm follow -d data https://example.org/fleet/placement.json --node-id a1 --report https://example.org/reports
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL|FILE",
        help="the list, as `fsdm sync` takes it, or the placement.json that `fsdm place` publishes; default: url of "
        "[follow] in config.toml, as for all of these",
    )
    parser.add_argument("--every", metavar="TIME", help="how often to look, about: 30s, 5m, 1h (default 60s)")
    parser.add_argument(
        "--brake",
        type=share,
        default=SUPPRESS,
        metavar="SHARE",
        help="hold a list back that would take away more than this part of what is here, until fsdm release; off: "
        "never (default 25%%)",
    )
    parser.add_argument(
        "--report",
        metavar="DIR|URL",
        help="after each look say there what is here, and what is missing: NAME.json in a directory, or by PUT",
    )
    parser.add_argument(
        "--node-id",
        metavar="NAME",
        help="the node's name; it is kept in the data directory, and made where there is none",
    )
    parser.add_argument("--zone", metavar="ZONE", help="what fails together with this node, for its reports")
    parser.add_argument("--capacity", metavar="SIZE", help="what it has room for, for its reports (default: max-bytes)")
    parser.add_argument("-q", "--quiet", action="store_true", help="say on stderr only what may ask for an action")


def run(arguments: Namespace) -> None:
    """Follow until SIGTERM or SIGINT; SIGHUP looks now."""
    from fsdm.cli.follow import Following

    layout = Layout(data_dir_of(arguments))
    check_format(layout)
    config = read_config(layout)
    table = {key: getattr(arguments, key.replace("-", "_")) for key in ("url", "every", "report", "node-id", "zone")}
    follow = config.get(FOLLOW, Follow()).given(table | {"capacity": arguments.capacity})
    brake = arguments.brake if "brake" in arguments else config.get("brake_share", SHARE)
    signals, ended = Signals(), list[FsdmError]()

    def end(error: FsdmError) -> None:
        ended.append(error)
        signals.end()

    logging.getLogger(FOLLOWING).setLevel(logging.INFO)
    logging.getLogger("fsdm").addHandler(EventLog(as_json=arguments.json, quiet=arguments.quiet))
    max_bytes = config.get("max_bytes")
    following = Following(layout, follow, config.get(SOURCES, ()), brake, max_bytes, on_error=end)
    with following.running():
        signals.serve(following.look_now)
    if ended:
        raise ended[0]
