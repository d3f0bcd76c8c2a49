"""The command line: its parser, its exit codes, and the run of one verb of `commands`.

`-d/--data-dir` and `--json` may stand before and after the verb. Data goes to stdout, messages to stderr. Imports stand
where they are used: `fsdm ls` loads neither requests nor pydantic.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shlex
import sys
from difflib import get_close_matches
from importlib import import_module
from textwrap import indent
from typing import TYPE_CHECKING, Any, NoReturn

from fsdm import __version__
from fsdm.cli.commands import VERBS
from fsdm.model.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, FsdmError
from fsdm.status.terminal import abandon_stdout, complain, open_streams

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

EXAMPLES = """\
fsdm demo                                       # see it work
fsdm run -d data                                # reconcile; then, in another shell:
fsdm want -d data chunk.json                    # `fsdm schema want` says what stands in it
fsdm wait -d data && fsdm ls -d data --long
fsdm hold -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'
fsdm delete -d data ID                          # it goes when its last reader has ended
fsdm docs recipes                               # in Python; `fsdm docs` lists the pages
"""

EXIT_CODES = """\
exit codes:
  0  done, or stopped by SIGINT or SIGTERM
  1  an unexpected error
  2  wrong usage, or input that cannot be taken
  3  no such chunk is available
  4  not converged: in time (wait), or at all (wait, run --once); or a list or document could not be fetched
  5  another process reconciles this data directory
  6  the data directory cannot be used: missing, of an unknown format, no flock, or refused by the disk
  7  damaged chunks were found (verify)
  8  braked: it would remove more of what is here than --brake allows; nothing was changed (--yes goes on)
  9  the reconciler has ended of itself, by a defect (run): start it again
  129  ended by SIGHUP (demo)
  130  interrupted
  143  ended by SIGTERM (demo)
`fsdm hold` and `acquire` end with the exit code of CMD, 126 where that cannot be run, 127 where it is not found."""


class _Parser(argparse.ArgumentParser):
    """A parser that asks what was meant by a verb that there is not."""

    def error(self, message: str) -> NoReturn:
        """End with a line on stderr."""
        if unknown := re.match(r"argument VERB: invalid choice: '(.*?)' \(", message):
            near = get_close_matches(unknown[1], VERBS, 1)
            asked = f"did you mean {near[0]}?" if near else "`fsdm --help` lists them"
            message = f"there is no verb {unknown[1]!r}: {asked}"
        super().error(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb, and return its exit code."""
    open_streams()
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    try:
        code: int = _verb(arguments.verb).run(arguments) or EXIT_OK
        sys.stdout.flush()
    except FsdmError as e:
        complain(e, as_json=arguments.json or getattr(arguments, "log_format", None) == "json")
        return e.exit_code
    except BrokenPipeError:
        abandon_stdout()  # the reader of the output has gone: end quietly
        return EXIT_OK
    except OSError as e:
        from fsdm.reconcile.disk_outage import FULL

        if e.filename is not None or e.errno not in FULL | {errno.EFBIG}:
            raise
        abandon_stdout()
        hint = "make room where the output goes, and run it again"
        complain(FsdmError(f"stdout cannot be written: {e.strerror}", hint=hint), as_json=arguments.json)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _parse(argv: list[str]) -> argparse.Namespace:
    command: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1 :]
    parser = build_parser({name for name in VERBS if name in argv})
    arguments, more = parser.parse_known_args(argv)
    if arguments.verb is None and more:
        parser.error(f"unrecognized arguments: {shlex.join(more)}")
    if arguments.verb is None:
        parser.print_help()
        sys.exit(EXIT_USAGE)
    becomes = arguments.verb in {"hold", "acquire"}
    if more and becomes and not command:
        arguments.refuse(f"put -- before the command: … -- {shlex.join(more)}")
    if more:
        arguments.refuse(f"unrecognized arguments: {shlex.join(more)}")
    if becomes != bool(command):
        arguments.refuse("no command follows `--`" if becomes else "this verb takes no command")
    arguments.command = command
    arguments.build_parser = build_parser  # for the verbs that describe the whole command line
    # the demo plays in a directory of its own, unless one is named outright
    default = None if arguments.verb == "demo" else os.environ.get("FSDM_DATA_DIR")
    arguments.data_dir = getattr(arguments, "data_dir", None) or default
    arguments.json = getattr(arguments, "json", False)
    arguments.names = getattr(arguments, "names", "on")
    return arguments


def build_parser(names: Container[str] = VERBS) -> argparse.ArgumentParser:
    """Build the parser of the command line, with the arguments of these verbs alone."""
    # SUPPRESS: the default of an option after the verb would replace the one given before it
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-d", "--data-dir", metavar="DIR", help="the data directory (or FSDM_DATA_DIR)")
    common.add_argument("--json", action="store_true", help="print JSON; fields are only ever added")
    common.add_argument(
        "--names", choices=["on", "off"], help="off: the names of datasets (datasets.toml) are neither taken nor shown"
    )
    parser = _Parser(
        prog="fsdm",
        parents=[common],
        description="Keeps a changing set of data chunks on a disk. The layout on disk is the source of truth.",
        epilog=f"examples:\n{indent(EXAMPLES, '  ')}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fsdm {__version__}")
    helps = {option: _Parser(add_help=False) for option in ("-h", "--help")}
    for option, one in helps.items():
        one.add_argument(
            option, *(("--help",) if option == "-h" else ()), action="help", help="show this help, and end"
        )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, purpose in VERBS.items():
        module = _verb(name) if name in names else None
        verb = verbs.add_parser(
            name,
            parents=[helps["--help" if getattr(module, "H_IS_HUMAN", False) else "-h"], common],
            add_help=False,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(refuse=verb.error)
        if module is not None:
            verb.epilog = f"examples:\n{indent(module.EXAMPLES, '  ')}\nexit codes: `fsdm --help` lists them"
            if hasattr(module, "add_arguments"):
                module.add_arguments(verb)
    return parser


def _verb(name: str) -> Any:
    return import_module(f"fsdm.cli.commands.{name}")
