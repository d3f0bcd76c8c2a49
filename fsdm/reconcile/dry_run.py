"""Predicting what `fsdm run --once` would do: scan → decide. LOCK is not taken.

It is what follows from a look, not a promise: what others ask for meanwhile, what a server says, and what the manifest
check finds is not in it. For each id the decisions are followed to the one that takes time or room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from fsdm.model.errors import InvalidInputError, StaleMarkerError
from fsdm.model.state import Partial
from fsdm.model.units import readable
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Wait
from fsdm.reconcile.delete_brake import read_brake, release, see
from fsdm.reconcile.memo import Unreadable, observe
from fsdm.reconcile.plan import decide, takes_away
from fsdm.reconcile.recovery import Recovery, tries
from fsdm.reconcile.space_budget import SpaceBudget
from fsdm.store.catalog import Catalog
from fsdm.store.disk_usage import bytes_in
from fsdm.store.filesystem import exists
from fsdm.store.holders import look_for_holders
from fsdm.store.json_files import read_manifest
from fsdm.store.markers import read_chunk
from fsdm.store.scan import look, scan

if TYPE_CHECKING:
    from fsdm.model.documents import DataChunk
    from fsdm.model.layout import Layout, Place
    from fsdm.model.limits import Limits
    from fsdm.model.state import ChunkState, Marker
    from fsdm.reconcile.actions import Action
    from fsdm.reconcile.memo import Memo

What = Literal["fetch", "publish", "keep", "delete", "discard", "wait", "fail"]

LONG_AGO: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Step:
    """The predicted end of one id.

    *fetch* (`size_bytes` are still to come), *publish*, *keep* (it is here already), *delete* and *discard*
    (`size_bytes` are freed), *wait* and *fail* (`why` says for what, and why).

    `undeclared` files declare no size: what they bring is in no sum.
    """

    what: What
    id: str
    size_bytes: int = 0
    undeclared: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The steps: deletes first, then downloads in the order in which they would begin."""

    steps: tuple[Step, ...]

    def total_bytes(self, *what: What) -> int:
        """Sum up the bytes of all steps of these kinds."""
        return sum(step.size_bytes for step in self.steps if step.what in what)

    @property
    def undeclared(self) -> int:
        """Return how many of the files to be fetched declare no size."""
        return sum(step.undeclared for step in self.steps if step.what == "fetch")


def dry_run(layout: Layout, limits: Limits, now: float) -> Forecast:
    """Predict what would be done within these limits."""
    return _DryRun(layout, limits, now).predict()


