"""Output of the command line: text that moves no cursor, JSON, errors with their hints."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from fsdm.model.errors import ChunkFailedError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.model.errors import FsdmError


def open_streams() -> None:
    """Have stdin, stdout and stderr be there, and take any text.

    One that the parent has closed becomes `/dev/null`: else the first file that is opened would get its number. What
    stdout cannot encode is written as an escape, and the bytes of a name as they are.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 until the end
    codecs.register_error("fsdm", _anyhow)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="fsdm")


def abandon_stdout() -> None:
    """Print nowhere from now on, also at the exit of Python: the reader has gone."""
    _to_null(sys.stdout.fileno())


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, number)
        os.close(null)


def _anyhow(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


def print_json(document: object, file: TextIO | None = None) -> None:
    """Print it on stdout or another stream, in one line and one piece: threads may print at once."""
    print(encodable(json.dumps(document, ensure_ascii=False)) + "\n", end="", flush=True, file=file)


def encodable(text: str) -> str:
    """Escape what cannot be encoded: names on disk may be no Unicode at all."""
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(text: str) -> str:
    """Escape what moves the cursor or hides something: names and errors may come from anywhere."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_screen(stream: TextIO) -> bool:
    """Return whether it is a terminal on which something can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown", ""}


def is_in_front(stream: TextIO) -> bool:
    """Return whether this process is in the foreground of its terminal (tcgetpgrp(3))."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # it controls no processes: so there is no shell to disturb
        return True


def takes_utf8(encoding: str | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether more than ASCII may be written: stream and locale are UTF-8.

    Python writes UTF-8 in the locales C and POSIX too; but these ask for ASCII.
    """
    asked = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "utf-8")
    return all("utf8" in name.lower().replace("-", "") for name in (encoding or "ascii", asked))


def complain(error: FsdmError, *, as_json: bool) -> None:
    """Say on stderr what is wrong, and what to do."""
    if as_json:
        document: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "hint": error.hint}
        if isinstance(error, InvalidInputError):
            document["field"] = error.field
        if isinstance(error, ChunkFailedError):
            document["failures"] = [failure.model_dump(mode="json") for failure in error.failures]
        print_json({"error": document}, sys.stderr)
        return
    print(f"fsdm: {plain(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"      {error.hint}", file=sys.stderr)
