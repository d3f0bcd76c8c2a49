"""Shut down a real file system on a loop device after each call of a life, and check.

The ioctl EXT4_IOC_SHUTDOWN (XFS_IOC_GOINGDOWN has the same number) stops a file system at once: with its log written
before, or not. Then it is mounted again, replays its log, and fsdm recovers from what is there. That is one state of
each instant, not all that there may be (see `power`), but one that a kernel has made.

It needs root, loop devices and mkfs. The image lies in the scratch directory: best in memory.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import struct
import subprocess
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from tools.crash.check import ViolationError
from tools.crash.disk import Disk
from tools.crash.kill import in_a_process, prepare
from tools.crash.life import Journal, Life
from tools.crash.lives import LIVES
from tools.crash.power import Promises, judge_all, recover
from tools.crash.tap import Call, Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.crash.lives import Story

KINDS: Final = ("ext4", "xfs")
IMAGE_BYTES: Final = {"ext4": 64 << 20, "xfs": 320 << 20}  # sparse; xfs takes no less
SHUTDOWN: Final = 0x8004587D
FLUSHES: Final = {1: "its log written", 2: "its log not written"}


def why_not(kind: str, scratch: str) -> str | None:
    """Return why this cannot be tried here, or None where it can."""
    if os.geteuid() != 0:
        return "it takes root to mount an image"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"there is no mkfs.{kind}"
    try:
        with _mounted(_image(kind, scratch), scratch):
            return None
    except subprocess.CalledProcessError as e:
        return f"no image of {kind} can be mounted here: {e.stderr.strip()}"


def shut_down_everywhere(name: str, scratch: str, kind: str, tell: Callable[[str], object], *, every: int = 1) -> int:
    """Live a life once for each `every`-th call, recover, and return how many there were.

    The log is written before every other one of them.

    Raises:
        ViolationError: naming the instant.
    """
    story, image, template = LIVES[name], _image(kind, scratch), f"{scratch}/template/data"
    prepare(story, template)
    for tried in count():
        last, how = tried * every + 1, 1 + tried % 2
        with _mounted(image, scratch) as mount:
            shutil.rmtree(f"{mount}/life", ignore_errors=True)
            os.mkdir(f"{mount}/life")
            if story.before is not None:
                shutil.copytree(template, f"{mount}/life/data")
            _sync(mount)
            lines, status = in_a_process(partial(_live_until, last, story, mount, how))
        assert status == 0
        if not lines:
            return tried
        allowed, what = json.loads(lines[0])
        tell(f"{name}: the power failed after {last}, {what}; {FLUSHES[how]}")
        with _mounted(image, scratch) as mount:
            try:
                judge_all(recover(f"{mount}/life/data", is_indexed=story.is_indexed), allowed)
            except ViolationError as e:
                raise ViolationError(f"{name}, {kind} shut down after {last}, {what}; {FLUSHES[how]}: {e}") from e
    raise AssertionError


def _live_until(last: int, story: Story, mount: str, how: int, pipe: int) -> None:
    """Write what may come of each chunk after so many calls, and the last call, into the pipe.

    Where the life ends before, nothing is written. It runs in a process of its own, so that its descriptors go with it.
    """
    above, journal = f"{mount}/life", Journal()
    disk = Disk(above)
    promises = Promises(story, journal, disk)

    def done(call: Call) -> None:
        journal.calls += 1
        disk.did(call)
        promises.did(journal.calls, call)
        if journal.calls == last:
            _shut_down(mount, how)
            os.write(pipe, json.dumps([promises.allowed(last), str(call)]).encode() + b"\n")
            os._exit(0)

    def written_back() -> None:
        _sync(mount)
        done(Call("sync", "all"))

    life = Life(f"{above}/data", journal=journal, is_indexed=story.is_indexed)
    with life, Tap(above, before=life.before, after=done, syncs=True):
        life.written_back = written_back
        story.tell(life)


# --------------------------------------------------------------------------------------------------------------- images


def _image(kind: str, scratch: str) -> str:
    path = f"{scratch}/{kind}.img"
    with open(path, "wb") as file:
        file.truncate(IMAGE_BYTES[kind])
    subprocess.run([f"mkfs.{kind}", "-q", path], check=True, capture_output=True, text=True)
    return path


@contextmanager
def _mounted(image: str, scratch: str) -> Iterator[str]:
    mount = f"{scratch}/mount"
    os.makedirs(mount, exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True, capture_output=True, text=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True, capture_output=True, text=True)


def _shut_down(mount: str, how: int) -> None:
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", how))
    finally:
        os.close(fd)


def _sync(mount: str) -> None:
    """Write back this file system alone, not the whole machine: syncfs(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), mount)
    finally:
        os.close(fd)
