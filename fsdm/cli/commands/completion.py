"""`fsdm completion`: print, or install, the script that completes verbs, options, files and ids."""

import os
from argparse import ArgumentParser, Namespace
from typing import Any, Final

from fsdm.cli.arguments import actions_of, data_dir_of, verbs_of
from fsdm.cli.completion_files import file_for, shell_of
from fsdm.cli.ids import names_of
from fsdm.cli.output import show, tell
from fsdm.model.layout import Layout
from fsdm.store.prefixes import known_chunks, known_datasets

EXAMPLES = """\
fsdm completion bash --install                # for new shells; without a name, for the one of $SHELL
fsdm completion zsh > ~/.zfunc/_fsdm          # where fpath has ~/.zfunc
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
    parser.add_argument(
        "--install",
        action="store_true",
        help="put it where new shells of this user find it, say where, and what else is to be done (bash, zsh, fish)",
    )
    parser.add_argument("--ids", metavar="DIGITS", help="print the ids of chunks that begin so: the script asks for it")
    parser.add_argument("--datasets", metavar="TEXT", help="the same of datasets and their names")


def run(arguments: Namespace) -> None:
    """Print the script; the metavar of an argument tells what completes it."""
    if arguments.ids is not None or arguments.datasets is not None:
        known = _known_ids(arguments) if arguments.ids is not None else _known_datasets(arguments)
        show(arguments, known, known)
        return
    if arguments.shell is None and not arguments.install:
        arguments.refuse("the shell is missing")
    if arguments.install:
        _install(arguments)
        return
    script = _script(arguments, arguments.shell)
    show(arguments, {"completion": script}, [script])


def _install(arguments: Namespace) -> None:
    shell = arguments.shell or shell_of(os.environ)
    file = file_for(shell, os.environ)
    is_new = file.write(f"{_script(arguments, shell)}\n")
    show(arguments, {"shell": shell, "path": file.path, "changed": is_new, "then": file.then}, [file.path])
    if not arguments.json:
        tell(f"fsdm: new {shell} shells complete it" if is_new else "fsdm: it is there already")
        if file.then:
            tell(f"      {file.then}")


def _script(arguments: Namespace, shell: str) -> str:
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
            metavars = action.metavar.split("|") if isinstance(action.metavar, str) else ()
            for kind in filter(kinds.__contains__, metavars):
                action.complete = kinds[kind]
    return str(shtab.complete(parser, shell=shell, preamble=BASH if shell == "bash" else ""))


def _known_ids(arguments: Namespace) -> list[str]:
    return sorted(set(known_chunks(Layout(data_dir_of(arguments)), arguments.ids)))


def _known_datasets(arguments: Namespace) -> list[str]:
    layout = Layout(data_dir_of(arguments))
    known = {*known_datasets(layout), *names_of(arguments, layout).values()}
    return sorted(one for one in known if one.startswith(arguments.datasets))