class _DryRun:
    def __init__(self, layout: Layout, limits: Limits, now: float) -> None:
        self._layout = layout
        self._limits = limits
        self._recovery = Recovery.within(limits)
        self._now = now
        self._catalog = Catalog(layout)
        self._catalog.update()
        self._fetches: list[tuple[int, int, str, Step, actions.Fetch]] = []  # in the order of their turns
        self._steps: list[Step] = []

    def predict(self) -> Forecast:
        looks = [look(self._layout, self._catalog, one) for one in sorted(scan(self._layout, self._catalog).ids)]
        memos = {state.id: observe(self._layout, state) for state in looks}
        self._held_back = self._judge(looks, memos)
        self._held = self._holders(looks)
        for state in looks:
            self._follow(state, replace(memos[state.id], reported=True))
        return Forecast((*self._steps, *self._in_turn()))

    def _judge(self, states: list[ChunkState], memos: dict[str, Memo]) -> set[str]:
        brake = read_brake(self._layout, self._limits.brake_share)
        for state in states:
            see(brake, self._layout, state, is_going=takes_away(state, memos[state.id]))
        release(brake, self._layout)
        space = SpaceBudget(self._layout, self._catalog, self._limits)
        brake.judge(len(self._catalog), self._now, space.here_bytes)
        return {state.id for state in states if brake.holds_back(state.id)}

    def _holders(self, states: list[ChunkState]) -> set[Place]:
        places = [place for state in states if state.delete for place in state.ready + state.unready]
        try:
            return {place for place, holders in look_for_holders(self._layout, places).items() if holders.found}
        except OSError:  # no proc(5): it is found out when it is tried
            return set()

    def _follow(self, state: ChunkState, memo: Memo) -> None:
        """Follow the decisions about one id, as if each were carried out."""
        while True:
            decision = decide(state, memo, self._now, self._recovery)
            want = getattr(decision, "want", None)
            chunk = error = None
            if want is not None and not (isinstance(decision, actions.Overrule) and decision.loser == "want"):
                known = isinstance(decision, actions.Fetch | actions.Publish) and decision.known
                chunk, error = self._read(state.id, want, known=known)
                if error is not None:
                    bad = Unreadable(want, str(error), error.hint, LONG_AGO)
                    memo = replace(memo, unregistered=bad) if known else replace(memo, unreadable=bad)
                    continue
            match decision:
                case actions.Overrule(loser="want") | actions.Register(loser="want"):
                    state = replace(state, want=None)
                case actions.Overrule() | actions.Register():
                    state = replace(state, delete=None)
                case actions.Unregister():
                    state = replace(state, known=None)
                case actions.Discard():
                    self._steps.append(Step("discard", state.id, _bytes(self._layout.partial_of(state.id))))
                    state = replace(state, partial=Partial.NONE)
                case actions.Confirm(place=place) if chunk is not None and not self._is_here(place, chunk):
                    state = replace(state, ready=state.ready[1:])
                    self._steps.append(
                        Step("delete", state.id, _bytes(self._layout.path(place)), why="replaced by other files")
                    )
                case actions.ClearVerify():
                    state = replace(state, verify=None)
                case actions.Use() | actions.ClearAcquire() | actions.ClearEvict():
                    evict = None if isinstance(decision, actions.ClearEvict) else state.evict
                    state = replace(state, acquire=None, asked="", evict=evict)
                case actions.Renew() if state.want is not None or state.delete is not None:
                    state = replace(state, quarantined=())
                case _:
                    self._end(decision, state, memo, chunk)
                    return

    def _end(self, decision: Action | Wait | None, state: ChunkState, memo: Memo, chunk: DataChunk | None) -> None:
        """Note the step that the decisions about one id end with."""
        match decision:
            case actions.Fetch() as fetch if chunk is not None:
                sizes = [file.size for file in chunk.files.values()]
                to_come = max(sum(size or 0 for size in sizes) - _bytes(self._layout.partial_of(state.id)), 0)
                step = Step("fetch", state.id, to_come, sizes.count(None))
                attempts = tries(memo)
                self._fetches.append((attempts, fetch.since_ns, state.id, step, fetch))
            case actions.Publish():
                self._steps.append(Step("publish", state.id, why="it has come as a whole"))
            case actions.Confirm():
                self._steps.append(Step("keep", state.id, why="it is here already"))
            case actions.Retire(place=place) | actions.Clear(place=place) | actions.Evict(place=place):
                self._steps.append(self._leaving(state.id, place))
            case actions.Forget():
                self._steps.append(Step("delete", state.id, why="it is not here"))
            case actions.Verify():
                self._steps.append(Step("keep", state.id, why="its bytes are compared with READY"))
            case actions.Renew():
                self._steps.append(Step("wait", state.id, why="it was damaged: it is wanted again, and fetched"))
            case actions.Report(failure=failure):
                self._steps.append(Step("fail", state.id, why=failure.error))
            case None if memo.failure is not None and state.want is not None:
                self._steps.append(Step("fail", state.id, why=memo.failure.error))
            case Wait(until=until):
                why = memo.failure.error if memo.failure is not None else "it may be half-written"
                self._steps.append(Step("wait", state.id, why=f"{why}; tried again in {until - self._now:.0f} s"))

    def _leaving(self, chunk_id: str, place: Place) -> Step:
        if chunk_id in self._held_back:
            return Step("wait", chunk_id, why="its delete is held back by the brake: fsdm release")
        if place in self._held:
            return Step("wait", chunk_id, why="refs hold it (fsdm holders)")
        return Step("delete", chunk_id, _bytes(self._layout.path(place)))

    def _in_turn(self) -> list[Step]:
        """Order the fetches as they would begin, as far as there is room and no pause."""
        if exists(self._layout.pause):
            return [Step("wait", one, why="downloads are paused: fsdm resume") for *_, one, _, _ in self._fetches]
        space = SpaceBudget(self._layout, self._catalog, self._limits)
        space.open()
        left = space.look() + sum(step.size_bytes for step in self._steps if step.what in {"delete", "discard"})
        steps = []
        for *_, step, fetch in sorted(self._fetches, key=lambda turn: turn[:3]):
            if space.is_limited and (left < 0 or step.size_bytes > left):
                needs = f"needs {readable(space.need_bytes(fetch))}, and there is room for {readable(max(left, 0))}"
                steps.append(Step("wait", step.id, why=needs))
            else:
                left -= step.size_bytes
                steps.append(step)
        return steps

    def _read(self, chunk_id: str, want: Marker, *, known: bool) -> tuple[DataChunk | None, InvalidInputError | None]:
        try:
            return read_chunk(self._layout, chunk_id, want, known=known)[0], None
        except InvalidInputError as e:
            return None, e
        except (StaleMarkerError, OSError):  # it has just changed
            return None, InvalidInputError("it is being changed")

    def _is_here(self, place: Place, chunk: DataChunk) -> bool:
        manifest = read_manifest(self._layout.path(place))
        return manifest is not None and manifest.place == place and manifest.satisfies(chunk, sha256_may_follow=True)


def _bytes(path: str) -> int:
    return bytes_in(path)[0]
