"""The manual page, made from the parser: what `fsdm --help` says of each verb, as man(7) has it.

ASCII alone goes out (other characters as groff's names for them), so that no locale is in the way.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

FILES = """\
.SH ENVIRONMENT
.TP
.B FSDM_DATA_DIR
the data directory, where no \\fB\\-d\\fR names one
.SH FILES
.TP
.I want/ID
a chunk that is wanted: JSON
.TP
.I delete/ID
a chunk that is not: an empty file
.TP
.I chunks/DATASET/START\\-END\\-ID/
a chunk that is here; with READY in it, it is complete
.TP
.I failed/ID
why an intent does not converge
.SH SEE ALSO
.BR flock (1),
.BR flock (2),
.BR inotify (7);
\\fBfsdm protocol\\fR prints the contract on disk, \\fBfsdm docs\\fR the other pages
"""


def manual(parser: argparse.ArgumentParser, version: str) -> str:
    """The page, in section 1."""
    head, _, more = (parser.description or "").partition(". ")
    parts = [
        f'.TH {parser.prog.upper()} 1 "" "{parser.prog} {version}" "User Commands"',
        ".SH NAME",
        f"{parser.prog} \\- {_text(head[0].lower() + head[1:])}",
        ".SH SYNOPSIS",
        _text(_usage(parser)),
        ".SH DESCRIPTION",
        _text(f"{head}. {more}"),
        ".SH OPTIONS",
        *_options(parser),
        ".SH VERBS",
    ]
    common = {name for action in actions_of(parser) for name in action.option_strings}
    for name, verb in verbs_of(parser).items():
        parts += [f".SS {parser.prog} {name}", _text(verb.description or ""), ".PP", _text(_usage(verb))]
        parts += _options(verb, common)
        parts += [".PP", "Examples:", ".PP", *_examples(verb)]
    parts += [".SH EXAMPLES", *_examples(parser)]
    parts += [".SH EXIT STATUS", *_codes((parser.epilog or "").partition("exit codes:\n")[2])]
    return "\n".join(parts) + "\n" + FILES


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the verbs, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in actions_of(parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 argparse has no public name for it
            found |= action.choices
    return found


def actions_of(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> list[argparse.Action]:
    """What a parser takes: its options and arguments; or those of one of its groups."""
    if isinstance(parser, argparse.ArgumentParser):
        return parser._actions  # noqa: SLF001 argparse has no other way to ask
    return parser._group_actions  # noqa: SLF001


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _options(parser: argparse.ArgumentParser, said: Collection[str] = ()) -> Iterator[str]:
    for group in parser._action_groups:  # noqa: SLF001
        if group.description:
            yield from (".PP", f"{_text(str(group.title))}: {_text(group.description)}")
        for action in actions_of(group):
            if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:  # noqa: SLF001
                continue
            if said and action.option_strings and set(action.option_strings) <= set(said):
                continue
            metavar = action.metavar if isinstance(action.metavar, str) else "|".join(action.choices or ())
            shown = f"\\fI{_text(metavar)}\\fR" if metavar else ""
            names = ", ".join(f"\\fB{_text(name)}\\fR" for name in action.option_strings)
            yield from (".TP", f"{names} {shown}".strip(), _text(action.help or ""))


def _examples(parser: argparse.ArgumentParser) -> list[str]:
    lines = (parser.epilog or "").partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    return [".EX", *map(_text, lines), ".EE"]


def _codes(epilog: str) -> Iterator[str]:
    for line in epilog.splitlines():
        found = re.fullmatch(r"  (\d+)  (.*)", line)
        if found:
            yield from (".TP", f".B {found[1]}", _text(found[2]))
        else:
            yield from (".PP", _text(line.replace("`", "")))


def _text(text: str) -> str:
    """Text that roff prints as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)
