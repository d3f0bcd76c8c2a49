"""The wheel on every Python that it is for: installed into an environment of its own, as by pip and pipx, and used."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import Source, ran
from tests.support.chunks import a_want, content
from tests.support.wheels import PIP, ROOT, build_wheel, find_python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
NO_INDEX = re.compile(r"NewConnectionError|NameResolutionError|Temporary failure|ConnectTimeoutError|ProxyError")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_without_git_has_the_version_of_the_last_release(wheel: Path) -> None:
    assert wheel.name == f"fsdm-{PROJECT['tool']['setuptools_scm']['fallback_version']}-py3-none-any.whl"
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"


def install(wheel: Path, python: str, where: Path) -> Path:
    """Make an environment with the wheel and what it needs; its `bin`."""
    subprocess.run([python, "-m", "venv", "--without-pip", where], check=True, timeout=120)
    pip = [*PIP, "--python", str(where / "bin" / "python"), "install", "--no-compile", "--prefer-binary"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, timeout=280, check=False)
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip("what fsdm needs cannot be had from an index here")
    assert done.returncode == 0, done.stderr
    return where / "bin"


NAMES = """
import fsdm

lacking = []
for name in fsdm.__all__:
    try:
        assert getattr(fsdm, name)
    except ModuleNotFoundError:
        lacking.append(name)
print(lacking)
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_wheel_is_installed_and_used_on_each_python(version: str, wheel: Path, tmp_path: Path, source: Source) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not at hand")
    here = install(wheel, python, tmp_path / "venv")
    release = f"fsdm {wheel.name.split('-')[1]}\n"
    assert ran(here / "fsdm", "--version").stdout == release
    assert ran(here / "python", "-m", "fsdm", "--version", cwd=tmp_path).stdout == release
    assert ran(here / "python", "-W", "error", "-c", NAMES, cwd=tmp_path).stdout == "['FleetClient']\n", (
        "by fsdm[fleet]"
    )
    chunk = a_want(files={"a": source.put("/a", content("a"))})
    want = tmp_path / "want.json"
    want.write_bytes(chunk.to_json())
    at = ("-d", tmp_path / "data")
    for verb in (("run", "--once", *at), ("want", *at, want), ("run", "--once", *at), ("verify", *at)):
        done = ran(here / "fsdm", *verb)
        assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr
    told = json.loads(ran(here / "fsdm", "status", *at, "--json").stdout)
    assert [(one["id"], one["state"]) for one in told["chunks"]] == [(chunk.id, "available")]
    held = ran(here / "fsdm", "hold", *at, chunk.dataset_id, 7, "--", "sh", "-c", 'cat "$FSDM_CHUNK_PATH/a" | wc -c')
    assert held.stdout.strip() == "1000"


def test_python_that_runs_the_tests_is_found() -> None:
    running = "{}.{}".format(*sys.version_info)
    assert find_python(running) == sys.executable
    assert find_python("3.2") is None
