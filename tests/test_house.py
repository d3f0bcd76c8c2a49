"""The house: imports point strictly down, pure rooms stay pure, and only one room writes."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import fsdm
from fsdm.verbs import VERBS

# from the ground up, in no order on a floor; `__init__` stands above all that it offers
FLOORS: tuple[tuple[str, ...], ...] = (
    *(tuple(floor.split()) for floor in (
        ("action answer body clock crew doorbell errors events fs heart index ledger lookup manpage map notify "
        "outage outcome probe progress signals state trash"),
        ("agenda brake connection console demo.show endpoint gauges lanes layout limits locks policy ranges "
        "rate size stop tally textfile waits"),
        ("catalog config coverage data_dir errands extents hosts leader_lock model reasons refs session talk "
        "view watch"),
        "assignment band demo.source document health holders intents kept map.words parts plan sink",
        ("admission aftermath audit deletes demo.cast demo.check download map.drawing map.page map.text "
        "marker_removal memory metrics pause rehash room scan transfer verdict"),
        "difference disk fetcher forecast inspector passes repair service status verification",
        "apply client explain scrub survey",
        "arguments inspection live",
        "reconciler settings",
        "manager",
        "__init__ demo.roles",
        "demo.stage",
        "demo.play",
        "demo",
    )),
    tuple(f"verbs.{name}" for name in VERBS),
    ("verbs",),
    ("cli",),
    ("__main__",),
)  # fmt: skip
PURE = (
    "errors", "events", "answer", "layout", "model", "index", "action", "outcome", "state", "plan", "agenda",
    "size", "ledger", "outage", "limits", "verdict", "policy", "coverage", "band", "clock", "reasons", "brake",
    "heart", "progress",
)  # fmt: skip
MAY_CHANGE_THE_DISK = ("fs", "intents", "leader_lock", "marker_removal")

HOUSE = Path(fsdm.__file__).parent
MODULES = {
    ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_bytes())
    for path in sorted(HOUSE.rglob("*.py"))
}
FLOOR_OF = {module: number for number, floor in enumerate(FLOORS) for module in floor}

CHANGES = {
    "os": {"rename", "renames", "replace", "unlink", "remove", "rmdir", "removedirs", "fsync", "fdatasync", "sync"},
    "shutil": {"rmtree", "move"},
}
PURE_IMPORTS = re.compile(
    r"__future__|bisect|collections(\.abc)?|dataclasses|datetime|email\.utils|enum|errno|functools|heapq|ipaddress|itertools|operator|os|"
    r"pydantic(_core)?|re|shlex|types|"
    r"typing|urllib\.parse|"
    rf"fsdm\.({'|'.join(PURE)})"
)


class _Imports(ast.NodeVisitor):
    """The modules that are imported at run time, in functions too; `if TYPE_CHECKING:` is none."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.visit(node.test)
            for child in node.body:
                self.visit(child)
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "fsdm" + f".{node.module}" * bool(node.module) if node.level else node.module or ""
        if module == "fsdm":  # a module of ours, or a name of the package
            self.found |= {f"fsdm.{a.name}" if a.name in MODULES else "fsdm.__init__" for a in node.names}
        else:
            self.found.add(module)


def _imports(tree: ast.AST) -> set[str]:
    visitor = _Imports()
    visitor.visit(tree)
    return visitor.found


def _not_below(module: str, tree: ast.AST) -> set[str]:
    """The rooms that `module` imports though they are not below it."""
    ours = {
        name.removeprefix("fsdm.") if name != "fsdm" else "__init__"
        for name in _imports(tree)
        if re.match(r"fsdm\b", name)
    }
    return {name for name in ours if FLOOR_OF[name] >= FLOOR_OF[module]}


def _changes(tree: ast.AST) -> set[str]:
    """The calls in `tree` that change the disk."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = [(node.value.id, node.attr)]
        elif isinstance(node, ast.ImportFrom):
            used = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        found |= {f"{module}.{name}" for module, name in used if name in CHANGES.get(module, ())}
    return found


def test_every_room_stands_on_one_floor() -> None:
    assert set(MODULES) - set(FLOOR_OF) == set()
    assert [module for floor in FLOORS for module in floor if FLOOR_OF[module] != FLOORS.index(floor)] == []
    assert max(Counter(module for floor in FLOORS for module in floor).values()) == 1


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_strictly_down(module: str) -> None:
    assert _not_below(module, MODULES[module]) == set()


@pytest.mark.parametrize(
    ("source", "up"),
    [
        ("from fsdm.manager import DataManager", {"manager"}),
        ("import fsdm.plan", {"plan"}),
        ("from fsdm import reconciler", {"reconciler"}),
        ("from fsdm import DataChunk", {"__init__"}),
        ("import fsdm", {"__init__"}),
        ("from .refs import Refs", {"refs"}),
        ("from . import scan", {"scan"}),
        ("def f():\n    from fsdm.cli import main", {"cli"}),
        ("try:\n    import fsdm.apply\nexcept ImportError:\n    import fsdm.audit", {"apply", "audit"}),
        ("if TYPE_CHECKING:\n    from fsdm.plan import Memo\nelse:\n    from fsdm.refs import Refs", {"refs"}),
        ("if TYPE_CHECKING:\n    from fsdm.manager import DataManager", set()),
        ("from fsdm.errors import FsdmError\nimport os, json", set()),
    ],
)
def test_an_import_that_points_up_would_be_found(source: str, up: set[str]) -> None:
    assert _not_below("locks", ast.parse(source)) == up


@pytest.mark.parametrize("module", MODULES)
def test_every_room_says_what_it_owns(module: str) -> None:
    assert ast.get_docstring(MODULES[module])


@pytest.mark.parametrize("module", PURE)
def test_a_pure_room_touches_no_clock_no_disk_and_no_network(module: str) -> None:
    tree = MODULES[module]
    assert {name for name in _imports(tree) if not PURE_IMPORTS.fullmatch(name)} == set()
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert used <= {"path", "fspath", "PathLike"}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in MAY_CHANGE_THE_DISK])
def test_only_the_lowest_rooms_rename_remove_and_fsync(module: str) -> None:
    assert _changes(MODULES[module]) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    os.rename(a, b)", {"os.rename"}),
        ("g = os.unlink", {"os.unlink"}),
        ("from os import fsync as f", {"os.fsync"}),
        ("shutil.rmtree(path)", {"shutil.rmtree"}),
        ("self._fs.rename(a, b)\nfs.unlink(a)\nos.path.join(a)", set()),
    ],
)
def test_a_call_that_changes_the_disk_would_be_found(source: str, found: set[str]) -> None:
    assert _changes(ast.parse(source)) == found
    assert all(_changes(MODULES[module]) for module in ("fs", "intents"))


MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:" + "home|root|work|Users|tmp|private|mnt" + r")/[\w.{-]")


@pytest.mark.parametrize(
    "path",
    sorted(
        path for where in (HOUSE, Path(__file__).parent) for path in where.rglob("*") if path.suffix in {".py", ".md"}
    ),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_no_source_names_a_path_of_one_machine(path: Path) -> None:
    assert MACHINE_PATH.findall(path.read_text(encoding="utf-8")) == []


def test_a_path_of_one_machine_would_be_found() -> None:
    for top in ("home", "tmp", "Users"):
        assert MACHINE_PATH.search(f"open('/{top}/somebody')")
        assert not MACHINE_PATH.search(f"https://host/{top}/file")
