"""The command line: verbs, their arguments, and exit codes. What the verbs do stands in `verbs`.

`-d/--data-dir` and `--json` are taken before and after the verb. stdout is data, stderr is talk. Imports stand where
they are used, so that `fsdm ls` does not pay for requests and pydantic.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from fsdm.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, FsdmError, InvalidInputError
from fsdm.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CODES = """\
exit codes:
  0  done, or stopped by SIGINT or SIGTERM
  1  an unexpected error
  2  wrong usage, or input that cannot be taken
  3  no such chunk is available
  4  not converged: in time (wait), or at all (run --once)
  5  another process reconciles this data directory
  6  the data directory cannot be used: missing, of an unknown format, no flock, or refused by the disk
  130  interrupted
`fsdm hold` ends with the exit code of CMD, 126 where that cannot be run, 127 where it is not found."""

VERBS: dict[str, tuple[str, str]] = {
    "run": ("reconcile in the foreground", "fsdm run -d data\nfsdm run -d data --once    # converge and exit"),
    "want": ("ask for chunks", "fsdm want -d data chunk.json\nmake-wants | fsdm want -d data -    # JSON Lines"),
    "delete": ("ask for chunks to be deleted", "fsdm delete -d data ID\nfsdm ls -d data | xargs fsdm delete -d data"),
    "ls": ("list the available chunks", "fsdm ls -d data\nfsdm ls -d data --long"),
    "find": ("print the path of the chunk that holds a block", "fsdm find -d data DATASET 17000000"),
    "hold": (
        "run a command while holding the chunk",
        "fsdm hold -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'",
    ),
    "status": ("show how each chunk stands, and why", "fsdm status -d data\nfsdm status -d data ID"),
    "wait": ("wait until what is asked for is so", "fsdm wait -d data --timeout 60\nfsdm wait -d data ID"),
    "protocol": ("print the on-disk protocol", "fsdm protocol | less"),
    "schema": ("print the JSON Schema of a want and of READY", "fsdm schema want"),
    "demo": ("see it work, with nothing else running", "fsdm demo"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    try:
        from fsdm import verbs

        verb = getattr(verbs, arguments.verb)
        code: int = verb(arguments)
        sys.stdout.flush()
    except FsdmError as e:
        _complain(e, as_json=arguments.json)
        return e.exit_code
    except BrokenPipeError:
        # whoever read our output has gone: end quietly, also when Python flushes stdout at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _parse(argv: list[str]) -> argparse.Namespace:
    command: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1 :]
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        parser.print_help()
        sys.exit(EXIT_USAGE)
    if (arguments.verb == "hold") != bool(command):
        what = (
            "which command? fsdm hold DATASET BLOCK -- CMD…"
            if arguments.verb == "hold"
            else "nothing follows `--` here"
        )
        parser.error(what)
    arguments.command = command
    # the demo plays in a directory of its own, unless one is named outright
    default = None if arguments.verb == "demo" else os.environ.get("FSDM_DATA_DIR")
    arguments.data_dir = getattr(arguments, "data_dir", None) or default
    arguments.json = getattr(arguments, "json", False)
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from fsdm import __version__

    # SUPPRESS: an option that is not given after the verb must not undo the one given before it
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-d", "--data-dir", metavar="DIR", help="the data directory (or FSDM_DATA_DIR)")
    common.add_argument("--json", action="store_true", help="print JSON; fields are only ever added")
    parser = argparse.ArgumentParser(
        prog="fsdm",
        parents=[common],
        description="Keeps a changing set of data chunks on a disk. The layout on disk is the source of truth.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fsdm {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, (purpose, examples) in VERBS.items():
        indented = "\n".join(f"  {line}" for line in examples.splitlines())
        verb = verbs.add_parser(
            name,
            parents=[common],
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=f"examples:\n{indented}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_arguments(name, verb)
    return parser


def _add_arguments(name: str, verb: argparse.ArgumentParser) -> None:
    match name:
        case "run":
            verb.add_argument("--once", action="store_true", help="converge and exit; code 4 if something cannot")
            verb.add_argument(
                "--wait", action="store_true", help="where another process reconciles, take over when it ends"
            )
            verb.add_argument(
                "--jobs", type=_positive, default=8, metavar="N", help="chunks fetched at once (default 8)"
            )
            verb.add_argument(
                "--connections",
                type=_positive,
                default=8,
                metavar="N",
                help="files fetched at once, and a quarter more of small ones (default 8)",
            )
            verb.add_argument(
                "--connections-per-host", type=_positive, metavar="N", help="files fetched at once from one server"
            )
            verb.add_argument(
                "--connections-per-file",
                type=_positive,
                default=4,
                metavar="N",
                help="a large file may come over so many connections where one is slow and more bring more (default 4)",
            )
            verb.add_argument(
                "--limit-rate",
                type=_size,
                metavar="SIZE",
                help="all connections together bring at most so much a second, as 10M",
            )
            verb.add_argument(
                "--max-bytes",
                type=_size,
                metavar="SIZE",
                help="all chunks together take at most so much, as 900G or 1.5Ti; a want over it waits until it fits",
            )
            verb.add_argument(
                "--keep-free",
                type=_size,
                default=0,
                metavar="SIZE",
                help="no download begins that would leave less free on the disk",
            )
            verb.add_argument(
                "--durability",
                choices=["none", "chunk"],
                default="chunk",
                help="chunk (default): every file is fsynced before its chunk is available, and every step after it; "
                "none: nothing is, and after a power failure an available chunk may have wrong or empty bytes, and "
                "intents may be lost (a crash of the process alone loses nothing either way)",
            )
            verb.add_argument(
                "--allow-host",
                type=_host,
                action="append",
                default=[],
                metavar="HOST",
                help="fetch from this host alone, also where an answer redirects; *.DOMAIN is every host below a "
                "domain, and :PORT may follow; may be given several times",
            )
            verb.add_argument(
                "--deny-private",
                action="store_true",
                help="connect to public addresses alone: not to loopback, private or link-local ones, whatever a name "
                "leads to; and ask no proxy, which could",
            )
            verb.add_argument(
                "--allow-unknown-fs", action="store_true", help="trust flock on a file system not known to be safe"
            )
        case "want":
            verb.add_argument(
                "files", nargs="+", metavar="FILE", help="a want as JSON, or JSON Lines; - is standard input"
            )
        case "delete":
            verb.add_argument("ids", nargs="+", metavar="ID", help="64 lower-case hex digits")
        case "ls":
            verb.add_argument("-l", "--long", action="store_true", help="dataset, start, end and id, tab-separated")
        case "find" | "hold":
            verb.add_argument("dataset", metavar="DATASET", help="the dataset's id")
            verb.add_argument("block", type=int, metavar="BLOCK", help="a block number")
        case "status":
            verb.add_argument("ids", nargs="*", metavar="ID", help="only these")
        case "wait":
            verb.add_argument("ids", nargs="*", metavar="ID", help="only these; else all that is asked for")
            verb.add_argument("--timeout", type=float, metavar="S", help="seconds; then exit with code 4")
        case "schema":
            verb.add_argument("document", nargs="?", choices=["want", "ready"], help="only this one")
        case "demo":
            verb.add_argument(
                "--scale", type=float, default=1.0, metavar="X", help="make the files so many times as large"
            )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidInputError as e:
        raise argparse.ArgumentTypeError(f"{e}: {e.hint}") from None


def _host(text: str) -> str:
    from fsdm.policy import check_pattern

    try:
        return check_pattern(text)
    except InvalidInputError as e:
        raise argparse.ArgumentTypeError(f"{e}: {e.hint}") from None


def _complain(error: FsdmError, *, as_json: bool) -> None:
    from fsdm.verbs import encodable, plain

    if as_json:
        document: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "hint": error.hint}
        if isinstance(error, InvalidInputError):
            document["field"] = error.field
        print(encodable(json.dumps({"error": document}, ensure_ascii=False)), file=sys.stderr)
        return
    print(f"fsdm: {plain(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"      {error.hint}", file=sys.stderr)
