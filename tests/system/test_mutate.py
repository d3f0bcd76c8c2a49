"""The mutants of a small project: one that is caught, one that survives, one that is equivalent, one that hangs."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually, ran
from tools.mutate.__main__ import lines_of, main
from tools.mutate.explained import read_explained
from tools.mutate.mutants import Mutant, draw, mutants
from tools.mutate.probes import Probes
from tools.mutate.recorder import recorded_lines
from tools.mutate.tests_of import RecordedTests
from tools.mutate.trial import Bounds, run

REPOSITORY = Path(__file__).parents[2]
SMALL = '''\
"""A small module."""

LIMIT = 10


def clamp(value: int) -> int:
    if value > LIMIT:
        return LIMIT
    return value


def count(end: int) -> int:
    at = 0
    while at < end:
        at += 1
    return at


def unreached(end: int) -> bool:
    return end == 1
'''
TESTS = """\
import os
import subprocess
import sys

from small.module import LIMIT, clamp, count


def test_limit() -> None:
    assert LIMIT == 10


def test_clamp() -> None:
    assert clamp(30) == 10
    assert clamp(3) == 3


def test_count() -> None:
    if "PIDS" in os.environ:
        with open(os.environ["PIDS"], "a") as pids:
            sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]
            pids.write(f"{subprocess.Popen(sleeper, start_new_session=True).pid}\\n")
    assert count(3) == 3
"""
EXPLAINED = '''\
[[equivalent]]
module = "small/module.py"
function = "clamp"
diff = """
-    if value > LIMIT:
+    if value >= LIMIT:
"""
why = "of two equal values either may be returned"
'''

# what starts the workers tells them of the recorder, and nothing that they start
CONFTEST = """\
import os
import small.module
assert not (os.environ["PYTEST_XDIST_WORKER"] and {"PYTEST_PLUGINS", "FSDM_MUTATE_PROBES"} & os.environ.keys())
"""
PROBED = '''\
"""A module."""

from __future__ import annotations

AT = [n for n in (1, 2)]


class Class:
    """A class."""

    at = 1
    def method(self, value, default=AT):
        """A function."""
        if value == 1:
            return "one"
        elif value == 2:
            return "two"
        match value:
            case 3:
                return "three"
            case _:
                pass
        try:
            assert value
        except AssertionError:
            def inner():
                return "nothing"
            return inner()
        finally:
            value = 0
        for value in default:
            del value
        else:
            return "other"
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one module, with the map of its tests."""
    for name, text in {
        "small/__init__.py": "",
        "small/module.py": SMALL,
        "tests/__init__.py": "",
        "tests/test_module.py": TESTS,
        "explained.toml": EXPLAINED,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    record(tmp_path)
    return tmp_path


def record(project: Path, *options: object, workers: int = 0) -> None:
    """Record which test runs through which line."""
    command = (sys.executable, "-m", "pytest", "-p", "tools.mutate.recorder", "-p", "no:cacheprovider", "-n", workers)
    options = ("--mutate-map", ".mutate", "--mutate-package", "small", *options)
    done = ran(*command, *options, cwd=project, PYTHONPATH=str(REPOSITORY), PYTEST_XDIST_WORKER="")
    assert done.returncode == 0, done.stdout + done.stderr


def mutate(project: Path, *options: str) -> int:
    named = ("--root", str(project), "--map", str(project / ".mutate"), "--explained", str(project / "explained.toml"))
    return main(["small", *named, "--verbose", "--test-s", "10", "--all-s", "280", *options])


def line(told: Sequence[str], of: str) -> str:
    """The line of the report that stands over this line of a diff."""
    at = told.index(f"    {of}")
    return next(told[before] for before in range(at, -1, -1) if not told[before].startswith("    "))


def test_each_mutant_comes_to_its_end(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    assert mutate(project) == 1
    told = capsys.readouterr().out.splitlines()
    assert any(one.startswith("caught: small/module.py:3  (constant), by tests/test_module.py::") for one in told)
    assert "caught: small/module.py:15 count (dropped change), by tests/test_module.py::test_count" in told  # it hangs
    assert line(told, "+if value >= LIMIT:").startswith("explained as equivalent: ")
    assert line(told, "+at = 1").startswith("survived: ")
    assert line(told, "+return end != 1").startswith("reached by no test: ")
    assert told[-1] == "5 caught, 2 reached by no test, 1 explained as equivalent, 1 survived, 62.5 % caught"
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before


def test_trial_that_hangs_is_ended_with_all_that_it_has_started(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = project / "pids"
    monkeypatch.setenv("PIDS", str(pids))
    [endless] = [one for one in small_mutants(project) if one.diff == ("-at += 1", "+at -= 1")]
    for all_s in (4.0, 16.0, 64.0):  # on a busy machine, its test may not have begun
        seen = run(project, ["tests/test_module.py::test_count"], endless, Bounds(1.0, 280.0, all_s))
        assert (seen.caught, seen.late, seen.by) == (False, True, "")
        if pids.exists():
            break
    [pid] = pids.read_text().split()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "what it has started is gone")


def test_entry_that_explains_no_mutant_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "explained.toml").write_text(EXPLAINED.replace("LIMIT", "END"))
    assert mutate(project, "--draw", "1", "--minutes", "0", "--at-least", "0") == 1
    assert "it explains no mutant: small/module.py clamp -if value > END: +if value >= END:" in capsys.readouterr().out
    (project / "explained.toml").write_text(EXPLAINED)
    assert mutate(project, "--draw", "1", "--minutes", "0", "--at-least", "0") == 0


def test_entry_whose_mutant_is_caught_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explained = EXPLAINED.replace('"clamp"', '""').replace("if value > LIMIT:", "LIMIT = 10")
    (project / "explained.toml").write_text(explained.replace("if value >= LIMIT:", "LIMIT = 11"))
    assert mutate(project, "--seed", seed_of(project, "+LIMIT = 11"), "--draw", "1", "--at-least", "0") == 1
    assert "explained as equivalent, and caught: small/module.py:3 " in capsys.readouterr().out


@pytest.mark.parametrize("left_out", ["module", "function", "diff", "why"])
def test_entry_without_a_field_is_refused(tmp_path: Path, left_out: str) -> None:
    text = EXPLAINED.replace(f"{left_out} =", "other =")
    (tmp_path / "explained.toml").write_text(text)
    with pytest.raises(ValueError, match="an entry has module, function, diff and why"):
        read_explained(tmp_path / "explained.toml")


def test_entry_without_a_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "explained.toml").write_text(EXPLAINED.replace("of two equal values either may be returned", " "))
    with pytest.raises(ValueError, match="why"):
        read_explained(tmp_path / "explained.toml")


