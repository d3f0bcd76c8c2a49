"""`fsdm wait`: wait until wants and deletes are carried out."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import add_ids, ids_of
from fsdm.cli.output import row, show, tell
from fsdm.status.terminal import is_in_front, is_screen, plain

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fsdm.model.layout import Layout

EXAMPLES = """\
fsdm wait -d data --timeout 60
fsdm wait -d data ID
fsdm wait -d data --keep-waiting    # while a URL is mended, or credentials come
"""
AFTER_S = 0.5  # a wait that is shorter shows nothing
LOOK_S = 0.5


def add_arguments(parser: ArgumentParser) -> None:
    add_ids(parser, "*", "only these (by default all that are wanted, or to be deleted)")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="seconds; then exit with code 4 (default: as long as it takes)"
    )
    parser.add_argument(
        "--keep-waiting",
        action="store_true",
        help="wait also where all that is left fails and cannot pass by itself, because somebody will mend it "
        "(default: exit with code 4 then)",
    )


def run(arguments: Namespace) -> None:
    """Wait; show on stderr meanwhile what goes on, or what is in the way."""
    with open_client(arguments) as client:
        ids = ids_of(arguments, client.layout)
        with nullcontext() if arguments.json else _shown(client.layout, ids):
            client.wait_converged(arguments.timeout, chunk_ids=ids or None, keep_waiting=arguments.keep_waiting)
        states = {one: "available" if client.wait(one) else "gone" for one in ids}
    show(arguments, {"converged": True, "chunks": states}, (row(*one) for one in states.items()))


def _shown(layout: Layout, ids: list[str]) -> AbstractContextManager[object]:
    """Show the progress on a terminal; elsewhere say once what is in the way."""
    if is_screen(sys.stderr) and is_in_front(sys.stderr):
        from rich.console import Console

        from fsdm.status.live_view import LiveView
        from fsdm.status.progress_view import glyphs_for

        return LiveView(layout, Console(stderr=True), glyphs_for(sys.stderr.encoding), after_s=AFTER_S)
    from fsdm.monitoring.repeating import repeating
    from fsdm.status.obstacles import Obstacles
    from fsdm.status.survey import Surveyor

    surveyor, obstacles = Surveyor(layout), Obstacles(layout.root, ids)

    def look() -> None:
        with suppress(OSError):  # the wait itself meets that, and says so
            for sentence in obstacles.news(surveyor.look()):
                tell(f"fsdm: {plain(sentence)}")

    return repeating(look, LOOK_S, name="fsdm-wait", patience_s=LOOK_S)
