"""Fail the power after each call of a life, in every form that `disk` knows, and check.

What holds for a crash holds here too: never READY over wrong bytes, and it converges. Of the intents, those count that
cannot be lost: one whose marker was fsynced, and every one that has been carried out (its marker was removed). Clients
fsync nothing, so a younger intent may be lost or not; a want that was torn stays where it is, and is told of.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from unittest import mock

import fsdm.store.markers
from fsdm.model.layout import Layout
from tools.crash.check import ViolationError, check, converge, judge, torn
from tools.crash.disk import JUDGED, Disk, State
from tools.crash.kill import prepare
from tools.crash.life import LATER_S, Journal, Life
from tools.crash.lives import LIVES
from tools.crash.source import VERSIONS
from tools.crash.tap import Call, Tap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.state import Marker
    from tools.crash.lives import Story
    from tools.support.versions import Version

BOUND: Final = 256  # combinations of one instant that are all tried; see `disk`
Results = list[str | None]
Allowed = dict[str, tuple[Results, Results]]  # what may come of each chunk, and what where its want is torn
LETTER_OF: Final = {version.chunk.id: version.name[0] for version in VERSIONS.values()}


@dataclass(frozen=True, slots=True)
class Came:
    """The chunks that came, by their letters, and those whose want was torn."""

    versions: dict[str, Version]
    torn: set[str]


@dataclass
class Figures:
    """The counts: calls, states of the disk after them, different ones, those with a torn want."""

    calls: int = 0
    states: int = 0
    different: int = 0
    torn: int = 0


def fail_everywhere(name: str, scratch: str, bound: int = BOUND) -> Figures:
    """Live a life once; then recover from every state that a power failure may have left.

    Raises:
        ViolationError: naming the instant and what was lost.
    """
    story, figures = LIVES[name], Figures()
    disk, calls, journal = _recorded(story, f"{scratch}/life")
    promises = Promises(story, journal, disk)
    known: dict[object, Came] = {}
    for number, call in enumerate(calls, 1):
        disk.did(call)
        promises.did(number, call)
        allowed = promises.allowed(number)
        figures.calls += 1
        judged: set[object] = set()
        for state in disk.states(bound):
            figures.states += 1
            if (key := state.key) in judged:
                continue
            judged.add(key)
            try:
                if key not in known:
                    known[key] = _recover(state, f"{scratch}/after", is_indexed=story.is_indexed)
                judge_all(known[key], allowed)
            except ViolationError as e:
                lost = "; ".join(state.lost) or "nothing"
                raise ViolationError(f"{name}, power failed after {number}, {call}; lost: {lost}: {e}") from e
    figures.different = len(known)
    figures.torn = sum(bool(came.torn) for came in known.values())
    return figures


def _recorded(story: Story, above: str) -> tuple[Disk, list[Call], Journal]:
    """Live a life; return the disk at its beginning, the calls and the journal.

    At each call the model must have what the disk has: so no call went past the tap.
    """
    os.mkdir(above)
    prepare(story, f"{above}/data")
    beginning, model, calls, journal = Disk(above), Disk(above), list[Call](), Journal()

    def done(call: Call) -> None:
        calls.append(call)
        journal.calls = len(calls)
        model.did(call)
        there, known = Disk(above).now().tree, model.now().tree
        assert {(path, data) for path, _, data in there} == {(path, data) for path, _, data in known}, str(call)

    life = Life(f"{above}/data", journal=journal, is_indexed=story.is_indexed)
    with life, Tap(above, before=life.before, after=done):
        life.written_back = lambda: done(Call("sync", "all"))
        story.tell(life)
    shutil.rmtree(above)
    return beginning, calls, journal


class Promises:
    """The intents that cannot be lost any more."""

    def __init__(self, story: Story, journal: Journal, disk: Disk) -> None:
        self._journal = journal
        self._disk = disk
        self._first = {name[0]: name for name in story.before or ()}
        self._kept: dict[str, int] = {}  # by letter: the number of the oldest intent that may be what counts
        self._leaving: dict[str, int] = {}  # by the marker's path
        self._gone: dict[str, dict[str, int]] = {}  # by the directory: what is carried out once it is fsynced

    def did(self, number: int, call: Call) -> None:
        """Note a call.

        An intent cannot be lost any more once its marker is there for good; and once the reconciler has removed that
        for good, because it has carried out what the last intent asks for.
        """
        for letter in LETTER_OF.values():
            asked = [intent for intent in self._journal.of(letter) if intent.at < number]
            if asked and asked[-1].ended in range(number + 1) and self._stands(letter, asked[-1].result):
                self._keep(letter, len(asked) - 1)
        directory, name = os.path.split(call.target if call.kind == "rename" else call.path)
        if call.kind in {"fsync", "sync"}:
            for path in self._gone if call.kind == "sync" else {call.path} & self._gone.keys():
                for letter, intent in self._gone[path].items():
                    self._keep(letter, intent)
        elif name.startswith(JUDGED) and not directory.endswith("/verify"):
            self._removes(number, call, directory, LETTER_OF[name[-64:]])

    def _removes(self, number: int, call: Call, directory: str, letter: str) -> None:
        match call.kind:
            case "rename":
                asked = self._begun(letter, number)
                # what comes back by itself was asked for before this life
                overruled = not asked or (asked[-1] is None) is directory.endswith("/want")
                if not overruled:
                    self._leaving[call.target] = len(asked) - 1
            case "link":  # a newer one was there: it is put back
                self._leaving.pop(call.path, None)
            case "unlink" if call.path in self._leaving:
                self._gone.setdefault(directory, {})[letter] = self._leaving.pop(call.path)

    def _keep(self, letter: str, intent: int) -> None:
        self._kept[letter] = max(self._kept.get(letter, -1), intent)

    def allowed(self, number: int) -> Allowed:
        """Return what may come of each chunk after so many calls."""
        return {letter: self._allowed(letter, number) for letter in LETTER_OF.values()}

    def _allowed(self, letter: str, number: int) -> tuple[Results, Results]:
        """Return both: a torn want may have replaced an older intent, but it takes no files away."""
        asked, kept = [self._first.get(letter), *self._begun(letter, number)], self._kept.get(letter, -1) + 1
        may_be_torn = any(result is not None for result in asked[kept + 1 :])
        return asked[kept:], asked if may_be_torn else asked[kept:]

    def _begun(self, letter: str, number: int) -> list[str | None]:
        return [intent.result for intent in self._journal.of(letter) if intent.at < number]

    def _stands(self, letter: str, result: str | None) -> bool:
        """Tell whether the marker of an intent is there for good."""
        directory = "delete" if result is None else "want"
        return self._disk.is_durable(f"data/{directory}/{VERSIONS[f'{letter}1'].chunk.id}")


def _recover(state: State, above: str, *, is_indexed: bool) -> Came:
    """Build a state, and recover from it."""
    os.mkdir(above)
    try:
        changed = state.build(above)
        with _ctimes(above, changed):
            return recover(f"{above}/data", is_indexed=is_indexed)
    finally:
        shutil.rmtree(above)


def recover(root: str, *, is_indexed: bool) -> Came:
    """Recover from what a power failure has left there, after another boot."""
    layout = Layout(root)
    if os.path.isdir(layout.partial):
        check(layout)
    with Life(root, durable=False, boot="second", began=LATER_S, is_indexed=is_indexed) as life:
        return Came(converge(life), {LETTER_OF[chunk_id] for chunk_id in torn(layout)})


def judge_all(came: Came, allowed: Allowed) -> None:
    """Check that what came of each chunk may come of it."""
    for letter, results in allowed.items():
        judge(letter, came.versions.get(letter), results[letter in came.torn])


@contextmanager
def _ctimes(above: str, changed: dict[int, int]) -> Iterator[None]:
    """Give what was built its ctimes in the order of the calls; all later changes come after."""
    marker_of = fsdm.store.markers.marker_of
    built = {
        os.lstat(f"{directory}/{name}").st_ino: os.lstat(f"{directory}/{name}").st_ctime_ns
        for directory, _, names in os.walk(above)
        for name in names
    }

    def ordered(found: os.stat_result, *, limit: int | None = None) -> Marker:
        marker = marker_of(found, limit=limit)
        if built.get(found.st_ino) != found.st_ctime_ns:
            return marker
        return replace(marker, ctime_ns=changed[found.st_ino])

    with mock.patch.object(fsdm.store.markers, "marker_of", ordered):
        yield
