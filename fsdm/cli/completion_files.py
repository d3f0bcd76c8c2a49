"""The places where shells look for completions, for one user. No file of the user's own is changed, only told of."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsdm.model.errors import FsdmError, InvalidInputError
from fsdm.store.filesystem import FileSystem, read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTALLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class CompletionFile:
    """The file of one shell; `then` says what is to be done once, "" where the shell finds it by itself."""

    path: str
    then: str = ""

    def write(self, script: str) -> bool:
        """Put the script there; tell whether it was another one before.

        Raises:
            FsdmError: this user may not write there.
        """
        data = script.encode()
        try:
            read = read_regular(self.path, len(data) + 1)
            if read is not None and read[1] == data:
                return False
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            FileSystem(durable=False).write(self.path, data, durable=False)
        except OSError as e:
            hint = "print it, and put it where your shell looks: fsdm completion SHELL"
            raise FsdmError(f"{self.path} cannot be written: {e.strerror}", hint=hint) from e
        return True


def shell_of(environ: Mapping[str, str]) -> str:
    """Name the shell of this user.

    Raises:
        InvalidInputError: it is none that a completion can be installed for.
    """
    shell = os.path.basename(environ.get("SHELL", ""))
    if shell not in INSTALLS:
        what = f"SHELL is {environ['SHELL']!r:.80}" if "SHELL" in environ else "SHELL does not say which it is"
        raise InvalidInputError(what, field="--install", hint=f"name one of {', '.join(INSTALLS)}")
    return shell


def file_for(shell: str, environ: Mapping[str, str]) -> CompletionFile:
    """Find where a shell looks, as its own documentation has it.

    Raises:
        InvalidInputError: there is no such place for it, or nobody's home is known.
    """
    home = environ.get("HOME", "")
    if not home:
        raise InvalidInputError("HOME is not set", field="--install", hint="set it to the user's directory")
    if shell == "bash":
        data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
        where = environ.get("BASH_COMPLETION_USER_DIR") or f"{data}/bash-completion"
        path = f"{where}/completions/fsdm"
        return CompletionFile(path, f"where the package bash-completion is missing: . {shlex.quote(path)} in ~/.bashrc")
    if shell == "fish":
        return CompletionFile(f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/fish/completions/fsdm.fish")
    if shell == "zsh":
        line = "fpath=(~/.zfunc $fpath); autoload -Uz compinit && compinit"
        return CompletionFile(f"{home}/.zfunc/_fsdm", f"once, unless it is there: {line} in ~/.zshrc")
    hint = f"print it, and put it where {shell} looks: fsdm completion {shell}"
    raise InvalidInputError(f"{shell} has no place of its own for completions", field="--install", hint=hint)