def test_catch_by_a_test_that_fails_anyway_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".git").mkdir()  # which no copy has
    text = TESTS.replace("assert LIMIT == 10", 'assert os.path.exists(".git")')
    text = text.replace("assert clamp(30) == 10", 'assert os.path.exists(".git")')
    (project / "tests/test_module.py").write_text(text)
    record(project)
    assert mutate(project, "--seed", seed_of(project, "+LIMIT = 11"), "--draw", "1") == 1
    told = capsys.readouterr().out
    assert "1 caught, 100.0 % caught\na test that caught a mutant fails without one too:\n" in told
    assert "FAILED tests/test_module.py::test_" in told


def test_without_a_map_nothing_is_tried(project: Path) -> None:
    with pytest.raises(SystemExit, match="has no map"):
        main(["small", "--root", str(project), "--map", str(project / "nowhere")])


def test_map_of_tests_that_are_gone_is_refused(project: Path) -> None:
    (project / "tests/test_module.py").write_text("def test_other() -> None:\n    assert True\n")
    with pytest.raises(ValueError, match="record the map again"):
        mutate(project, "--draw", "1", "--seed", seed_of(project, "+LIMIT = 11"))


def test_tests_of_the_module_itself_come_first(project: Path) -> None:
    (project / "tests/test_a.py").write_text(TESTS)
    record(project)
    [limit] = [one for one in small_mutants(project) if "+LIMIT = 11" in one.diff]
    tests = RecordedTests(project / ".mutate").of(limit)
    assert [test.partition("::")[0] for test in tests] == ["tests/test_module.py"] * 3 + ["tests/test_a.py"] * 2


def made(text: str) -> list[Mutant]:
    return mutants("module.py", text.encode())


def seed_of(project: Path, change: str) -> str:
    """A seed by which the mutant with this change is drawn first."""
    every = small_mutants(project)
    return next(seed for seed in map(str, range(1000)) if change in draw(every, 1, seed)[0].diff)


def small_mutants(project: Path) -> list[Mutant]:
    return mutants("small/module.py", (project / "small/module.py").read_bytes())


def test_map_is_the_same_by_several_workers(project: Path) -> None:
    alone = recorded_lines(project / ".mutate")
    count = {line: {"tests/test_module.py::test_count"} for line in (13, 14, 15, 16)}
    clamp = {line: {"tests/test_module.py::test_clamp"} for line in (7, 8, 9)}
    assert alone == {"small/module.py": count | clamp}
    shutil.rmtree(project / ".mutate")
    (project / "tests/conftest.py").write_text(CONFTEST)
    record(project, workers=2)
    assert recorded_lines(project / ".mutate") == alone


def test_lines_of_what_is_drawn_are_recorded_alone(project: Path) -> None:
    shutil.rmtree(project / ".mutate")
    drawn = ("--draw", "1", "--seed", seed_of(project, "+LIMIT = 11"), "--lines", str(project / "lines.json"))
    assert main(["small", "--root", str(project), *drawn]) == 0
    everything = list(range(1, len(SMALL.splitlines()) + 1))
    assert json.loads((project / "lines.json").read_text()) == {"small/module.py": everything}, "a constant's"
    for change, line in {"+at -= 1": 15, "+if value >= LIMIT:": 7}.items():
        assert lines_of([one for one in small_mutants(project) if change in one.diff]) == {"small/module.py": [line]}
    (project / "lines.json").write_text('{"small/module.py": [7, 15]}')
    record(project, "--mutate-lines", "lines.json")
    assert recorded_lines(project / ".mutate")["small/module.py"].keys() == {7, 15}


