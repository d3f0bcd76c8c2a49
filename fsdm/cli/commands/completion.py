"""`fsdm completion`: print the script that completes verbs, options, files and ids."""

from argparse import ArgumentParser, Namespace
from typing import Any, Final

from fsdm.cli.arguments import actions_of, data_dir_of, verbs_of
from fsdm.cli.ids import names_of
from fsdm.cli.output import show
from fsdm.model.layout import Layout
from fsdm.store.prefixes import known_chunks, known_datasets

EXAMPLES = """\
fsdm completion bash > ~/.local/share/bash-completion/completions/fsdm
fsdm completion zsh > ~/.zfunc/_fsdm    # where fpath has ~/.zfunc
fsdm completion fish > ~/.config/fish/completions/fsdm.fish
"""

# Asked for the ids, datasets and names that begin so, in the data directory that the line names, or the environment.
BASH: Final = """\
_fsdm_known() {
    local at
    for ((at = 1; at + 1 < ${#COMP_WORDS[@]}; at++)); do
        case ${COMP_WORDS[at]} in -d | --data-dir) set -- "$@" -d "${COMP_WORDS[at + 1]}" ;; esac
    done
    fsdm completion "$@" 2> /dev/null
}
_fsdm_ids() { _fsdm_known --ids="$1"; }
_fsdm_datasets() { _fsdm_known --datasets="$1"; }
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "shell", nargs="?", choices=["bash", "zsh", "fish", "tcsh"], help="the shell that is to complete"
    )
    parser.add_argument("--ids", metavar="DIGITS", help="print the ids of chunks that begin so: the script asks for it")
    parser.add_argument("--datasets", metavar="TEXT", help="the same of datasets and their names")


def run(arguments: Namespace) -> None:
    """Print the script; the metavar of an argument tells what completes it."""
    if arguments.ids is not None or arguments.datasets is not None:
        known = _known_ids(arguments) if arguments.ids is not None else _known_datasets(arguments)
        show(arguments, known, known)
        return
    if arguments.shell is None:
        arguments.refuse("the shell is missing")
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


def _known_ids(arguments: Namespace) -> list[str]:
    return sorted(set(known_chunks(Layout(data_dir_of(arguments)), arguments.ids)))


def _known_datasets(arguments: Namespace) -> list[str]:
    layout = Layout(data_dir_of(arguments))
    known = {*known_datasets(layout), *names_of(arguments, layout).values()}
    return sorted(one for one in known if one.startswith(arguments.datasets))
