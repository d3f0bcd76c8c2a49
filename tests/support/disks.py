"""Small disks."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    if disk.is_mount():  # a test may have done it
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def coarse_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 whose times have whole seconds, and which gives the numbers of inodes away again at once."""
    disk, image = tmp_path / "coarse", tmp_path / "image"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-I", "128", image], capture_output=True, check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"only root may mount an ext4 of its own, with mkfs.ext4: {e}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """A function that mounts, `mount(*arguments, where)`, until the end of the test."""
    mounted: list[str] = []

    def mount(*arguments: object) -> None:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"only root may mount: {done.stderr.decode(errors='replace')}")
        mounted.append(str(arguments[-1]))

    yield mount
    for where in reversed(mounted):
        subprocess.run(["umount", where], check=True)
