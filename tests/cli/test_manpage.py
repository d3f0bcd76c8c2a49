"""The manual page and the completions: made from the parser, and taken by those that read them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsdm import DataManager, __version__
from fsdm.cli.arguments import actions_of, verbs_of
from fsdm.cli.commands import VERBS
from fsdm.cli.main import build_parser
from fsdm.cli.manpage import manual
from tests.support import PATIENCE_S, Source, fsdm, fsdm_json
from tests.support.chunks import a_want, put_want


def needs(*programs: str) -> str:
    """The first of these programs that is here."""
    found = next(filter(shutil.which, programs), None)
    if found is None:
        pytest.skip(f"there is no {' or '.join(programs)} here")
    return found


@pytest.fixture(scope="module")
def page() -> str:
    done = fsdm("man")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_names_every_verb_every_option_and_every_exit_code(page: str) -> None:
    parser = build_parser()
    text = page.replace("\\-", "-")
    assert list(verbs_of(parser)) == list(VERBS) == re.findall(r"^\.SS fsdm ([\w-]+)$", text, re.MULTILINE)
    for verb in (parser, *verbs_of(parser).values()):
        for action in actions_of(verb):
            assert all(f"\\fB{name}\\fR" in text for name in action.option_strings)
    assert re.findall(r"^\.B (\d+)$", text, re.MULTILINE) == re.findall(r"^  (\d+)  ", parser.epilog, re.MULTILINE)
    assert __version__ in page.splitlines()[0].replace("\\-", "-")
    assert "config.toml in the data directory may set them too" in text
    assert page.isascii()


def test_the_page_is_taken_by_man(page: str) -> None:
    program = needs("mandoc", "groff")
    check = ["mandoc", "-Tlint", "-Wwarning"] if program == "mandoc" else ["groff", "-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run(check, input=page, capture_output=True, text=True, timeout=120, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert complaints == []  # it has no date: it is the same whenever it is made


def test_characters_of_roff_are_shown_as_they_are(page: str) -> None:
    reader = ["man", "-l", "-Tutf8", "-"] if needs("man", "mandoc") == "man" else ["mandoc", "-Tutf8"]
    shown = subprocess.run(reader, input=page, capture_output=True, text=True, timeout=120, check=False)
    text = re.sub(".\x08", "", shown.stdout)  # bold is overstruck
    text = re.sub("\x1b\\[[0-9;]*m", "", text)
    assert "fsdm hold -d data DATASET 17000000 -- sh -c 'ls $FSDM_CHUNK_PATH'" in " ".join(text.split())


def test_a_line_that_begins_with_a_dot_or_a_backslash_is_no_request() -> None:
    parser = build_parser()
    actions_of(parser)[0].help = ".de is 'no' \\request -- …"
    assert "\n\\&.de is 'no' \\erequest \\-\\- \\[u2026]\n" in manual(parser, "1")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_its_completion(shell: str, tmp_path: Path) -> None:
    needs(shell)
    script = tmp_path / "script"
    script.write_text(fsdm("completion", shell).stdout)
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(verb in script.read_text() for verb in VERBS)


# what readline does at a TAB, for the words before the cursor
TAB = """
eval "$(fsdm completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
how=$(complete -p fsdm); [[ $how =~ -F\\ ([^ ]+) ]]
"${BASH_REMATCH[1]}" fsdm "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2> /dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


def _tab(cwd: Path, *words: str) -> set[str]:
    command, environment = (
        ["bash", "-c", TAB, "bash", "fsdm", *words],
        {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_bash_completes_verbs_options_choices_files_ids_and_datasets(tmp_path: Path, source: Source) -> None:
    one, other = source.chunk(id="12" + "a" * 62, end=5), source.chunk(id="99" + "a" * 62, start=5)
    with DataManager(tmp_path / "data") as dm:
        for chunk in (one, other):
            dm.download_chunk(chunk)
        dm.wait_converged(PATIENCE_S)
    (tmp_path / "chunk.json").touch()
    assert _tab(tmp_path, "s") >= {"status", "schema"}
    assert _tab(tmp_path, "s") <= {verb for verb in VERBS if verb.startswith("s")}
    assert _tab(tmp_path, "run", "--max-b") == {"--max-bytes"}
    assert _tab(tmp_path, "run", "--durability", "c") == {"chunk"}
    assert _tab(tmp_path, "want", "ch") == {"chunk.json"}
    assert _tab(tmp_path, "ls", "-d", "da") <= {"data", "data/"}
    assert _tab(tmp_path, "delete", "-d", "data", "1") == {one.id}
    assert _tab(tmp_path, "delete", "-d", "nothing", "1") == set()
    assert _tab(tmp_path, "find", "-d", "data", "d") == {"d" * 64}
    (tmp_path / "data" / "datasets.toml").write_text(f'ethereum = "{"d" * 64}"\n')
    assert _tab(tmp_path, "find", "-d", "data", "eth") == {"ethereum"}
    assert _tab(tmp_path, "map", "-d", "data", "") >= {"ethereum", "d" * 64}
    failing = put_want(tmp_path / "data", a_want(id="12" + "b" * 62))
    assert _tab(tmp_path, "explain", "-d", "data", "12") == {one.id, failing.id}


def test_docs_lists_the_pages_with_their_titles_and_prints_each() -> None:
    listed = dict(line.split("\t") for line in fsdm("docs").stdout.splitlines())
    assert listed["recipes"] == "Recipes"
    assert fsdm_json("docs")["pages"] == listed
    for name in listed:
        text = fsdm("docs", name).stdout
        assert text.startswith("# ")
        assert fsdm_json("docs", name) == {"page": name, "text": text}


def test_a_page_that_is_not_there_ends_with_2_and_names_those_that_are() -> None:
    done = fsdm("docs", "\x1b[2J")
    assert (done.returncode, "\x1b" in done.stderr, "recipes" in done.stderr) == (2, False, True)
    assert fsdm("completion", "cmd").returncode == 2
    assert "shtab" in fsdm_json("completion", "bash")["completion"]
    assert json.loads(fsdm("man", "--json").stdout)["man"].startswith(".TH FSDM 1")
