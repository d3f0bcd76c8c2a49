"""`fsdm completion`: print what makes a shell complete verbs, options, files, and what is in the data directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fsdm.model.errors import EXIT_OK
from fsdm.status.terminal import print_json

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm completion bash > ~/.local/share/bash-completion/completions/fsdm
fsdm completion zsh > ~/.zfunc/_fsdm    # where fpath has ~/.zfunc
fsdm completion fish > ~/.config/fish/completions/fsdm.fish
"""

# The ids and datasets of the data directory that the line names, or else the environment.
BASH: Final = """\
_fsdm_ls() {
    local at
    for ((at = 1; at + 1 < ${#COMP_WORDS[@]}; at++)); do
        case ${COMP_WORDS[at]} in -d | --data-dir) set -- "$@" -d "${COMP_WORDS[at + 1]}" ;; esac
    done
    fsdm ls "$@" 2> /dev/null
}
_fsdm_ids() { compgen -W "$(_fsdm_ls)" -- "$1"; }
_fsdm_datasets() { compgen -W "$(_fsdm_ls --long | cut -f 1 | sort -u)" -- "$1"; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish", "tcsh"], help="for which shell")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    parser = arguments.build_parser()
    _name_what_is_completed(parser)
    script = shtab.complete(parser, shell=arguments.shell, preamble=BASH if arguments.shell == "bash" else "")
    if arguments.json:
        print_json({"completion": script})
    else:
        print(script)
    return EXIT_OK


def _name_what_is_completed(parser: argparse.ArgumentParser) -> None:
    """Say of each option and argument what stands there: its metavar tells."""
    import shtab

    from fsdm.cli.manpage import actions_of, verbs_of

    kinds: dict[str, object] = {
        "DIR": shtab.DIRECTORY,
        "FILE": shtab.FILE,
        "ID": {"bash": "_fsdm_ids"},
        "DATASET": {"bash": "_fsdm_datasets"},
    }
    for one in (parser, *verbs_of(parser).values()):
        action: Any  # `complete` is shtab's name for it
        for action in actions_of(one):
            if action.metavar in kinds:
                action.complete = kinds[action.metavar]
