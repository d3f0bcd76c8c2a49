"""`fsdm ui`: serve a page to look at, from the files alone."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Final

from fsdm.cli.arguments import data_dir_of
from fsdm.cli.config import TABLES, read_config
from fsdm.cli.output import show, tell
from fsdm.cli.signals import asked_to_end
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import Layout

if TYPE_CHECKING:
    from fsdm.model.limits import Limits

ADDRESS: Final = "127.0.0.1:8899"

EXAMPLES = """\
fsdm ui -d data                          # then open what it prints in a browser; Ctrl-C ends it
fsdm ui -d data --addr 127.0.0.1:0       # any port that is free
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--addr",
        default=ADDRESS,
        metavar="HOST:PORT",
        help=f"serve it at this address (default {ADDRESS}); whoever may connect sees ids, hosts, errors and the "
        "commands of holders, and can change nothing",
    )


def run(arguments: Namespace) -> None:
    """Serve the page until SIGINT or SIGTERM. Whether any process reconciles, it shows."""
    from fsdm.manager import DataManager
    from fsdm.monitoring.service import Service

    stop = asked_to_end()
    data_dir = data_dir_of(arguments)
    with DataManager(data_dir, reconcile=False, limits=_limits(Layout(data_dir))) as dm:
        service = Service(
            address=arguments.addr, page=True, option="--addr", names=arguments.names == "on", environment={}
        )
        with service, service.attend(dm):
            show(arguments, {"url": f"{service.url}/"}, [f"{service.url}/"])
            sys.stdout.flush()
            stop.wait()


def _limits(layout: Layout) -> Limits:
    """Take the limits of the reconciler's own file, as far as this user may read it: the page shows the budget."""
    from fsdm.model.limits import Limits

    try:
        return Limits(**{field: value for field, value in read_config(layout).items() if field not in TABLES})
    except InvalidInputError as e:
        tell(f"no budget is shown: {e}")
        return Limits()
