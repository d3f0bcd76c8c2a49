"""`fsdm completion`: print the script that completes verbs, options, files and ids."""

from argparse import ArgumentParser, Namespace
from typing import Any, Final

from fsdm.cli.arguments import actions_of, verbs_of
from fsdm.cli.output import show

EXAMPLES = """\
fsdm completion bash > ~/.local/share/bash-completion/completions/fsdm
fsdm completion zsh > ~/.zfunc/_fsdm    # where fpath has ~/.zfunc
fsdm completion fish > ~/.config/fish/completions/fsdm.fish
"""

# The ids, datasets and their names, of the data directory that the line names, or else the environment.
BASH: Final = """\
_fsdm_ls() {
    local at
    for ((at = 1; at + 1 < ${#COMP_WORDS[@]}; at++)); do
        case ${COMP_WORDS[at]} in -d | --data-dir) set -- "$@" -d "${COMP_WORDS[at + 1]}" ;; esac
    done
    fsdm ls "$@" 2> /dev/null
}
_fsdm_ids() { compgen -W "$(_fsdm_ls)" -- "$1"; }
_fsdm_datasets() { compgen -W "$(_fsdm_ls --datasets | cut -f 1,3)" -- "$1"; }
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish", "tcsh"], help="the shell that is to complete")


def run(arguments: Namespace) -> None:
    """Print the script; the metavar of an argument tells what completes it."""
    import shtab

    kinds: dict[str, object] = {
        "DIR": shtab.DIRECTORY,
        "FILE": shtab.FILE,
        "ID": {"bash": "_fsdm_ids"},
        "DATASET": {"bash": "_fsdm_datasets"},
    }
    parser = arguments.build_parser()
    for one in (parser, *verbs_of(parser).values()):
        action: Any  # `complete` is shtab's name for it
        for action in actions_of(one):
            if action.metavar in kinds:
                action.complete = kinds[action.metavar]
    script = shtab.complete(parser, shell=arguments.shell, preamble=BASH if arguments.shell == "bash" else "")
    show(arguments, {"completion": script}, [script])