@pytest.mark.parametrize(
    ("value", "said", "lines"),
    [
        (1, "one", [14, 15]),
        (2, "two", [14, 16, 17]),
        (3, "three", [14, 16, 18, 20]),
        (0, "nothing", [14, 16, 18, 22, 23, 24, 26, 27, 28, 30]),
        (4, "other", [14, 16, 18, 22, 23, 24, 30, 31, 32, 34]),
    ],
)
def test_probes_are_reached_as_their_statements_are(value: int, said: str, lines: list[int], tmp_path: Path) -> None:
    probes, names = Probes(tmp_path, "small", None), dict[str, Any]()
    exec(compile(probes.plant(PROBED.encode(), "module.py"), "module.py", "exec"), names)
    assert (names["__doc__"], names["Class"].__doc__) == ("A module.", "A class.")
    assert names["Class"].method.__doc__ == "A function."
    hits = probes.hits()
    assert names["Class"]().method(value) == said
    assert sorted({probes.places[hit] for hit in hits}) == [("module.py", line) for line in lines]


def test_draw_is_the_same_by_the_same_seed_and_another_by_another() -> None:
    every = made("x = 1\ny = 2\nz = 3\nw = 4\n")
    assert draw(every, 2, "a") == draw(every[::-1], 2, "a")
    assert len({draw(every, 1, str(seed))[0] for seed in range(100)}) == 4
    first = draw(every, 1, "a")
    assert draw([one for one in every if one not in first], 1, "a") == draw(every, 2, "a")[1:]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("if a < b:\n    c()\n", ["if a <= b:", "pass"]),
        ("x = a is not b\n", ["x = a is b"]),
        ("x = a  not in b\n", ["x = a  in b"]),
        (
            "x = a and b or c\n",
            ["x = (c)", "x = (a and b)", "x = a and b and c", "x = (b) or c", "x = (a) or c", "x = a or b or c"],
        ),
        ("x = not a\n", ["x = (a)"]),
        ("while running():\n    pass\n", ["while not (running()):"]),
        ("x = [a for a in b if a.good]\n", ["x = [a for a in b if not (a.good)]"]),
        ("x = True\n", ["x = False"]),
        ("def f(x: int = 3) -> None: ...\n", ["def f(x: int = 4) -> None: ..."]),
        ("x = a // 2\n", ["x = a * 2", "x = a // 3"]),
        ("x = 1e9\n", ["x = 2000000000.0"]),
        ("os.fsync(fd)\n", ["pass"]),
        ("self.x = y\n", ["pass"]),
        ("x += 1\n", ["pass", "x -= 1", "x += 2"]),
        ("raise ValueError(1 + 1)\n", ["pass"]),
        ("with self.lock:\n    x = y\n", ['with __import__("contextlib").nullcontext():']),
        ("with open(x) as y:\n    z = y\n", []),
        ("x = é(); y = 1\n", ["x = é(); y = 2"]),
        ("LOOK_S: Final = 4 << 20\n", []),
        ("WAITED_S: Final = 0\nTRIES: Final = 3\n", ["WAITED_S: Final = 1", "TRIES: Final = 4"]),
        ("LOOK_S: Final = 2 * other\n", ["LOOK_S: Final = 2 // other", "LOOK_S: Final = 3 * other"]),
        (
            "def f(n=3, wait_s=5, *, size_bytes=9, on=True): ...\n",
            [
                "def f(n=4, wait_s=5, *, size_bytes=9, on=True): ...",
                "def f(n=3, wait_s=5, *, size_bytes=9, on=False): ...",
            ],
        ),
        ("assert a is not None and b > 3\n", []),
        ("x = zip(a, b, strict=True)\n", []),
        ("logger.warning(a, exc_info=True)\ntime.sleep(0.1)\n", []),
        ("def __repr__(self):\n    return 1\n", []),
        ('"""A docstring."""\nx: Literal[1]\ny = f"{a + 1}"\nif TYPE_CHECKING:\n    z = 1\n', []),
    ],
)
def test_each_kind_of_fault_is_made(text: str, changed: list[str]) -> None:
    assert sorted(line[1:] for one in made(text) for line in one.diff if line[0] == "+") == sorted(changed)


def test_two_calls_change_places_unless_one_needs_the_name_of_the_other() -> None:
    assert [one.of(b"a()\nb()\n") for one in made("a()\nb()\n") if one.kind == "swapped"] == [b"b()\na()\n"]
    for text in ("x = a()\nb(x)\n", "self.x = A()\nself.y = B(c)\n", "x = len(a)\ny = b()\n"):
        assert not [one for one in made(text) if one.kind == "swapped"]


def test_equal_diffs_of_a_function_are_told_apart() -> None:
    assert [one.number for one in made("def f():\n    a()\n    b = c\n    a()\n") if one.kind == "dropped call"] == [
        0,
        1,
    ]
