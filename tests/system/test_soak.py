"""The soak, short: it finds nothing where all is well, and what is wrong where a promise is broken."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ran
from tools import soak
from tools.support import proc

ROOT = Path(__file__).parents[2]


def soaked(tmp_path: Path, minutes: float, chunks: int = 60, **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the figures of a short run, which left nothing behind."""
    where = tmp_path / "soak"
    where.mkdir()
    options = ["--minutes", minutes, "--chunks", chunks, "--readers", 5, "--clients", 2, "--dir", where, "--json"]
    command = ["nice", "-n", "15", sys.executable, "-m", "tools.soak"]  # so as not to take the machine from other tests
    run = ran(*command, *options, cwd=ROOT, timeout_s=900, **environment)
    assert run.stdout, run.stderr
    assert list(where.iterdir()) == []
    return run.returncode, json.loads(run.stdout)


@pytest.mark.timeout(1000)  # it goes on until all is as asked
def test_churn_and_kills_show_no_wrong_byte_and_all_ends_as_asked(tmp_path: Path) -> None:
    _, figures = soaked(tmp_path, 0.3, chunks=150)
    assert figures["violations"] == figures["not_as_asked"] == []
    assert figures["growth"].keys() == {"memory_mib", "descriptors", "threads"}  # too short a time to judge them
    assert all(figures[name] > 0 for name in ("reads", "reader_kills", "reconciler_kills", "intents"))


@pytest.mark.timeout(1000)  # it goes on until all is as asked
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("store.refs.try_flock = lambda fd, flags: True", ""),
        ("verify.rehash.Rehash._compare = lambda self, fd, entry: 'has other bytes'", soak.DAMAGED),
    ],
    ids=["a ref takes no lock", "a false report of damage"],
)
def test_fault_is_found(tmp_path: Path, fault: str, said: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import fsdm.store.refs, fsdm.verify.rehash\nfsdm.{fault}\n")
    code, figures = soaked(tmp_path, 10.0, chunks=6, PYTHONPATH=str(tmp_path))  # it ends at the first violation
    assert code == 1
    assert any(said in violation for violation in figures["violations"])


def test_rising_figure_is_found_and_a_swinging_one_is_not() -> None:
    figures = soak.Figures(growth=dict.fromkeys(soak.MAY_GROW, 0.0))
    assert figures.problems == []
    figures.growth["memory_mib"] = proc.growth([(float(at), 50.0 + at) for at in range(60)])
    assert figures.problems == ["memory_mib grew by 59.0"]
    assert abs(proc.growth([(float(at), 50.0 + 5 * (at % 2)) for at in range(60)])) < 1


@pytest.mark.parametrize("spoil", ["cut", "other", "missing", "more", "mixed"])
def test_reader_sees_each_wrong_file(tmp_path: Path, spoil: str) -> None:
    for name, data in soak.files_of(7, 1).items():
        (tmp_path / name).write_bytes(data)
    assert soak.version_in(tmp_path, 7) == 1
    file, data = tmp_path / soak.FILES[0], soak.files_of(7, 1)[soak.FILES[0]]
    other = {"cut": data[:-1], "other": data[:-1] + b"?", "mixed": soak.files_of(7, 2)[soak.FILES[0]]}
    match spoil:
        case "missing":
            file.unlink()
        case "more":
            (tmp_path / "PARTS").touch()
        case _:
            file.write_bytes(other[spoil])
    with pytest.raises((ValueError, OSError)):
        soak.version_in(tmp_path, 7)
