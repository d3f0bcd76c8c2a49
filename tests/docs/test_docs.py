"""The pages of documentation are run as they stand: by copy and paste."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from fsdm.cli.arguments import actions_of, verbs_of
from fsdm.cli.main import build_parser
from tests.support import Fault, Source, ran
from tests.support.chunks import content
from tests.support.object_store import signature_of
from tests.support.pages import PAGES, Section, commands, like, parsed, sections

DATASET = "d" * 64
RECIPES = sections("recipes.md")

# what runs a notebook, cell by cell, and prints what its cells have printed
NOTEBOOK = """
import sys
import nbformat
from nbclient import NotebookClient

book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.stdin.read())])
NotebookClient(book, timeout=120).execute()
print("".join(output["text"] for output in book.cells[0].outputs if output.output_type == "stream"), end="")
"""

# what a browser would do with the workers: ask, while one of them is killed, and a chunk is deleted
BROWSER = """
import http.client, signal

def get(path):
    connection = http.client.HTTPConnection(*listening.getsockname(), timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    seen = answer.status, answer.read().decode() if answer.status == 200 else ""
    connection.close()
    return seen

try:
    for block in range(40):
        assert get(f"/{DATASET}/{block}") == (200, "blocks.parquet logs.parquet")
    assert get(f"/{DATASET}/100")[0] == 404
    os.kill(workers[0], signal.SIGKILL)
    os.waitpid(workers.pop(0), 0)
    for block in range(20):
        assert get(f"/{DATASET}/{block}")[0] == 200
finally:
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    listening.close()
"""


class Guarded(Source):
    """Serves what is below /guarded/ to who has the token, and what is below /lake/ by URLs that are signed."""

    def fault_for(self, path: str, data: bytes) -> Fault:
        asked = self.heads[path][-1]
        if path.startswith("/guarded/") and asked.get("Authorization") != "Bearer the-token":
            return Fault(status=401)
        return super().fault_for(path, data)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/lake/") and not _is_signed(handler.path, handler.headers["Host"]):
            handler.send_error(403)
            return
        super()._answer(handler)


def _is_signed(path: str, host: str) -> bool:
    url, _, signature = path.partition("&X-Amz-Signature=")
    query = dict(parse_qsl(urlsplit(url).query))
    said = {"x-amz-date": query.get("X-Amz-Date", ""), "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "host": host}
    return bool(signature) and signature == signature_of("se/cr+et:hush", "us-east-1", url, said, "host")


@pytest.fixture
def source() -> Iterator[Source]:
    with Guarded() as source:
        yield source


@pytest.fixture
def tables(source: Source) -> Source:
    """A source of the two tables that the recipes read; where pyarrow is, they are what they are called."""
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        for name, columns in {
            "blocks": {"number": list(range(100)), "hash": [f"{n:064x}" for n in range(100)]},
            "logs": {"block": [n // 3 for n in range(300)], "data": list(range(300))},
        }.items():
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(columns), sink)
            source.put(f"/{name}.parquet", sink.getvalue().to_pybytes())
    else:
        source.put("/blocks.parquet", content("blocks"))
        source.put("/logs.parquet", content("logs"))
    for guarded in ("/guarded/blocks.parquet", "/lake/blocks.parquet"):
        source.put(guarded, source.files["/blocks.parquet"])
    return source


def _run(program: str, source: Source, tmp_path: Path, stdin: str = "") -> str:
    """Run a program in a directory of its own, and give what it prints; it must end well."""
    script = tmp_path / "program.py"
    script.write_text(program)
    names = {"SOURCE": source.url, "DATASET": DATASET, "IPYTHONDIR": str(tmp_path)}
    done = ran(sys.executable, "-W", "error", script.name, cwd=tmp_path, stdin=stdin, **names)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("recipe", RECIPES[2:], ids=lambda recipe: recipe.title)
def test_recipe_runs_and_prints_what_the_page_shows(recipe: Section, tables: Source, tmp_path: Path) -> None:
    shown = "".join(block.text for block in recipe.of("text"))
    for library in filter(None, (block.says("needs") for block in recipe.blocks)):
        pytest.importorskip(library, reason=f"{library} is in the extra `recipes`")
    [python] = recipe.of("python")
    if "jupyter" in python.how:
        pytest.importorskip("nbclient", reason="nbclient is in the extra `recipes`")
        pytest.importorskip("ipykernel", reason="ipykernel is in the extra `recipes`")
        printed = _run(NOTEBOOK, tables, tmp_path, stdin=python.text)
    elif "pytest" in python.how:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["fsdm.testing.plugin"]\n')
        (tmp_path / "test_recipe.py").write_text(python.text)
        done = ran(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        printed = done.stdout.splitlines()[-1].partition(" in ")[0] + "\n"
    else:
        [setup] = RECIPES[1].of("python")
        begin = f"import os\nDATASET, SOURCE = os.environ['DATASET'], os.environ['SOURCE']\n{setup.text}"
        if "prefork" in python.how:  # who opened the directory before has closed it: nobody forks with threads
            printed = _run(begin + "\ndm.close()\n" + python.text + BROWSER, tables, tmp_path)
        else:
            printed = _run(begin + python.text + "\ndm.close()\n", tables, tmp_path)
    assert like(shown).fullmatch(printed), printed


def test_what_a_page_shows_is_compared() -> None:
    assert like("a … c\n[1]\n").fullmatch("a long way to c\n[1]\n")
    assert not like("a … c\n").fullmatch("a\nb c\n")
    assert not like("[1]\n").fullmatch("1\n")
    assert like("a\n  …\nd\n").fullmatch("a\nb\nc\nd\n")
    assert like("a\n  …\nd\n").fullmatch("a\nd\n")
    assert not like("a\n  …\nd\n").fullmatch("a\nb\n")


PARSER = build_parser()
OPTIONS = {
    name: {option for action in actions_of(verb) for option in action.option_strings}
    for name, verb in {"": PARSER, **verbs_of(PARSER)}.items()
}


def _wrong(words: list[str]) -> str | None:
    """Find the words of a command that do not exist: its verb, or an option."""
    verb = next((word for word in words[1:] if word in OPTIONS), "")
    if not verb and not set(words[1:]) <= OPTIONS[""]:
        return f"no verb in {words}"
    asked = {word.partition("=")[0].rstrip(",") for word in words if re.match(r"--?[a-z]", word)}
    missing = asked - OPTIONS[verb] - OPTIONS[""]
    return f"no {missing} in {words}" if missing else None


@pytest.mark.parametrize("page", PAGES)
def test_every_verb_and_option_that_a_page_speaks_of_exists(page: str) -> None:
    assert list(filter(None, map(_wrong, commands(sections(page))))) == []


def test_verb_or_an_option_that_does_not_exist_would_be_found() -> None:
    said = (
        "`fsdm nothing`, `fsdm ls --no-such` and\n`fsdm run -d data --once`\n    x | fsdm want -d data --also - # why\n"
    )
    fenced = "```sh\nfsdm nothing\nfsdm hold D 1 -- ls --long\n```\n"
    found = commands(parsed(said + fenced))
    assert [bool(_wrong(words)) for words in found] == [True, True, False, True, True, False]


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"PROTOCOL.md"}))
def test_no_command_of_a_page_goes_unrun(page: str) -> None:
    blocks = [block for section in sections(page) for block in section.blocks if block.language != "text"]
    indented = [line for section in sections(page) for line in section.text.splitlines() if line.startswith("    ")]
    here = Path(__file__).parents[1]
    by = {path.name for path in here.rglob("test_*.py") if page in path.read_text(encoding="utf-8")}
    assert not blocks or by, f"no test runs the blocks of {page}"
    assert page == "README.md" or not [line for line in indented if "fsdm " in line], "only what is fenced is run"
