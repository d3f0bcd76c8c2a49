"""The wheel, as a user installs it: its files, its types under mypy --strict, its docstrings.

And to a reader: each public name says its shapes, units and errors.
"""

import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fsdm
from tests.support import ran
from tests.support.pages import sections
from tests.support.wheels import build_wheel, pip

ROOT = Path(__file__).parents[2]

USER = """
import asyncio
from pathlib import Path
from typing import assert_type

from fsdm import (ChunkFailedError, ChunkRef, ChunkStatus, Client, DataChunk, DataManager, DiskStatus, Event, Failure,
                  FileSource, FsdmError, InvalidInputError, Limits, Oddity, Source, Status, WaitTimeoutError)

def hear(event: Event) -> None:
    assert_type(event.chunk_id, str)
    assert_type(event.text, str)
    print(event.kind == "available", str(event))

limits = Limits(jobs=2, max_bytes=10**12, durability="none", allow_host=("*.example.org",), limit_rate=1e6)
source = Source(match="https://h/", headers={"X-T": "t"}, headers_file=Path("token"), proxy="", limit_rate=1e6)
with DataManager(Path("data"), limits=limits, sources=[source], on_event=hear) as dm:
    dm.change(limits, [])
    assert_type(dm, DataManager)
    chunk = DataChunk(
        id=b"1" * 32, dataset_id="d" * 64, block_range=(0, 35),
        files={"a": "https://h/a", "b": ["https://h/b", "https://m/b"], "c": {"url": "https://h/c", "size": 1}},
    )
    assert_type(chunk.id, str)
    assert_type(chunk.block_range, range)
    assert_type(chunk.files["a"], FileSource)
    assert_type(chunk.files["a"].size, int | None)
    assert_type(chunk.files["a"].urls, tuple[str, ...])
    dm.download_chunk(chunk)
    dm.delete_chunk(chunk.id)
    assert_type(dm.list_chunks(), list[str])
    assert_type(dm.wait(chunk.id, timeout_s=1.5), bool)
    dm.wait_converged(chunk_ids=[chunk.id, b"1" * 32], keep_waiting=True)
    found = dm.find_chunk("d" * 64, 7)
    assert_type(found, ChunkRef | None)
    if found is not None:
        with found as ref:
            assert_type(ref, ChunkRef)
            assert_type(ref.path, Path)
            assert_type(ref.block_range, range)
            assert_type(ref.clone(), ChunkRef)
            assert_type(ref.closed, bool)
    status = dm.status()
    assert_type(status, Status)
    assert_type(status.chunks, dict[str, ChunkStatus])
    assert_type(status.oddities, tuple[Oddity, ...])
    assert_type(status.disk, DiskStatus)
    assert_type(status.reconciler, str | None)
    assert_type(status.count("available"), int)
    assert_type(status.chunks[chunk.id].total_bytes, int | None)

async def main() -> None:
    with Client("data") as client:
        assert_type(client, Client)
        assert_type(await client.wait_async(chunk.id, timeout_s=1), bool)
        await client.wait_converged_async()

try:
    asyncio.run(main())
except InvalidInputError as e:
    assert_type(e.field, str)
except ChunkFailedError as e:
    assert_type(e.failure.error, str)
    assert_type(e.failures, tuple[Failure, ...])
except WaitTimeoutError as e:
    assert_type(e.hint, str)
except FsdmError as e:
    assert_type(e.exit_code, int)
"""

WRONG = """
from fsdm import Client, DataChunk, Event, Limits
client = Client(3)                                                                              # arg-type
client.wait(7)                                                                                  # arg-type
client.find_chunk("d" * 64, "7")                                                                # arg-type
client.find_chunk("d" * 64, 7).path                                                             # union-attr
client.status().count("here")                                                                   # arg-type
Limits(durability="file")                                                                       # arg-type
DataChunk(id="1" * 64, dataset_id="d" * 64, block_range=(0, 35))                                # call-arg
DataChunk(id="1" * 64, dataset_id="d" * 64, block_range=(0, 35), files={"a": 3})                # dict-item
Event("here", "")                                                                               # arg-type
client.wait_async("1" * 64)                                                                     # unused-coroutine
client.nothing()                                                                                # attr-defined

async def main() -> None:
    await client.wait_converged_async("soon")                                                   # arg-type
"""


EXAMPLES = {"README.md": 1, "recipes.md": 14}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel where nothing else is."""
    pytest.importorskip("mypy", reason="mypy is in the extra `dev`")
    base = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-compile", "--target", base / "site", build_wheel(base))
    return base / "site"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write each example of the pages as a program of its own; one with no mistake and one with many beside them."""
    where = tmp_path_factory.mktemp("programs")
    (where / "user.py").write_text(USER)
    (where / "wrong.py").write_text(WRONG)
    begin = 'DATASET = SOURCE = LOG_SHA256 = "…"\nLOG_SIZE = 5\n'
    for page, count in EXAMPLES.items():
        blocks = [block for section in sections(page) for block in section.of("python")]
        assert len(blocks) == count
        for number, block in enumerate(blocks):
            alone = number == 0 or not {"jupyter", "pytest"}.isdisjoint(block.how)
            program = begin + ("" if alone else blocks[0].text) + block.text
            (where / f"{page.removesuffix('.md')}_{number}.py").write_text(program)
    return where


