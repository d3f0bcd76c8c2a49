"""The architecture: which modules are pure, which change the disk, and that each says what it owns.

The layers are a contract in pyproject.toml, which import-linter holds.
"""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fsdm
from tests.support import ran

PACKAGE = Path(fsdm.__file__).parent
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
MAY_CHANGE_THE_DISK = {
    f"store.{name}" for name in ("filesystem", "markers", "marker_removal", "leader_lock", "acquiring")
}
PURE = {
    *(f"fleet.{module}" for module in ("hashing", "inventory", "targets", "filling", "surplus", "balance", "placing")),
    *("reconcile.plan", "reconcile.actions", "reconcile.work_queue", "store.block_index", "status.coverage"),
}

IMPURE = {"os", "time", "threading", "socket", "subprocess", "requests", "watchdog", "fcntl", "portalocker", "pycurl"}
CHANGES = {
    "os": {"rename", "renames", "replace", "unlink", "remove", "rmdir", "removedirs", "fsync", "fdatasync", "sync"},
    "shutil": {"rmtree", "move"},
}
ENDS = {".py", ".md"}
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:" + "home|root|work|Users|tmp|private|mnt" + r")/[\w.{-]")


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    """Each module of the package by its name, parsed."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_bytes()
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def _impure(tree: ast.AST) -> set[str]:
    """The names in `tree` by which a clock, a disk, a network or a thread is reached."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names if alias.name.split(".")[0] in IMPURE - {"os"}}
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in IMPURE:
                found.add(module)
            case ast.Attribute(value=ast.Name(id="os"), attr=attr) if attr not in {"path", "fspath", "PathLike"}:
                found.add(f"os.{attr}")
            case ast.Call(func=ast.Name(id=("open" | "print" | "input" | "exec" | "eval") as name)):
                found.add(name)
    return found


def _changes(tree: ast.AST) -> set[str]:
    """The calls in `tree` that change the disk."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                used = [(module, name)]
            case ast.ImportFrom(module=module, names=names):
                used = [(module or "", alias.name) for alias in names]
            case _:
                continue
        found |= {f"{module}.{name}" for module, name in used if name in CHANGES.get(module, ())}
    return found


def test_imports_keep_the_layers_contract() -> None:
    lint = Path(sys.executable).with_name("lint-imports")  # in this process, it would disable all loggers
    done = ran(lint, "--no-cache", cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folder_says_in_one_sentence_what_it_owns(folder: Path) -> None:
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_bytes()))
    assert said is not None
    assert said.splitlines()[0].endswith(".")


def test_each_module_says_what_it_owns(modules: dict[str, ast.Module]) -> None:
    assert [name for name, tree in modules.items() if not ast.get_docstring(tree)] == []


def test_pure_modules_reach_no_clock_disk_network_or_thread(modules: dict[str, ast.Module]) -> None:
    pure = PURE | {name for name in modules if name.startswith("model.")}
    assert len(pure) > len(PURE)
    assert {name: found for name in sorted(pure) if (found := _impure(modules[name]))} == {}


def test_only_the_store_renames_removes_and_fsyncs(modules: dict[str, ast.Module]) -> None:
    assert {name for name, tree in modules.items() if _changes(tree)} <= MAY_CHANGE_THE_DISK
    assert all(_changes(modules[name]) for name in ("store.filesystem", "store.markers"))


@pytest.mark.parametrize(
    ("seen_by", "source", "found"),
    [
        (_impure, "import time", {"time"}),
        (_impure, "from threading import Lock", {"threading"}),
        (_impure, "def f():\n    return os.stat('x')", {"os.stat"}),
        (_impure, "open('x')", {"open"}),
        (_impure, "import os, json\nos.path.join(a, b)\nos.fspath(p)", set()),
        (_changes, "def f():\n    os.rename(a, b)", {"os.rename"}),
        (_changes, "g = os.unlink", {"os.unlink"}),
        (_changes, "from os import fsync as f", {"os.fsync"}),
        (_changes, "shutil.rmtree(path)", {"shutil.rmtree"}),
        (_changes, "self._fs.rename(a, b)\nfs.unlink(a)\nos.path.join(a)", set()),
    ],
)
def test_what_is_forbidden_is_found(seen_by: Callable[[ast.AST], set[str]], source: str, found: set[str]) -> None:
    assert seen_by(ast.parse(source)) == found


def test_no_source_names_a_path_of_one_machine() -> None:
    texts = [path for where in (PACKAGE, PACKAGE.parent / "tests") for path in where.rglob("*") if path.suffix in ENDS]
    assert len(texts) > len(FOLDERS)
    named = {path: found for path in texts if (found := MACHINE_PATH.findall(path.read_text(encoding="utf-8")))}
    assert named == {}


def test_path_of_one_machine_is_found() -> None:
    for top in ("home", "tmp", "Users"):
        assert MACHINE_PATH.search(f"open('/{top}/somebody')")
        assert not MACHINE_PATH.search(f"https://host/{top}/file")
