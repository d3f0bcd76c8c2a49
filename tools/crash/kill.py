"""Kill a life at every step: after each change of the disk, and in the middle of each write.

Each time a process is forked, lives the same life from its beginning, and kills itself there; then this process takes
over. A step is a system call that changes the disk, of any process: so every step of `FileSystem` is there, and also
what clients do, the bytes of a download, LOCK, and the making of the layout. Between two such calls nothing on the disk
differs, so no other instant is left out. Nothing is fsynced: the kernel keeps what was written.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
import warnings
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from fsdm.client import Client
from fsdm.model.layout import Layout
from tools.crash.check import ViolationError, check, check_look_ups, converge, judge
from tools.crash.life import LATER_S, Journal, Life
from tools.crash.lives import LIVES
from tools.crash.source import VERSIONS
from tools.crash.tap import Call, Tap

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.store.refs import ChunkRef
    from tools.crash.lives import Story

ENDED: Final = "its end"


def kill_everywhere(name: str, scratch: str, tell: Callable[[str], object]) -> int:
    """Live a life once for each of its steps, killed there; recover; return how many there were.

    `scratch` is a directory for this alone. `tell` is told of each step.

    Raises:
        ViolationError: naming the step.
    """
    story, template, root = LIVES[name], f"{scratch}/template/data", f"{scratch}/life/data"
    prepare(story, template)
    for step in count(1):
        os.mkdir(os.path.dirname(root))
        if story.before is not None:
            shutil.copytree(template, root)
        with Client(root) if story.held else nullcontext() as reader:
            refs = [VERSIONS[name].hold(reader) for name in story.held] if reader else []
            journal, last = _killed_at(step, story, root)
            tell(f"{name}: killed at {step}, {last}")
            try:
                _recover(story, root, journal, refs)
            except ViolationError as e:
                raise ViolationError(f"{name}, killed at {step}, {last}: {e}") from e
        shutil.rmtree(os.path.dirname(root))
        if last == ENDED:
            return step - 1
    raise AssertionError


def prepare(story: Story, root: str) -> None:
    """Make a data directory as it is when this life begins."""
    if story.before is None:
        return
    with Life(root, durable=False, is_indexed=story.is_indexed) as life:
        life.start()
        for name in story.before:
            life.want(name)
        assert life.run()
        life.index()
        assert check(life.layout).keys() == {name[0] for name in story.before}


def _recover(story: Story, root: str, journal: Journal, refs: list[ChunkRef]) -> None:
    if os.path.isdir(root + "/chunks"):
        ready = check(Layout(root))
        if story.is_indexed:
            check_look_ups(Layout(root), ready, {name[0] for name in story.before or () if not journal.of(name[0])})
    with Life(root, durable=False, began=LATER_S, is_indexed=story.is_indexed) as life:
        came = converge(life, refs)
    first = {name[0]: name for name in story.before or ()}
    for letter in {name[0] for name in VERSIONS}:
        asked = journal.of(letter)
        done = max((number for number, intent in enumerate(asked) if intent.ended is not None), default=-1)
        allowed = [first.get(letter)] if done < 0 else []
        judge(letter, came.get(letter), allowed + [intent.result for intent in asked[max(done, 0) :]])


# ---------------------------------------------------------------------------------------------- the one that is killed


class _Telling(Journal):
    """A journal that tells another process of what is asked, before and after it is."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe = pipe

    def begin(self, letter: str, result: str | None) -> None:
        self.tell(f"begin {letter} {result or ''}")

    def end(self) -> None:
        self.tell("end")

    def tell(self, line: str) -> None:
        os.write(self._pipe, line.encode() + b"\n")


def in_a_process(work: Callable[[int], None]) -> tuple[list[str], int]:
    """Call `work` with a pipe in a process; return the lines it has written, and its status."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns where a test runner has threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(writes)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writes)
    with open(reads, encoding="utf-8") as pipe:
        lines = pipe.read().splitlines()
    return lines, os.waitpid(pid, 0)[1]


def _killed_at(step: int, story: Story, root: str) -> tuple[Journal, str]:
    """Live until the step of this number; return what was asked by then, and which step it was."""
    lines, status = in_a_process(partial(_live_until, step, story, root))
    journal, last = Journal(), ENDED
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "begin":
            letter, _, result = rest.partition(" ")
            journal.begin(letter, result or None)
        elif kind == "end":
            journal.end()
        else:
            last = rest
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if killed is (last == ENDED) or (not killed and status != 0):
        raise AssertionError(f"the life ended by itself, with {status}: {last}")
    return journal, last


def _live_until(step: int, story: Story, root: str, pipe: int) -> None:
    journal, steps = _Telling(pipe), 0

    def done(call: Call) -> None:
        nonlocal steps
        if call.kind == "fsync":
            return
        steps += 1
        if steps == step:
            journal.tell(f"died {call}")
            os.kill(os.getpid(), signal.SIGKILL)

    life = Life(root, journal=journal, is_indexed=story.is_indexed)
    with life, Tap(os.path.dirname(root), before=life.before, half=done, after=done):
        story.tell(life)