def as_user(installed: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where fsdm is what was installed."""
    return ran(sys.executable, *arguments, cwd=where, PYTHONPATH=str(installed))


def test_mypy_finds_each_wrong_call_and_knows_what_each_takes_and_gives(installed: Path, programs: Path) -> None:
    options = ["--strict", "--config-file=", "--ignore-missing-imports", "--enable-error-code=unused-awaitable"]
    done = as_user(installed, programs, "-m", "mypy", *options, *sorted(path.name for path in programs.glob("*.py")))
    asked = {(n, line.split("# ")[1]) for n, line in enumerate(WRONG.splitlines(), 1) if "# " in line}
    found = re.findall(r"^wrong.py:(\d+): error: .* \[([\w-]+)\]$", done.stdout, re.MULTILINE)
    assert {(int(n), code) for n, code in found} == asked, done.stdout + done.stderr
    others = [line for line in done.stdout.splitlines() if not line.startswith("wrong.py:")]
    checked = len(list(programs.glob("*.py")))
    assert others == [f"Found {len(found)} errors in 1 file (checked {checked} source files)"]


def test_pyright_finds_wrong_calls_in_the_wrong_program_alone(installed: Path, programs: Path) -> None:
    pytest.importorskip("basedpyright", reason="basedpyright is in the extra `dev`")  # pyright, with its engine inside
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(installed)], "reportMissingImports": False}
    (programs / "pyrightconfig.json").write_text(json.dumps(settings))
    done = as_user(installed, programs, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, ".")
    told = json.loads(done.stdout)
    assert told["summary"]["filesAnalyzed"] == len(list(programs.glob("*.py")))
    errors = [one for one in told["generalDiagnostics"] if one["severity"] == "error"]
    assert {Path(one["file"]).name for one in errors} == {"wrong.py"}, errors


def test_wheel_has_each_module_page_and_asset_of_the_sources(installed: Path) -> None:
    shipped = {path.relative_to(installed) for path in (installed / "fsdm").rglob("*") if path.is_file()}
    sources = {path.relative_to(ROOT) for path in (ROOT / "fsdm").rglob("*") if path.is_file()}
    written = Path("fsdm/_version.py")  # by the build
    assert written in shipped
    shipped, sources = (
        {path for path in some if "__pycache__" not in path.parts and path != written} for some in (shipped, sources)
    )
    assert shipped == sources
    assert {path.suffix for path in shipped} == {".py", ".md", ".css", ".html", ".js", ".png", ".svg", ".typed"}


def test_each_module_is_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "fsdm").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    program = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    done = as_user(installed, tmp_path, "-W", "error", "-c", program, *modules)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(Path(file).is_relative_to(installed) for file in done.stdout.splitlines())


def test_package_says_that_it_is_typed() -> None:
    assert "Typing :: Typed" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert (Path(fsdm.__file__).parent / "py.typed").exists()


PUBLIC = [name for name in fsdm.__all__ if name != "__version__"]
MEMBERS = [
    pytest.param(value, id=f"{name}.{member}")
    for name in PUBLIC
    for member, value in vars(getattr(fsdm, name)).items()
    if not member.startswith(("_", "model_")) and (inspect.isroutine(value) or isinstance(value, property))
]
OURS = {
    name
    for home in (
        *("model.documents", "model.errors", "model.events", "model.layout", "model.limits", "model.state"),
        *(
            "reconcile.reconciler",
            "status.chunk_status",
            "store.refs",
            "transfer.chunk_download",
            "transfer.own_fetcher",
        ),
    )
    for name, value in vars(importlib.import_module(f"fsdm.{home}")).items()
    if getattr(value, "__module__", "").startswith("fsdm.")
}
# not for users, but for the layers above: what they give may change
INSIDE = {"Extent", "Layout", "OSError", "PartRecord", "Place", "Reconciler"}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_lives_where_the_package_says_and_has_a_docstring(name: str) -> None:
    value = getattr(fsdm, name)
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert value.__module__ == fsdm._HOMES[name]
    assert "__doc__" in vars(value)
    assert inspect.getdoc(value)


@pytest.mark.parametrize("member", MEMBERS)
def test_each_public_call_and_property_has_a_docstring(member: object) -> None:
    doc = inspect.getdoc(member)
    assert doc
    assert doc.split("\n\n")[0].endswith((".", ":"))


@pytest.mark.parametrize("member", MEMBERS)
def test_public_call_raises_gives_and_takes_only_public_names(member: object) -> None:
    inner = (getattr(member, name, None) for name in ("fget", "func", "__func__"))  # of what a property caches, too
    function = next(filter(None, inner), member)
    raises = (inspect.getdoc(function) or "").partition("Raises:")[2]
    types = " ".join(map(str, inspect.get_annotations(function).values()))
    named = set(re.findall(r"\b[A-Z]\w+Error\b", raises)) | (set(re.findall(r"\w+", types)) & OURS)
    assert named - set(PUBLIC) <= INSIDE


@pytest.mark.parametrize("name", PUBLIC)
def test_number_of_a_public_name_has_its_unit_in_its_name(name: str) -> None:
    value = getattr(fsdm, name)
    floats = {field for field, kind in inspect.get_annotations(value).items() if re.search(r"\bfloat\b", str(kind))}
    parameters = {
        parameter.name
        for member in vars(value).values()
        if inspect.isfunction(member) and not member.__name__.startswith("_")
        for parameter in inspect.signature(member).parameters.values()
        if re.search(r"\bfloat\b", str(parameter.annotation))
    }
    assert {
        number for number in floats | parameters if not re.search(r"(^|_)(s|at|bytes|ns|seconds|share|days)$", number)
    } == set()
