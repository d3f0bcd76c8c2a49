"""The bench runs and says what it measured: its shape, not its times."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support import ran
from tools.bench.cases import CASES
from tools.bench.chunks import Taken, figures_of
from tools.bench.evictions import lru
from tools.bench.many import GOALS

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return ran(sys.executable, "-m", "tools.bench", *arguments, cwd=ROOT)


def measured(tmp_path: Path, *names: str) -> dict[str, Any]:
    """The JSON of a small run, which left nothing behind."""
    run = bench("base", "--quick", "--chunks", "30", "--dir", str(tmp_path), "--json", "-", "--only", *names)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    return json.loads(run.stdout)


def named(document: dict[str, Any]) -> Sequence[str]:
    return sorted({figure["name"] for figure in document["figures"]})


def test_bench_measures_what_it_is_asked_for_and_leaves_nothing_behind(tmp_path: Path) -> None:
    document = measured(tmp_path, "disk", "find", "ls")
    assert document["bench"] == "base"
    assert document["quick"] is True
    assert document["errors"] == {}
    assert named(document) == ["disk", "find", "ls"]
    for figure in document["figures"]:
        assert figure["value"] > 0
        assert figure["samples"] > 0
        assert figure["met"] is (None if figure["goal"] is None else figure["value"] <= figure["goal"])


def test_whole_verbs_are_measured_against_the_sorting_of_names(tmp_path: Path) -> None:
    figures = measured(tmp_path, "many")["figures"]
    assert {figure["unit"] for figure in figures} == {"times", "MB"}
    assert {figure["what"].partition(",")[0] for figure in figures} == set(GOALS)
    assert all(0 < figure["value"] < 10_000 for figure in figures)


def test_bench_measures_across_processes(tmp_path: Path) -> None:
    document = measured(tmp_path, "want", "delete")
    assert named(document) == ["delete", "want"]
    assert {figure["unit"] for figure in document["figures"]} == {"ms"}
    # milliseconds, and not another unit or two clocks: a figure below 0 or above a minute is neither
    assert all(0 < figure["value"] < 60_000 for figure in document["figures"])


def test_without_a_bench_named_the_base_is_measured_and_shown_as_a_table(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    run = bench("--quick", "--only", "disk", "--dir", str(tmp_path), "--json", str(file))
    assert run.returncode == 0, run.stderr
    header, row = run.stdout.splitlines()
    assert header.split() == ["what", "at", "most", "measured", "samples"]
    assert row.startswith("this disk")
    assert json.loads(file.read_text())["bench"] == "base"


with_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is missing: what is loaded from")


@with_nginx
def test_transfers_are_measured_beside_others_and_nothing_is_left_behind(tmp_path: Path) -> None:
    places = ["--dir", str(tmp_path), "--memory", str(tmp_path), "--json", "-"]
    contenders = ["fsdm", "splice", "requests", "curl"]  # without cc or curl, theirs is skipped
    run = bench("transfers", "--quick", "--only", "small", "--contenders", *contenders, *places)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    document = json.loads(run.stdout)
    assert document["bench"] == "transfers"
    assert document["errors"] == {}
    assert named(document) == ["small"]
    assert all(figure["value"] > 0 for figure in document["figures"])
    for contender in ("fsdm", "requests", *(["splice"] if shutil.which("cc") else [])):
        assert sum(f": {contender}: " in figure["what"] for figure in document["figures"]) == 3
    assert ("curl is missing: skipped" in run.stderr) is (shutil.which("curl") is None)


@with_nginx
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing: it makes the certificate")
def test_transfers_over_tls_are_checked_against_the_certificate_by_all_contenders(tmp_path: Path) -> None:
    places = ["--dir", str(tmp_path), "--memory", str(tmp_path), "--json", "-"]
    run = bench("transfers", "--quick", "--only", "small-tls", *places)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    for contender in ("fsdm", *(tool for tool in ("curl", "wget2", "rclone", "aria2c") if shutil.which(tool))):
        assert sum(f"https: {contender}: " in figure["what"] for figure in document["figures"]) == 3


@with_nginx
def test_copies_are_measured_beside_those_of_cp(tmp_path: Path) -> None:
    places = ["--dir", str(tmp_path), "--memory", str(tmp_path), "--json", "-"]
    run = bench("transfers", "--quick", "--only", "file", *places)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    assert [figure["goal"] for figure in document["figures"] if figure["goal"]] == [1.3]
    assert list(tmp_path.iterdir()) == []


@with_nginx
@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is missing: whose s3 is the peer")
def test_transfers_out_of_a_bucket_are_measured_beside_those_of_rclone(tmp_path: Path) -> None:
    places = ["--dir", str(tmp_path), "--memory", str(tmp_path), "--json", "-"]
    run = bench("transfers", "--quick", "--only", "s3", *places)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    assert [figure["goal"] for figure in document["figures"] if figure["goal"]] == [1.0]
    assert list(tmp_path.iterdir()) == []


def test_lives_of_registered_chunks_are_measured(tmp_path: Path) -> None:
    chosen = ["--only", "hit", "gc", "victims", "--chunks", "40"]
    run = bench("lifecycle", "--quick", "--dir", str(tmp_path), "--json", "-", *chosen)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    assert named(document) == ["gc", "hit", "load", "victims"]
    figures = {figure["what"]: figure for figure in document["figures"]}
    assert figures["bytes written by 500 such acquires"]["value"] == 0
    assert figures["gc --to 0 of 40 chunks, 4 of them held: all judged"]["value"] > 0


def test_an_lru_keeps_what_was_used_last() -> None:
    assert lru([1, 2, 1, 3, 1, 2], 2) == 2 / 6


@pytest.mark.parametrize(
    ("name", "job", "goals"),
    [
        ("large", "10 × 4 × 50 MB on disk", [0.75, 1.0, 1.0]),
        ("memory", "10 × 4 × 50 MB in memory", [1.2, 1.2, 1.0]),
        ("tls", "10 × 4 × 50 MB in memory, https", [1.0, 1.4]),
        ("durable", "10 × 4 × 50 MB on disk, durable", [0.8]),
        ("sha256", "10 × 4 × 50 MB on disk, sha256 given", [0.95, 0.5, 0.2]),
        ("small", "200 × 5 × 200 kB on disk", [1.1]),
        ("small-memory", "200 × 5 × 200 kB in memory", [2.5]),
        ("small-tls", "200 × 5 × 200 kB in memory, https", [1.5, 2.0]),
        ("small-durable", "200 × 5 × 200 kB on disk, durable", [1.0]),
        ("limited", "2 × 4 × 25 MB on disk, 20 MB/s a connection", [0.6]),
        ("file", "10 × 4 × 50 MB on disk, from the same disk", [1.3]),
        ("s3", "10 × 4 × 50 MB on disk, from a bucket", [1.0]),
        ("sixteen", "4 × 4 × 50 MB on disk, 16 transfers", [80.0]),
    ],
)
def test_each_case_has_its_job_and_goals(name: str, job: str, goals: list[float]) -> None:
    case = CASES[name]
    assert case.what == job
    assert [goal.at_most for goal in case.goals] == goals
    assert case.tls is ("https" in job)


@with_nginx
def test_cost_of_a_chunk_is_measured_beside_that_of_its_file_operations(tmp_path: Path) -> None:
    run = bench("chunks", "--quick", "--dir", str(tmp_path), "--json", "-", "--only", "200", "50000")
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    assert named(document) == ["200"]
    assert "50000: left out" in run.stderr
    cost = {figure["what"].split(": ")[1]: figure for figure in document["figures"]}
    alone = cost["file operations alone, CPU of a chunk"]
    for step, goal in (("want → READY", 6), ("delete → gone", 2.5)):
        times = cost[f"{step}, against the file operations"]
        assert times["goal"] == goal
        assert times["value"] == pytest.approx(cost[f"{step}, CPU of a chunk"]["value"] / alone["value"])
        assert times["value"] > 0.1  # that process did the work


@pytest.mark.parametrize(("count", "goals"), [("200", [6.0, 2.5]), ("5000", [6.0, 2.5]), ("50000", [6.0, 2.5, 45.0])])
def test_chunks_are_held_to_their_goals_by_medians(count: str, goals: list[float]) -> None:
    taken = Taken(loop=[2e5, 9e5, 1e5], want=[1e6, 6e6, 2e5], delete=[4e5], wall=[46e9])
    figures = list(figures_of(count, taken))
    assert [figure.goal for figure in figures if figure.goal is not None] == goals
    assert [figure.value for figure in figures] == pytest.approx([0.2, 1.0, 5.0, 0.4, 2.0, 46.0])


@pytest.mark.parametrize("arguments", [("--only", "nothing"), ("nothing",), ("transfers", "--only", "nothing")])
def test_bench_refuses_what_it_does_not_know(arguments: tuple[str, ...]) -> None:
    run = bench(*arguments)
    assert run.returncode == 2
    assert "nothing" in run.stderr


def test_placing_is_measured_against_its_goals_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run = bench("place", "--chunks", "4000", "--workers", "16", "--dir", str(tmp_path), "--json", "-")
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    assert named(document) == ["again", "command", "fresh", "grow", "join", "leave", "zones"]
    figures = {figure["what"].partition(": ")[2]: figure for figure in document["figures"]}
    assert figures["a worker joins, moved / its share"]["goal"] == 1.05
    assert figures["nothing changed, copies moved"]["value"] == 0
    # these are counted, not timed: so they hold on any machine
    counted = [figure for figure in document["figures"] if figure["unit"] in {"times", "copies", "%", "workers"}]
    assert [figure["what"] for figure in counted if figure["met"] is False] == []
    assert len(counted) >= 12


@pytest.mark.skipif(
    not all(map(find_spec, ("duckdb", "pyarrow"))), reason="duckdb and pyarrow are in the extra `recipes`"
)
def test_indexes_are_measured_beside_others_and_nothing_is_left_behind(tmp_path: Path) -> None:
    run = bench("index", "--quick", "--dir", str(tmp_path), "--json", "-", "--only", "all", "build")
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    document = json.loads(run.stdout)
    assert document["errors"] == {}
    assert named(document) == ["all", "build"]
    figures = {figure["what"].partition(": ")[2]: figure for figure in document["figures"]}
    assert [figures[f"{name}, warm (p50)"]["goal"] for name in ("fsdm", "SQLite", "DuckDB")] == [25, None, None]
    assert [figures[f"{name}, no page in memory (p50)"]["goal"] for name in ("fsdm", "SQLite")] == [5, None]
    for name in ("fsdm, bytes a key", "bytes a key, over all chunks"):  # counted, not timed
        assert (figures[name]["goal"], figures[name]["met"]) == (24, True)
    assert figures["memory of all processes at once"]["goal"] == 500
    assert "; load " in run.stderr
