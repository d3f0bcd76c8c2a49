"""The demo of a fleet, as people start it, with few chunks: its end is right, and nothing of it is left."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdm.cli import main as cli
from fsdm.cli.fleet_demo import lake, story
from fsdm.cli.fleet_demo.processes import Processes
from fsdm.model.errors import FsdmError, InvalidInputError
from tests.support.processes import begun, ran
from tests.support.waiting import PATIENCE_S, eventually

needs_pyarrow = pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is in the extra `recipes`")


def processes_that_write_below(path: Path) -> list[str]:
    """The processes whose standard output is a file there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.readlink(entry / "fd" / "1").startswith(f"{path}/"):
                found.append(entry.name)
        except OSError:
            continue
    return found


@needs_pyarrow
def test_story_ends_well_and_tells_what_has_moved(tmp_path: Path) -> None:
    done = ran(sys.executable, "-m", "fsdm", "fleet", "demo", "--chunks", 32, "--json", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    *events, summary = map(json.loads, done.stdout.splitlines())
    assert (summary["kind"], summary["ok"], summary["chunks"], summary["queries"]) == ("right", True, 32, 3)
    assert all(event.keys() == {"at", "kind", "text"} for event in events)
    kinds = [event["kind"] for event in events]
    assert [kind for kind in kinds if kind in {"query", "killed", "frozen"}] == [
        "query",
        "killed",
        "frozen",
        "query",
        "query",
    ]
    moved = [event["text"] for event in events if event["kind"] == "moved"]
    assert [text.partition(":")[0] for text in moved] == [
        "the first placement",
        "node-3 is gone",
        "node-9 joins",
        "node-1 drains",
        "node-1 is taken away",
    ]
    assert "node-9 +" in moved[2]
    assert "node-1 −" in moved[3]
    eventually(lambda: not processes_that_write_below(tmp_path), "its processes end")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def telling(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, once its processes run."""
    command = [sys.executable, "-m", "fsdm", "fleet", "demo", "--chunks", "16"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "TMPDIR": str(tmp_path)}
    with begun(command, env=environment, **streams) as process:
        assert process.stdout is not None
        while "node-1 has joined" not in process.stdout.readline():
            assert process.poll() is None
        assert processes_that_write_below(tmp_path)
        yield process


@needs_pyarrow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_to_end_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with telling(tmp_path) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (code, "")
    assert processes_that_write_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@needs_pyarrow
def test_when_it_is_killed_its_processes_end_by_themselves(tmp_path: Path) -> None:
    with telling(tmp_path) as process:
        process.kill()
    eventually(lambda: not processes_that_write_below(tmp_path), "its processes end")


@needs_pyarrow
def test_answer_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: object, *_: object) -> None:
        raise FsdmError("the lake is dry")

    monkeypatch.setattr(Processes, "begin", stopped)
    out = io.StringIO()
    assert not story.demo(None, chunks=1, as_json=True, out=out)
    summary = json.loads(out.getvalue().splitlines()[-1])
    assert (summary["kind"], summary["text"], summary["ok"]) == ("wrong", "the lake is dry", False)


class Fleet:
    """Answers as if a node had read other rows."""

    def __init__(self, *answers: tuple[int, int, int, str]) -> None:
        self.answers = answers

    def map_range(self, *_: object) -> list[tuple[int, int, int, str]]:
        return [*self.answers]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([(0, 100, sum(map(lake.value_of, range(100))) + 1, "a")], "100 rows with a sum of [0-9]+ are not right"),
        ([(0, 99, sum(map(lake.value_of, range(100))), "a")], "99 rows with a sum of"),
        ([], "not those of all chunks, in order"),
    ],
)
def test_rows_that_are_not_those_of_the_lake_are_noticed(
    tmp_path: Path, answers: list[tuple[int, int, int, str]], why: str
) -> None:
    one = story._Story(str(tmp_path), None, None, 1, False, io.StringIO())  # type: ignore[arg-type]
    with pytest.raises(FsdmError, match=why):
        one.query(Fleet(*answers), "a query")  # type: ignore[arg-type]


def test_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InvalidInputError, match="is not an empty directory"):
        story.demo(str(tmp_path), chunks=1, out=io.StringIO())
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("missing", ["distributed", "numpy", "pyarrow"])
def test_library_that_is_missing_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["fleet", "demo"]) == 1
    assert f"{missing} is missing" in (said := capsys.readouterr().err)
    assert "pip install 'fsdm[fleet]' pyarrow" in said
