"""The manual page, made from the parser as man(7) has it, in ASCII whatever the locale."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser
from typing import TYPE_CHECKING

from fsdm.cli.arguments import actions_of, verbs_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

ENDING = r"""
.SH ENVIRONMENT
.TP
.B FSDM_DATA_DIR
the data directory, where no \fB\-d\fR names one
.SH FILES
\fBfsdm protocol\fR lists the files of a data directory, and what stands in them.
.SH SEE ALSO
.BR flock (1),
.BR flock (2),
.BR inotify (7);
\fBfsdm docs\fR prints the other pages
"""


def manual(parser: ArgumentParser, version: str) -> str:
    """Make the page, in section 1."""
    purpose, _, more = (parser.description or "").partition(". ")
    name = f"{parser.prog} \\- {_text(purpose[0].lower() + purpose[1:])}"
    codes = (parser.epilog or "").partition("exit codes:\n")[2]
    lines = [f'.TH {parser.prog.upper()} 1 "" "{parser.prog} {version}" "User Commands"', ".SH NAME", name]
    lines += [".SH SYNOPSIS", _usage(parser), ".SH DESCRIPTION", _text(f"{purpose}. {more}")]
    lines += [".SH OPTIONS", *_options(parser), ".SH VERBS"]
    common = {name for action in actions_of(parser) for name in action.option_strings}
    for name, verb in verbs_of(parser).items():
        lines += [f".SS {parser.prog} {name}", _text(verb.description or ""), ".PP", _usage(verb)]
        lines += [*_options(verb, common), ".PP", "Examples:", ".PP", *_examples(verb)]
    lines += [".SH EXAMPLES", *_examples(parser), ".SH EXIT STATUS"]
    for code, meaning in re.findall(r"^  (\d+)  (.*)$", codes, re.MULTILINE):
        lines += [".TP", f".B {code}", _text(meaning)]
    return "\n".join([*lines, ".PP", _text(codes.splitlines()[-1].replace("`", ""))]) + ENDING


def _usage(parser: ArgumentParser) -> str:
    return _text(" ".join(parser.format_usage().removeprefix("usage: ").split()))


def _options(parser: ArgumentParser, known: Container[str] = ()) -> Iterator[str]:
    for group in parser._action_groups:  # noqa: SLF001 argparse has no other way to ask
        if group.description:
            yield from (".PP", _text(f"{group.title}: {group.description}"))
        for action in actions_of(group):
            names = [f"\\fB{_text(name)}\\fR" for name in action.option_strings if name not in known]
            value = action.metavar if isinstance(action.metavar, str) else "|".join(action.choices or ())
            if action.help not in {None, SUPPRESS} and bool(names) == bool(action.option_strings):
                shown = f"\\fI{_text(value)}\\fR" if value else ""
                yield from (".TP", f"{', '.join(names)} {shown}".strip(), _text(str(action.help).replace("%%", "%")))


def _examples(parser: ArgumentParser) -> Iterable[str]:
    lines = (parser.epilog or "").partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    return (".EX", *map(_text, lines), ".EE")


def _text(text: str) -> str:
    """Escape text, so that roff prints it as it is."""
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text.replace("\\", "\\e").replace("-", "\\-"))
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)
