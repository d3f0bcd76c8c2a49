"""The command line starts fast: counted in modules that it loads and calls that it makes, not in time."""

import os
import sys
from pathlib import Path

import pytest

from fsdm.cli import main as cli
from fsdm.cli.commands import VERBS
from fsdm.model.layout import Layout, Place
from tests.support import ran
from tests.support.chunks import an_id

HEAVY = {
    *(
        "asyncio",
        "blake3",
        "dask",
        "distributed",
        "numpy",
        "prometheus_client",
        "pydantic",
        "requests",
        "rich",
        "shtab",
        "ssl",
        "urllib3",
    ),
    "watchdog",
}
MOST_MODULES = 40  # of --version and --help, beyond those of any command line that argparse reads
MOST_CALLS = 25  # of functions in Python, for each chunk in a list: 15 today


def _loaded(code: str) -> set[str]:
    done = ran(sys.executable, "-c", f"import sys; {code}; print(*sys.modules, file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_help_of_no_verb_loads_what_is_heavy() -> None:
    loaded = _loaded("from fsdm.cli.main import build_parser; build_parser().format_help()")
    assert {f"fsdm.cli.commands.{name}" for name in VERBS} <= loaded
    assert loaded & HEAVY == set()


def test_package_by_itself_loads_nothing() -> None:
    assert {name for name in _loaded("import fsdm") if name.startswith("fsdm")} == {"fsdm"}
    assert "pydantic" in _loaded("import fsdm; fsdm.DataChunk")


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_load_few_modules(argument: str) -> None:
    loaded = _loaded(f"from fsdm.cli.main import main\ntry: main(['{argument}'])\nexcept SystemExit: print()")
    assert "fsdm.cli.main" in loaded
    assert len(loaded - _loaded("import argparse")) <= MOST_MODULES


def test_list_loads_nothing_heavy(layout: Layout) -> None:
    loaded = _loaded(f"from fsdm.cli.main import main; main(['ls', '-d', {layout.root!r}])")
    assert "fsdm.cli.commands.ls" in loaded
    assert loaded & HEAVY == set()


def test_reconciler_at_rest_has_loaded_nothing_of_what_only_fetches_need(data_dir: Path) -> None:
    loaded = _loaded(f"from fsdm.cli.main import main; main(['run', '--once', '-d', {str(data_dir)!r}])")
    assert "fsdm.transfer.http.engine" in loaded
    assert loaded & (HEAVY - {"blake3", "pydantic", "watchdog"}) == set()


def test_list_makes_few_calls_for_each_chunk(layout: Layout, data_dir: Path) -> None:
    few, many = 100, 300
    counts = []
    for start in range(many):
        path = layout.path(Place.of("d" * 64, range(start, start + 1), an_id()))
        os.makedirs(path)
        os.close(os.open(f"{path}/READY", os.O_CREAT | os.O_WRONLY))
        if start + 1 in {few, many}:
            counts.append(_calls("ls", "-d", str(data_dir)))
    assert 0 < counts[1] - counts[0] <= MOST_CALLS * (many - few)


def _calls(*arguments: str) -> int:
    """How many calls of functions in Python one verb makes."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        assert cli.main(arguments) == 0
    finally:
        sys.setprofile(None)
    return count
