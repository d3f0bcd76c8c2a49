"""The wheel that a user installs, and the Pythons of this machine that it is for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def build_wheel(base: Path) -> Path:
    """Build a wheel from a copy of the sources, without git, as from a tarball; its path."""
    pytest.importorskip("setuptools", "69", reason="setuptools is in the extra `dev`")
    pytest.importorskip("setuptools_scm", reason="setuptools-scm is in the extra `dev`")
    unbuilt = shutil.ignore_patterns("__pycache__", "_version.py")
    shutil.copytree(ROOT / "fsdm", base / "sources" / "fsdm", ignore=unbuilt)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, base / "sources")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", base, base / "sources")
    [wheel] = base.glob("fsdm-*.whl")
    return wheel


def pip(*arguments: object) -> None:
    """Run pip, which must succeed."""
    done = subprocess.run([*PIP, *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr


def find_python(version: str) -> str | None:
    """Find the Python of this minor version: the running one, on the PATH, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    of_pyenv = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    candidates = map(str, filter(None, (sys.executable, shutil.which(f"python{version}"), *of_pyenv)))
    return next((one for one in candidates if _version_of(one) == version), None)


def _version_of(python: str) -> str:
    """Ask a Python for its minor version; "" where it does not run, as a shim of pyenv without one behind it."""
    ask = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
