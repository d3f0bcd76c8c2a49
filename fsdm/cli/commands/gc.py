"""`fsdm gc`: evict what is registered and not wanted."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from fsdm.cli.arguments import open_client, seconds, size
from fsdm.cli.output import row, show, tell
from fsdm.model.errors import InvalidInputError
from fsdm.model.units import readable

EXAMPLES = """\
fsdm gc -d data --to 800G --dry-run
fsdm gc -d data --to 0
fsdm gc -d data --errored      # what has come of chunks that failed
fsdm gc -d data --idle 3600    # what was not used for an hour
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--to", type=_size, default=0, metavar="SIZE", help="until so much is here (default: 0)")
    parser.add_argument("--idle", type=seconds, default=0.0, metavar="S", help="only what was not used for so long")
    parser.add_argument(
        "--errored", action="store_true", help="what has come of chunks that failed, in place of what is here"
    )
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds; then exit with code 4")
    parser.add_argument("--dry-run", action="store_true", help="say what would be tried, and change nothing")


def _size(text: str) -> int:
    """Read a size; 0 is one."""
    return 0 if text == "0" else size(text)


def run(arguments: Namespace) -> None:
    """Evict, and show what has become of each chunk that was to go."""
    if arguments.errored and (arguments.to or arguments.idle):
        raise InvalidInputError("goes with neither --to nor --idle", field="--errored", hint="leave these out")
    with open_client(arguments) as client:
        collected = client.gc(
            to_bytes=arguments.to,
            idle_s=arguments.idle,
            timeout_s=arguments.timeout,
            dry_run=arguments.dry_run,
            errored=arguments.errored,
        )
    freed = sum(one.size_bytes for one in collected if one.outcome == "evicted")
    shown = {"chunks": [asdict(one) for one in collected], "freed_bytes": freed}
    show(arguments, shown, (row(one.id, one.outcome) for one in collected))
    tell(f"fsdm: {readable(freed)} {'would be freed' if arguments.dry_run else 'freed'}")
