"""The plan: total, deterministic, and it comes to rest where the later intent asks for.

`World` models a disk on which every action does at once what `apply` promises, and a reconciler that remembers what
came of it; refs may refuse a few times. Time passes only where a decision waits.
"""

import errno
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsdm.model.documents import Failure, MarkerStamp
from fsdm.model.errors import DiskError, TransferError
from fsdm.model.layout import Place
from fsdm.model.state import COARSE_NS, ChunkState, Found, Marker, Partial
from fsdm.reconcile import plan, recovery
from fsdm.reconcile.actions import (
    Action,
    Clear,
    ClearAcquire,
    ClearEvict,
    ClearFailure,
    ClearVerify,
    Confirm,
    Discard,
    Evict,
    Fetch,
    Forget,
    Overrule,
    Publish,
    Quarantine,
    Register,
    Renew,
    Report,
    Retire,
    Unregister,
    Use,
    Verify,
    Wait,
)
from fsdm.reconcile.memo import NO_MEMO, Memo, Unreadable, Used, VerifyRequest
from fsdm.reconcile.plan import SETTLE_S, USE_S, decide, delete_is_later, held_delay
from fsdm.reconcile.recovery import BACKOFF_LAST_S, next_failure, stamp
from tests.support.states import DELETE, ID, NEW, NOW, OLD, WANT, _failure

EARLY_DELETE, TIED_DELETE = replace(DELETE, ctime_ns=50), replace(DELETE, ctime_ns=100)
A_FAULT = replace(DELETE, fault="is a directory, not a file")
VERIFY = Marker(30, 30, 30, 0)
FOUND = Found("data/blocks.parquet has other bytes", Marker(40, 40, 40, 400))


def _unreadable(since: float, want: Marker = WANT) -> Unreadable:
    return Unreadable(want, "Invalid JSON", "mend it", since)


# few values of each kind, and the edges among them: so markers are often tied, or the very ones that are remembered
MARKERS = [Marker(ino, ctime, mtime, 9) for ino in (1, 2) for ctime in (1, 2, 3) for mtime in (1, 2)]
FAULTS = [replace(marker, fault="is a FIFO, not a file") for marker in MARKERS[:3]]
wants = st.sampled_from([None, *MARKERS, *FAULTS])
delete_brake = st.sampled_from([None, *(replace(marker, ino=marker.ino + 10) for marker in MARKERS + FAULTS)])
verifies = st.sampled_from([None, *(replace(marker, ino=marker.ino + 20) for marker in MARKERS[:3] + FAULTS[:1])])
registrations = st.sampled_from([None, None, *(replace(marker, ino=marker.ino + 40) for marker in MARKERS + FAULTS)])
times = st.sampled_from([NOW + far for far in (-500, -SETTLE_S, -1e-9, 0, 1e-9, 1, SETTLE_S, 500)])
standing = st.sampled_from(
    [((OLD, NEW)[:n], (OLD, NEW)[n:m]) for m in range(3) for n in range(m + 1)] + [((NEW,), (OLD,))]
)
sets_of_places = st.sampled_from([frozenset(places) for places in ((), (OLD,), (NEW,), (OLD, NEW))])


@st.composite
def _known(draw: st.DrawFn) -> tuple[ChunkState, Memo]:
    """Any state, and what might be remembered of it."""
    ready, unready = draw(standing)
    want, delete, verify = draw(wants), draw(delete_brake), draw(verifies)
    state = ChunkState(
        ID,
        want,
        delete,
        verify=verify,
        known=None if want is delete is None else draw(registrations),
        partial=draw(st.sampled_from(Partial)),
        ready=ready,
        unready=unready,
        quarantined=tuple(place for place in unready if draw(st.booleans())),
        failed=draw(st.booleans()),
    )
    held = draw(st.sampled_from([0, 0, 1, 2, 40]))
    memo = Memo(
        want_alone=draw(st.sampled_from([None, want]) | wants),
        unreadable=_unreadable(draw(times), draw(st.sampled_from([want or MARKERS[0], MARKERS[1]])))
        if draw(st.booleans())
        else None,
        unregistered=_unreadable(draw(times), state.known) if state.known is not None and draw(st.booleans()) else None,
        failure=draw(_failures(want, delete)),
        reported=draw(st.booleans()),
        suspect=draw(st.sampled_from([None, OLD, NEW])),
        found=draw(st.sampled_from([None, FOUND])),
        asked=draw(_asked(verify)),
        crowded=draw(st.booleans()),
        held=held,
        held_until=draw(times) if held else 0.0,
    )
    return state, memo


@st.composite
def _asked(draw: st.DrawFn, verify: Marker | None) -> VerifyRequest | None:
    """Nothing, being read, answered, or to be tried again; of this marker or another one."""
    marker = draw(st.sampled_from([verify, MARKERS[0]]))
    return draw(
        st.sampled_from(
            [None]
            if marker is None
            else [
                None,
                VerifyRequest(marker),
                VerifyRequest(marker, answered=True),
                VerifyRequest(marker, again_at=draw(times)),
            ]
        )
    )


@st.composite
def _failures(draw: st.DrawFn, want: Marker | None, delete: Marker | None) -> Failure | None:
    kind = draw(st.sampled_from([None, "transfer", "want", "marker", "damaged", "disk", "room"]))
    if kind is None:
        return None
    marker = draw(st.sampled_from([want, delete, None, MARKERS[0]]))
    retried = kind == "disk" or (kind != "room" and marker is not None)  # only the disk fails what no marker asks for
    return _failure(
        kind,
        draw(st.none() | times) if retried else None,
        marker,
        last_at=draw(times),
        attempts=draw(st.integers(0, 50)),
    )


@given(_known(), times)
@settings(max_examples=1000, deadline=None)
def test_a_decision_is_total_deterministic_and_of_the_state_that_it_is_made_for(  # noqa: C901, PLR0912 an arm for each
    known: tuple[ChunkState, Memo], now: float
) -> None:
    state, memo = known
    decision = decide(state, memo, now)
    assert decision == decide(replace(state), replace(memo), now)
    assert decision is None or isinstance(decision, Wait | Action)
    want = state.want if state.want and not state.want.fault else None
    delete = state.delete if state.delete and not state.delete.fault else None
    match decision:
        case Wait(until):
            assert until > now
        case Fetch(_, marker):
            assert (marker, state.delete, state.ready) == (want, None, ())
            assert state.partial is not Partial.READY
        case Publish(_, marker):
            assert (marker, state.delete, state.ready, state.unready) == (want, None, (), ())
            assert state.partial is Partial.READY
        case Confirm(_, marker, place):
            assert (marker, state.delete) == (want, None)
            assert place in state.ready
        case Overrule(_, loser, marker, other):
            assert (marker, other) == (want, delete)
            assert loser == ("want" if delete_is_later(marker, other, memo) else "delete")
        case Register(_, loser, marker, known_):
            assert (marker, known_) == (delete if loser == "delete" else want, state.known)
            assert known_.ctime_ns > marker.ctime_ns or (loser, known_.ctime_ns) == ("delete", marker.ctime_ns)
            assert not known_.fault
        case Unregister(_, known_, marker):
            assert (marker, known_) == (delete, state.known)
            assert known_.ctime_ns < marker.ctime_ns
            assert (state.ready, state.unready) == ((), ())
        case Retire(_, place, marker):
            assert marker == delete
            assert place in state.ready + state.unready
            assert want is None or (memo.unreadable and want.same_as(memo.unreadable.want))
        case Clear(_, place):
            assert place in state.unready
            assert delete is None
        case Discard():
            assert state.partial is not Partial.NONE
            assert delete or not want or memo.crowded
        case Forget(_, marker):
            assert (marker, state.ready, state.unready, state.partial) == (delete, (), (), Partial.NONE)
        case Quarantine(_, place, found):
            assert place in state.ready
            assert found == memo.found
        case Renew(_, place):
            assert place in state.quarantined
        case Verify(_, place, marker):
            assert (marker, state.delete) == (state.verify, None)
            assert place in state.ready
        case ClearVerify(_, marker):
            assert marker == state.verify
            assert not marker.fault
        case ClearFailure():
            assert state.failed
            assert (want, delete) == (None, None)
    if decision is not None and not isinstance(decision, Wait):
        assert decision.id == ID
    if state.at_rest and memo == NO_MEMO:
        assert decision is None


@dataclass
class World:
    """One chunk's disk, ideal; `readable`, `good`, `damaged` and `kept` are what only opening the files tells."""

    state: ChunkState
    memo: Memo
    readable: bool = True  # the want parses
    registers: bool = True  # the registration does
    wanted_ns: int = -1  # the ctime of the last want that was carried out
    good: frozenset[Place] = frozenset({OLD, NEW})  # where the files are the wanted ones
    good_partial: bool = True
    damaged: frozenset[Place] = frozenset({OLD, NEW})  # where a suspicion would be right
    kept: bool = True  # the want that a chunk came of can be had again
    renewed: bool = False
    refusals: int = 0  # so many times a ref is in the way
    now: float = NOW
    steps: int = 0

    def comes_to_rest(self) -> ChunkState:
        """Carry out what is decided until nothing is left to do; the state then."""
        for self.steps in range(40):
            state = self.state
            if state.want is not None and state.delete is None and not state.want.same_as(self.memo.want_alone):
                self.memo = replace(self.memo, want_alone=state.want)
            decision = decide(state, self.memo, self.now)
            if decision is None:
                return state
            if isinstance(decision, Wait):
                assert decision.until > self.now
                self.now = decision.until
            else:
                self._apply(decision)
        raise AssertionError(f"it does not come to rest: {decision} of {self}")

    def _apply(self, action: Action) -> None:  # noqa: C901, PLR0912 an arm for each
        match action:
            case Fetch() | Publish() | Confirm() | Overrule(loser="delete") if not self.readable:
                assert action.want == self.state.want
                last = self.memo.unreadable
                known = last is not None and last.want.same_as(action.want)
                self._learn(unreadable=_unreadable(last.since if last and known else self.now, action.want))
            case Fetch():
                waited = self.memo.failure is not None and self.memo.failure.kind == "room"
                self._learn(crowded=False, failure=None if waited else self.memo.failure)  # as it is let in
                self._becomes(partial=Partial.READY)
                self.good_partial = True
                self._succeeds("transfer")
            case Publish():
                self._becomes(partial=Partial.NONE)
                if self.good_partial:
                    assert NEW not in self.state.ready + self.state.unready, "renamed onto what is there"
                    self._is_carried_out()
                    self._becomes(ready=(*self.state.ready, NEW), want=None)
                    self.good |= {NEW}
                    self.damaged -= {NEW}
                self._succeeds()
            case Confirm(_, _, place):
                if place in self.good:
                    self._is_carried_out()
                    self._becomes(want=None)
                else:
                    self._takes_out_of_service(place)
                self._succeeds()
            case Register() if not self.registers:
                last = self.memo.unregistered
                again = last is not None and last.want.same_as(action.known)
                self._learn(unregistered=_unreadable(last.since if last and again else self.now, action.known))
            case Register(_, loser):
                self._becomes(**{loser: None})
                self._succeeds()
            case Unregister():
                self._becomes(known=None)
                self._succeeds()
            case Overrule(_, loser):
                self._becomes(**{loser: None})
                self._succeeds()
            case Retire(_, place) | Clear(_, place):
                self._leaves(place)
            case Discard():
                self._becomes(partial=Partial.NONE)
                self._succeeds()
            case Forget():
                self._becomes(delete=None)
                self._learn(failure=None)
            case Quarantine(_, place):
                if place in self.damaged:
                    self._takes_out_of_service(place)
                    self._becomes(failed=True, quarantined=(*self.state.quarantined, place))
                    self._learn(failure=_failure("damaged", None, None), reported=True)
                self._learn(suspect=None, found=None)
            case Renew(_, place):
                deleted = self.state.delete is not None and not self.state.delete.fault
                known = self.state.known
                registered = known and not known.fault and self.registers and known.ctime_ns > self.wanted_ns
                if self.kept and self.state.want is None and not deleted and not registered:
                    self._becomes(want=replace(WANT, ino=77))
                    self.renewed = self.readable = True
                self._becomes(quarantined=tuple(other for other in self.state.quarantined if other != place))
                self._succeeds()
            case Verify(_, place, verify):
                self._learn(asked=VerifyRequest(verify, answered=True))
                if place in self.damaged:
                    self._learn(suspect=place, found=FOUND)
            case ClearVerify():
                self._becomes(verify=None)
                self._learn(asked=None)
                self._succeeds()
            case Report(_, failure):
                self._becomes(failed=True)
                self._learn(failure=failure, reported=True)
            case ClearFailure():
                self._becomes(failed=False)
                self._learn(failure=None)

    def _is_carried_out(self) -> None:
        assert self.state.want is not None
        self.kept, self.wanted_ns = True, self.state.want.ctime_ns

    def _leaves(self, place: Place) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            held = self.memo.held + 1
            self._learn(held=held, held_until=self.now + held_delay(held))
            return
        self._becomes(
            ready=tuple(other for other in self.state.ready if other != place),
            unready=tuple(other for other in self.state.unready if other != place),
            quarantined=tuple(other for other in self.state.quarantined if other != place),
        )
        self._learn(held=0, held_until=0.0)
        self._succeeds()

    def _takes_out_of_service(self, place: Place) -> None:
        ready = tuple(other for other in self.state.ready if other != place)
        self._becomes(ready=ready, unready=(*self.state.unready, place))

    def _succeeds(self, *kinds: str) -> None:
        if self.memo.failure and self.memo.failure.kind in {"disk", *kinds}:
            self._learn(failure=None)

    def _becomes(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _learn(self, **changes: Any) -> None:
        self.memo = replace(self.memo, **changes)


@st.composite
def _worlds(draw: st.DrawFn) -> World:
    state, memo = draw(_known())
    readable = draw(st.booleans()) and memo.unreadable is None
    if readable or memo.unreadable is None or state.want is None:
        memo = replace(memo, unreadable=None)
    elif memo.unreadable.since > NOW:  # a clock that is set back later is another test's
        memo = replace(memo, unreadable=replace(memo.unreadable, since=NOW))
    if memo.unregistered and memo.unregistered.since > NOW:
        memo = replace(memo, unregistered=replace(memo.unregistered, since=NOW))
    if (
        memo.asked and not memo.asked.answered and memo.asked.again_at is None
    ):  # it is not being read, so there will be no answer
        memo = replace(memo, asked=None)
    registers = draw(st.booleans()) and memo.unregistered is None
    return World(
        state,
        memo,
        readable=readable,
        registers=registers,
        good=draw(sets_of_places),
        good_partial=draw(st.booleans()),
        damaged=draw(sets_of_places),
        kept=draw(st.booleans()),
        refusals=draw(st.integers(0, 4)),
    )


def _later_intent(world: World) -> Literal["want", "delete", "known"] | None:
    """What is asked for, told independently of the plan (PROTOCOL.md, "Asking"). Faults are no intents."""
    last, known = _later_of_two(world), world.state.known
    if known is None or known.fault or not world.registers:
        return last
    other = world.state.delete if last == "delete" else world.state.want
    if other is None or other.fault or (known.ctime_ns, last == "delete") < (other.ctime_ns, True):
        return last
    return "known"


def _later_of_two(world: World) -> Literal["want", "delete"] | None:
    want, delete, memo = world.state.want, world.state.delete, world.memo
    if delete and not delete.fault:
        if want is None or want.fault or not world.readable or delete.ctime_ns > want.ctime_ns:
            return "delete"
        tied_and_seen = (
            delete.ctime_ns == want.ctime_ns and memo.want_alone and want.identity == memo.want_alone.identity
        )
        return "delete" if tied_and_seen else "want"
    return "want" if want and not want.fault and world.readable and delete is None else None


@given(_worlds())
@settings(max_examples=1000, deadline=None)
@example(World(ChunkState(ID, want=WANT, unready=(OLD,)), NO_MEMO, refusals=4))
@example(World(ChunkState(ID, want=WANT, delete=EARLY_DELETE, ready=(OLD,)), NO_MEMO, readable=False))
@example(World(ChunkState(ID, want=WANT, ready=(OLD, NEW)), NO_MEMO, good=frozenset({NEW})))
@example(World(ChunkState(ID, want=WANT, ready=(OLD,)), Memo(suspect=OLD), good=frozenset({OLD})))
@example(
    World(
        ChunkState(ID, want=WANT, delete=TIED_DELETE, verify=DELETE, ready=(OLD,)),
        NO_MEMO,
        good=frozenset({OLD}),
        damaged=frozenset({OLD}),
    )
)
def test_from_any_state_it_comes_to_rest_where_the_later_intent_asks_for(world: World) -> None:
    before, asked = world.state, _later_intent(world)
    verify = before.verify if before.verify and before.verify.fault else None
    want_stays = before.want is not None and (bool(before.want.fault) or not world.readable)
    end = world.comes_to_rest()
    assert end.verify == verify
    if world.renewed:
        assert asked != "delete"
        asked = asked or ("want" if before.delete is None else None)
    if asked == "delete":
        assert (end.ready, end.unready, end.partial, end.delete) == ((), (), Partial.NONE, None)
        overruled = before.want and not before.want.fault and end.want is None
        assert (end.want, end.failed) == ((before.want, True) if want_stays and not overruled else (None, False))
        known = before.known
        late = known and (known.fault or (before.delete and known.ctime_ns >= before.delete.ctime_ns))
        assert end.known == (known if late else None), "one that is later, and cannot be read, may be mended"
    elif asked == "want":
        assert end.ready
        assert set(end.ready) & world.good
        assert end == ChunkState(ID, ready=end.ready, verify=verify, known=before.known)
    elif asked == "known":
        assert end.known == before.known
        assert end.delete is None or end.delete.fault
        assert end.want is None or want_stays
        assert set(end.ready) <= set(before.ready), "nothing is fetched"
    else:
        assert end.want == before.want or world.renewed
        assert end.delete == before.delete, "an entry that is no intent is left alone"
        assert not set(end.ready) - set(before.ready)
        if before.want is before.delete is None:
            assert (end.partial, end.unready) == (Partial.NONE, ())
            assert not end.failed or (world.memo.failure and world.memo.failure.kind == "damaged" and not end.ready)
        else:
            assert world.memo.failure
            assert world.memo.failure.kind in {"want", "marker"}


@given(_worlds())
@settings(max_examples=300, deadline=None)
def test_at_rest_it_stays_at_rest_whatever_time_it_is(world: World) -> None:
    end = world.comes_to_rest()
    for later in (0, 1e-3, SETTLE_S, BACKOFF_LAST_S, 1e9):
        assert decide(end, world.memo, world.now + later) is None


def _state(**found: Any) -> ChunkState:
    return ChunkState(ID, **found)


KNOWN, ACQUIRE, EVICT = Marker(50, 50, 50, 500), Marker(60, 60, 60, 5), Marker(70, 70, 70, 0)
OLDER = replace(ACQUIRE, mtime_ns=1)


def _acquired(**found: Any) -> ChunkState:
    return _state(**{"acquire": ACQUIRE, "asked": "held", "known": KNOWN, **found})


def test_registration_that_was_asked_for_and_cannot_be_read_is_told_once() -> None:
    state, memo = _acquired(), Memo(unregistered=_unreadable(NOW - SETTLE_S, KNOWN))
    told = decide(state, memo, NOW)
    assert isinstance(told, Report)
    assert (told.failure.kind, told.failure.marker) == ("want", stamp(ACQUIRE))
    assert decide(state, replace(memo, failure=told.failure), NOW) is None
    assert decide(replace(state, acquire=OLDER), replace(memo, failure=told.failure), NOW) is not None, "asked anew"


@pytest.mark.parametrize(
    ("state", "memo", "decision"),
    [
        # asked for
        (_acquired(), NO_MEMO, Fetch(ID, KNOWN, True)),
        (_acquired(partial=Partial.READY), NO_MEMO, Publish(ID, KNOWN, True)),
        (_acquired(asked="touched"), NO_MEMO, Fetch(ID, KNOWN, True)),
        (_acquired(asked=""), NO_MEMO, ClearAcquire(ID, ACQUIRE)),
        (_acquired(asked="touched", known=None), NO_MEMO, ClearAcquire(ID, ACQUIRE)),
        (_acquired(known=None), NO_MEMO, None),
        (_acquired(known=None, partial=Partial.BEGUN), NO_MEMO, Discard(ID)),
        (_acquired(want=WANT), NO_MEMO, Fetch(ID, WANT)),
        (_acquired(ready=(OLD,)), NO_MEMO, Use(ID, OLD, ACQUIRE)),
        (_acquired(ready=(OLD,)), Memo(used=Used(ACQUIRE, NOW)), None),
        (_acquired(ready=(OLD,), failed=True), NO_MEMO, ClearFailure(ID)),
        (_acquired(ready=(OLD,), asked="touched"), Memo(used=Used(ACQUIRE, NOW)), Wait(NOW + USE_S)),
        (_acquired(ready=(OLD,), asked="touched"), Memo(used=Used(ACQUIRE, NOW - USE_S)), ClearAcquire(ID, ACQUIRE)),
        (_acquired(ready=(OLD,)), Memo(used=Used(replace(ACQUIRE, mtime_ns=1), NOW)), Use(ID, OLD, ACQUIRE)),
        (_acquired(unready=(OLD,)), NO_MEMO, Clear(ID, OLD)),
        (_acquired(partial=Partial.BEGUN), Memo(crowded=True), Discard(ID)),
        (_acquired(), Memo(failure=_failure("transfer", NOW + 9, ACQUIRE, known=stamp(KNOWN))), Wait(NOW + 9)),
        (_acquired(), Memo(failure=_failure("transfer", NOW + 9, OLDER, known=stamp(KNOWN))), Fetch(ID, KNOWN, True)),
        (_acquired(asked=""), Memo(failure=_failure("disk", NOW + 9, ACQUIRE)), Wait(NOW + 9)),
        (_acquired(), Memo(unregistered=_unreadable(NOW, KNOWN)), Wait(NOW + SETTLE_S)),
        # to be evicted
        (_state(evict=EVICT, ready=(OLD,)), NO_MEMO, Evict(ID, OLD, EVICT)),
        (_state(evict=EVICT), NO_MEMO, ClearEvict(ID, EVICT)),
        (_state(evict=replace(EVICT, fault="is a directory, not a file")), NO_MEMO, None),
        (_state(evict=EVICT, want=WANT, ready=(OLD,)), NO_MEMO, Confirm(ID, WANT, OLD)),
        (_state(evict=EVICT, want=WANT), Memo(failure=_failure("transfer", NOW + 9, WANT)), ClearEvict(ID, EVICT)),
        (_state(evict=EVICT, delete=DELETE, ready=(OLD,)), Memo(held=1, held_until=NOW + 1), ClearEvict(ID, EVICT)),
        (_acquired(evict=EVICT, ready=(OLD,)), Memo(used=Used(ACQUIRE, NOW)), ClearEvict(ID, EVICT)),
        (_acquired(evict=EVICT, ready=(OLD,), asked=""), NO_MEMO, ClearAcquire(ID, ACQUIRE)),
        (_state(evict=EVICT, ready=(OLD,)), Memo(failure=_failure("disk", NOW + 9, None)), Wait(NOW + 9)),
        (_state(evict=EVICT, ready=(OLD,), verify=VERIFY), NO_MEMO, Evict(ID, OLD, EVICT)),
        # wanted
        (_state(want=WANT), NO_MEMO, Fetch(ID, WANT)),
        (_state(want=WANT, partial=Partial.BEGUN), NO_MEMO, Fetch(ID, WANT)),
        (_state(want=WANT, partial=Partial.READY), NO_MEMO, Publish(ID, WANT)),
        (_state(want=WANT, ready=(OLD,)), NO_MEMO, Confirm(ID, WANT, OLD)),
        (_state(want=WANT, unready=(OLD,)), NO_MEMO, Clear(ID, OLD)),
        (_state(want=WANT, unready=(OLD,)), Memo(held=1, held_until=NOW + 1), Fetch(ID, WANT)),  # meanwhile
        (_state(want=WANT, unready=(OLD,), partial=Partial.READY), Memo(held=1, held_until=NOW + 1), Wait(NOW + 1)),
        (_state(want=WANT, unready=(OLD,), partial=Partial.READY), Memo(held=1, held_until=NOW), Clear(ID, OLD)),
        # deleted
        (_state(delete=DELETE), NO_MEMO, Forget(ID, DELETE)),
        (_state(delete=DELETE, partial=Partial.BEGUN), NO_MEMO, Discard(ID)),
        (_state(delete=DELETE, ready=(OLD,), partial=Partial.READY), NO_MEMO, Discard(ID)),
        (_state(delete=DELETE, ready=(OLD,)), NO_MEMO, Retire(ID, OLD, DELETE)),
        (_state(delete=DELETE, unready=(OLD,)), NO_MEMO, Retire(ID, OLD, DELETE)),
        (_state(delete=DELETE, ready=(OLD,)), Memo(held=3, held_until=NOW + 1), Wait(NOW + 1)),
        # both
        (_state(want=WANT, delete=DELETE, ready=(OLD,)), NO_MEMO, Overrule(ID, "want", WANT, DELETE)),
        (_state(want=WANT, delete=EARLY_DELETE, ready=(OLD,)), NO_MEMO, Overrule(ID, "delete", WANT, EARLY_DELETE)),
        (_state(want=WANT, delete=TIED_DELETE), NO_MEMO, Overrule(ID, "delete", WANT, TIED_DELETE)),
        (_state(want=WANT, delete=TIED_DELETE), Memo(want_alone=WANT), Overrule(ID, "want", WANT, TIED_DELETE)),
        # a want that cannot be read
        (_state(want=WANT), Memo(unreadable=_unreadable(NOW)), Wait(NOW + SETTLE_S)),
        (_state(want=WANT), Memo(unreadable=_unreadable(NOW, replace(WANT, size=1))), Fetch(ID, WANT)),
        (_state(want=WANT, delete=DELETE), Memo(unreadable=_unreadable(NOW)), Overrule(ID, "want", WANT, DELETE)),
        (_state(want=WANT, delete=EARLY_DELETE), Memo(unreadable=_unreadable(NOW)), Wait(NOW + SETTLE_S)),
        (_state(want=WANT, delete=EARLY_DELETE), Memo(unreadable=_unreadable(NOW - 9)), Forget(ID, EARLY_DELETE)),
        # nothing asked
        (_state(), NO_MEMO, None),
        (_state(ready=(OLD,)), NO_MEMO, None),
        (_state(partial=Partial.READY), NO_MEMO, Discard(ID)),  # withdrawn
        (_state(unready=(OLD,)), NO_MEMO, Clear(ID, OLD)),
        (_state(unready=(OLD,)), Memo(held=1, held_until=NOW + 1), Wait(NOW + 1)),
        (_state(failed=True), NO_MEMO, ClearFailure(ID)),
        (_state(failed=True), Memo(failure=_failure()), ClearFailure(ID)),
        (_state(failed=True), Memo(failure=_failure("damaged", None, None)), None),  # it tells why the chunk is gone
        (_state(failed=True, ready=(OLD,)), Memo(failure=_failure("damaged", None, None)), ClearFailure(ID)),
        (_state(ready=(OLD,)), Memo(suspect=OLD), Quarantine(ID, OLD)),
        (_state(ready=(OLD,), want=WANT, delete=DELETE), Memo(suspect=OLD), Quarantine(ID, OLD)),
        (_state(ready=(OLD,)), Memo(suspect=NEW), None),
        (_state(ready=(OLD,)), Memo(suspect=OLD, found=FOUND), Quarantine(ID, OLD, FOUND)),
        # out of service, and not by request: before anything is decided of the markers
        (_state(unready=(OLD,), quarantined=(OLD,)), NO_MEMO, Renew(ID, OLD)),
        (_state(unready=(OLD,), quarantined=(OLD,), want=WANT, delete=DELETE), NO_MEMO, Renew(ID, OLD)),
        (_state(unready=(OLD,), quarantined=(OLD,)), Memo(failure=_failure("disk", marker=None)), Wait(NOW + 9)),
        # a verify marker asks for the bytes to be compared
        (_state(ready=(OLD,), verify=VERIFY), NO_MEMO, Verify(ID, OLD, VERIFY)),
        (_state(ready=(OLD,), verify=VERIFY), Memo(asked=VerifyRequest(VERIFY)), None),
        (
            _state(ready=(OLD,), verify=VERIFY),
            Memo(asked=VerifyRequest(VERIFY, answered=True)),
            ClearVerify(ID, VERIFY),
        ),
        (_state(ready=(OLD,), verify=VERIFY), Memo(asked=VerifyRequest(VERIFY, again_at=NOW + 1)), Wait(NOW + 1)),
        (_state(ready=(OLD,), verify=VERIFY), Memo(asked=VerifyRequest(VERIFY, again_at=NOW)), Verify(ID, OLD, VERIFY)),
        (_state(ready=(OLD,), verify=VERIFY), Memo(asked=VerifyRequest(WANT, answered=True)), Verify(ID, OLD, VERIFY)),
        (_state(verify=VERIFY), NO_MEMO, ClearVerify(ID, VERIFY)),
        (_state(verify=VERIFY, want=WANT), NO_MEMO, Fetch(ID, WANT)),
        (_state(verify=VERIFY, want=WANT), Memo(asked=VerifyRequest(VERIFY, answered=True)), ClearVerify(ID, VERIFY)),
        (_state(verify=VERIFY, delete=DELETE, ready=(OLD,)), NO_MEMO, Retire(ID, OLD, DELETE)),
        (_state(verify=VERIFY, delete=DELETE, ready=(OLD,)), Memo(held=1, held_until=NOW + 1), ClearVerify(ID, VERIFY)),
        (_state(verify=replace(VERIFY, fault="is a FIFO"), ready=(OLD,)), NO_MEMO, None),
        # after a failure
        (_state(want=WANT), Memo(failure=_failure(), reported=False), Report(ID, _failure())),
        (_state(want=WANT), Memo(failure=_failure()), Wait(NOW + 9)),
        (_state(want=WANT), Memo(failure=_failure(until=NOW)), Fetch(ID, WANT)),
        (_state(want=replace(WANT, mtime_ns=9)), Memo(failure=_failure()), Fetch(ID, replace(WANT, mtime_ns=9))),
        (_state(want=replace(WANT, mtime_ns=9)), Memo(failure=_failure("disk")), Wait(NOW + 9)),
        (_state(want=WANT, unready=(OLD,)), Memo(failure=_failure()), Clear(ID, OLD)),  # meanwhile; not of a full disk
        (_state(want=WANT, unready=(OLD,)), Memo(failure=_failure("disk")), Wait(NOW + 9)),
        (_state(delete=DELETE, partial=Partial.BEGUN), Memo(failure=_failure()), Discard(ID)),  # a delete does not wait
        (_state(delete=DELETE, ready=(OLD,)), Memo(failure=_failure("disk")), Wait(NOW + 9)),
        (_state(partial=Partial.BEGUN), Memo(failure=_failure("disk")), Wait(NOW + 9)),
        (_state(ready=(OLD,)), Memo(suspect=OLD, failure=_failure("disk", marker=None)), Wait(NOW + 9)),
    ],
)
def test_the_next_step(state: ChunkState, memo: Memo, decision: Action | Wait | None) -> None:
    assert decide(state, memo, NOW) == decision


HELD, AGAIN = Memo(held=9, held_until=NOW + plan.HELD_LAST_S), VerifyRequest(VERIFY, again_at=NOW + plan.VERIFY_AGAIN_S)
LONGEST = Memo(failure=_failure(until=NOW + recovery.RETRY_AFTER_MAX_S))
WAITS = {  # what is waited for, how long at most, and what is done then
    "a backoff": (_state(want=WANT), LONGEST, recovery.RETRY_AFTER_MAX_S, Fetch(ID, WANT)),
    "a ref": (_state(delete=DELETE, ready=(OLD,)), HELD, plan.HELD_LAST_S, Retire(ID, OLD, DELETE)),
    "a ref to what has no READY": (_state(unready=(OLD,)), HELD, plan.HELD_LAST_S, Clear(ID, OLD)),
    "a disk": (_state(ready=(OLD,), verify=VERIFY), Memo(asked=AGAIN), plan.VERIFY_AGAIN_S, Verify(ID, OLD, VERIFY)),
    "a want to be whole": (_state(want=WANT), Memo(unreadable=_unreadable(NOW)), SETTLE_S, None),
    "a want beside a delete": (
        _state(want=WANT, delete=EARLY_DELETE), Memo(unreadable=_unreadable(NOW)), SETTLE_S, Forget(ID, EARLY_DELETE)
    ),
}  # fmt: skip


@pytest.mark.parametrize("set_by_s", [-86400.0, -1.0, 86400.0])
@pytest.mark.parametrize(("state", "memo", "longest_s", "then"), WAITS.values(), ids=WAITS)
def test_wait_ends_at_its_time_or_where_the_clock_is_set(
    state: ChunkState, memo: Memo, longest_s: float, then: Action | None, set_by_s: float
) -> None:
    assert decide(state, memo, NOW) == Wait(NOW + longest_s)
    assert decide(state, memo, NOW + longest_s - 1e-3) == Wait(NOW + longest_s)
    for now in (NOW + longest_s, NOW + set_by_s + (longest_s if set_by_s > 0 else 0)):
        decision = decide(state, memo, now)
        assert isinstance(decision, Report) if then is None else decision == then


@pytest.mark.parametrize(
    ("state", "memo", "kind", "error", "marker"),
    [
        (_state(want=A_FAULT), NO_MEMO, "marker", f"want/{ID} is a directory, not a file", A_FAULT),
        (_state(delete=A_FAULT, ready=(OLD,)), NO_MEMO, "marker", f"delete/{ID} is a directory, not a file", A_FAULT),
        (_state(want=WANT, delete=A_FAULT), NO_MEMO, "marker", f"delete/{ID} is a directory, not a file", A_FAULT),
        (_state(want=WANT), Memo(unreadable=_unreadable(NOW - SETTLE_S)), "want", "Invalid JSON", WANT),
    ],
)
def test_an_entry_that_is_no_intent_is_reported_once(
    state: ChunkState, memo: Memo, kind: str, error: str, marker: Marker
) -> None:
    report = decide(state, memo, NOW)
    assert isinstance(report, Report)
    failure = report.failure
    assert (failure.kind, failure.error, failure.marker) == (kind, error, stamp(marker))
    assert (failure.attempts, failure.first_at, failure.last_at, failure.next_attempt_at) == (0, NOW, NOW, None)
    assert failure.hint
    assert decide(replace(state, failed=True), replace(memo, failure=failure), NOW + 9) is None


def test_a_fault_in_want_does_not_keep_a_delete_from_its_end() -> None:
    end = World(_state(want=A_FAULT, delete=DELETE, ready=(OLD,)), NO_MEMO).comes_to_rest()
    assert end == _state(want=A_FAULT, failed=True)


def test_a_delete_that_refs_hold_back_is_withdrawn_by_a_later_want_without_a_fetch() -> None:
    world = World(_state(want=WANT, delete=EARLY_DELETE, ready=(OLD,)), Memo(held=5, held_until=NOW + 1))
    assert world.comes_to_rest() == _state(ready=(OLD,))
    assert (world.steps, world.now) == (2, NOW)  # overruled and confirmed


@pytest.mark.parametrize(
    ("delete_ctime", "want_alone", "later"),
    [
        (101, None, True),
        (99, WANT, False),
        (100, None, False),  # keeping data is the safer mistake
        (100, WANT, True),
        (100, replace(WANT, ctime_ns=1), True),  # it has been renamed since
        (100, replace(WANT, ino=9), False),
        (100, replace(WANT, size=9), False),
    ],
)
def test_the_later_ctime_wins_then_what_was_seen(delete_ctime: int, want_alone: Marker | None, later: bool) -> None:
    assert delete_is_later(WANT, replace(DELETE, ctime_ns=delete_ctime), Memo(want_alone=want_alone)) is later


def _attempts(count: int, jitter: float = 1.0, error: Any = None, kind: Any = "transfer") -> list[Failure]:
    """The failures after so many attempts in a row, each made when the last one's wait is over."""
    failures: list[Failure] = []
    now, memo = NOW, NO_MEMO
    for _ in range(count):
        failure = next_failure(Fetch(ID, WANT), error or DiskError("full"), memo, now, jitter, kind)
        failures.append(failure)
        now, memo = failure.next_attempt_at or now, Memo(failure=failure)
    return failures


def _delays(failures: list[Failure]) -> list[float]:
    return [(failure.next_attempt_at or 0) - failure.last_at for failure in failures]


COARSE = 10**9 * int(NOW - 1)  # a time with whole seconds, a second ago


@pytest.mark.parametrize(
    ("mtime_ns", "delay_s"),
    [(COARSE, COARSE_NS / 1e9), (COARSE + 1, recovery.PERMANENT_S), (COARSE - 10**10, recovery.PERMANENT_S)],
)
def test_what_fails_while_its_time_may_repeat_is_tried_once_more_soon(mtime_ns: int, delay_s: float) -> None:
    action, error = Fetch(ID, replace(WANT, mtime_ns=mtime_ns)), TransferError("404")
    failure = next_failure(action, error, NO_MEMO, NOW, 1.0, "transfer")
    assert failure.next_attempt_at == pytest.approx(NOW + delay_s)
    again = next_failure(action, error, Memo(failure=failure), NOW + 3, 1.0, "transfer")
    assert again.next_attempt_at == NOW + 3 + recovery.PERMANENT_S


def test_want_that_was_read_while_its_time_may_repeat_is_read_once_more() -> None:
    state, there = ChunkState(ID, WANT), _unreadable(NOW)
    for again, now, fetches in ((True, NOW, False), (True, NOW + SETTLE_S, True), (False, NOW + SETTLE_S, False)):
        action = decide(state, Memo(unreadable=replace(there, again=again)), now)
        assert isinstance(action, Fetch) is fetches


def test_each_failure_waits_twice_as_long_as_the_last_up_to_a_bound() -> None:
    failures = _attempts(1200)
    assert _delays(failures)[:4] == [recovery.BACKOFF_FIRST_S * factor for factor in (1, 2, 4, 8)]
    assert _delays(failures)[9:] == [BACKOFF_LAST_S] * 1191
    assert [failure.attempts for failure in failures] == list(range(1, 1201))
    assert {failure.first_at for failure in failures} == {NOW}


def test_jitter_shortens_every_wait() -> None:
    assert _delays(_attempts(3, jitter=0.5)) == [delay / 2 for delay in _delays(_attempts(3))]


def test_what_trying_again_cannot_help_waits_longest_at_once() -> None:
    gone = TransferError("HTTP 404", transient=False, hint="is the URL right?")
    (failure,) = _attempts(1, error=gone)
    assert _delays([failure]) == [recovery.PERMANENT_S]
    assert not failure.transient
    assert (failure.id, failure.kind, failure.error, failure.hint) == (ID, "transfer", "HTTP 404", "is the URL right?")


@pytest.mark.parametrize(
    ("asked", "delay"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (120.0, 120.0), (1e9, recovery.RETRY_AFTER_MAX_S)]
)
def test_an_attempt_waits_as_long_as_the_server_asks_within_reason(asked: float | None, delay: float) -> None:
    busy = TransferError("HTTP 503", transient=True, retry_after_s=asked)
    (failure,) = _attempts(1, error=busy)
    assert _delays([failure]) == [delay]
    assert failure.transient


@pytest.mark.parametrize(
    ("last", "attempts", "first_at"),
    [
        (None, 1, NOW),
        (_failure(attempts=4), 5, 1),
        (_failure("disk", attempts=4), 1, NOW),  # of another kind
        (_failure(marker=replace(WANT, mtime_ns=9), attempts=4), 1, NOW),  # of another request
        (_failure(marker=None, attempts=4), 1, NOW),
    ],
)
def test_only_the_same_failure_of_the_same_marker_adds_up(last: Failure | None, attempts: int, first_at: float) -> None:
    failure = next_failure(Fetch(ID, WANT), DiskError("full"), Memo(failure=last), NOW, 1.0, "transfer")
    assert (failure.attempts, failure.first_at, failure.last_at) == (attempts, first_at, NOW)


@pytest.mark.parametrize(
    ("action", "marker"),
    [
        (Fetch(ID, WANT), WANT),
        (Publish(ID, WANT), WANT),
        (Confirm(ID, WANT, OLD), WANT),
        (Retire(ID, OLD, DELETE), DELETE),
        (Forget(ID, DELETE), DELETE),
        (Discard(ID), None),
        (Clear(ID, OLD), None),
        (Quarantine(ID, OLD), None),
        (Renew(ID, OLD), None),
    ],
)
def test_a_failure_names_its_marker_and_holds_the_action_back(action: Action, marker: Marker | None) -> None:
    failure = next_failure(action, DiskError("full"), NO_MEMO, NOW, 1.0, "disk")
    assert failure.marker == (marker and MarkerStamp(ino=marker.ino, mtime_ns=marker.mtime_ns, size=marker.size))
    partial = (
        Partial.READY if isinstance(action, Publish) else Partial.BEGUN if isinstance(action, Discard) else Partial.NONE
    )
    state = ChunkState(
        ID,
        want=getattr(action, "want", None),
        delete=getattr(action, "delete", None),
        partial=partial,
        ready=(OLD,) if isinstance(action, Retire | Confirm | Quarantine) else (),
        unready=(OLD,) if isinstance(action, Clear | Renew) else (),
        quarantined=(OLD,) if isinstance(action, Renew) else (),
    )
    memo = Memo(suspect=OLD if isinstance(action, Quarantine) else None)
    assert decide(state, memo, NOW) == action
    assert decide(state, replace(memo, failure=failure), NOW) == Wait(NOW + recovery.BACKOFF_FIRST_S)


def test_a_held_directory_is_tried_less_and_less_often_up_to_a_bound() -> None:
    delays = [held_delay(held) for held in range(1, 5000)]
    assert delays[:3] == [plan.HELD_FIRST_S, plan.HELD_FIRST_S * 2, plan.HELD_FIRST_S * 4]
    assert delays == sorted(delays)
    assert max(delays) == delays[20] == plan.HELD_LAST_S


def test_a_partial_gives_way_where_a_fetch_waits_for_its_room_and_its_want_stays() -> None:
    memo = replace(NO_MEMO, failure=_failure(), crowded=True)
    for partial in (Partial.BEGUN, Partial.READY):
        assert decide(ChunkState(ID, WANT, partial=partial), memo, NOW) == Discard(ID)
    assert decide(ChunkState(ID, WANT), memo, NOW) == Wait(NOW + 9)
    assert decide(ChunkState(ID, WANT), replace(memo, failure=None), NOW) == Fetch(ID, WANT)


def test_a_partial_that_the_disk_keeps_is_left_alone_for_a_while() -> None:
    memo = replace(NO_MEMO, failure=_failure("disk"), crowded=True)
    assert decide(ChunkState(ID, WANT, partial=Partial.BEGUN), memo, NOW) == Wait(NOW + 9)


def test_that_a_want_waits_for_room_is_told_once_and_again_for_another_want() -> None:
    fetch = Fetch(ID, WANT)
    failure = plan.waiting_for_room(fetch, "needs 2 bytes", "make room", NOW)
    assert (failure.kind, failure.next_attempt_at) == ("room", None)
    assert plan.waits_for_room(replace(NO_MEMO, failure=failure), fetch)
    assert not plan.waits_for_room(replace(NO_MEMO, failure=failure), Fetch(ID, replace(WANT, mtime_ns=77)))
    assert not plan.waits_for_room(replace(NO_MEMO, failure=_failure()), fetch)
    assert not plan.waits_for_room(NO_MEMO, fetch)
    assert decide(ChunkState(ID, WANT, failed=True), replace(NO_MEMO, failure=failure), NOW) == fetch


def test_what_was_never_tried_is_not_stuck() -> None:
    assert not recovery.is_stuck(NO_MEMO)
    assert recovery.trouble(NO_MEMO, "not done") == "not done"


def test_an_id_is_stuck_after_a_few_tries_or_without_another() -> None:
    failing = _failure().model_copy(update={"attempts": 1, "last_at": NOW, "next_attempt_at": NOW + 1.0})
    assert not recovery.is_stuck(replace(NO_MEMO, failure=failing))
    tried = failing.model_copy(update={"attempts": recovery.TRIES})
    assert recovery.is_stuck(replace(NO_MEMO, failure=tried))
    assert not recovery.is_stuck(replace(NO_MEMO, failure=tried, reported=False))
    assert recovery.is_stuck(replace(NO_MEMO, failure=failing.model_copy(update={"next_attempt_at": None})))
    assert recovery.trouble(replace(NO_MEMO, failure=failing), "not done") == failing.error


def test_a_held_chunk_is_waited_for_a_while() -> None:
    assert not recovery.is_stuck(replace(NO_MEMO, held=recovery.HELD_TRIES - 1))
    held = replace(NO_MEMO, held=recovery.HELD_TRIES)
    assert recovery.is_stuck(held)
    assert recovery.trouble(held, "not done") == "refs hold it"


def test_want_under_a_lease_is_tried_each_second() -> None:
    memo = NO_MEMO
    for attempts in range(1, 20):
        failure = next_failure(Fetch(ID, WANT), DiskError("a lease", code=errno.EAGAIN), memo, NOW, 1.0, "disk")
        assert (failure.attempts, failure.next_attempt_at) == (attempts, NOW + 1)
        memo = Memo(failure=failure)


@pytest.mark.parametrize(
    ("state", "takes"),
    [
        (ChunkState(ID, delete=DELETE, ready=(OLD,)), True),
        (ChunkState(ID, delete=DELETE), False),
        (ChunkState(ID, ready=(OLD,)), False),
        (ChunkState(ID, delete=replace(DELETE, fault="is a directory"), ready=(OLD,)), False),
        (ChunkState(ID, want=WANT, delete=DELETE, ready=(OLD,)), True),
        (ChunkState(ID, want=replace(WANT, ctime_ns=DELETE.ctime_ns + 1), delete=DELETE, ready=(OLD,)), False),
        (
            ChunkState(
                ID,
                want=replace(WANT, ctime_ns=DELETE.ctime_ns + 1, fault="is a directory"),
                delete=DELETE,
                ready=(OLD,),
            ),
            True,
        ),
    ],
)
def test_delete_takes_away_what_is_here_unless_a_later_want_stands(state: ChunkState, takes: bool) -> None:
    assert plan.takes_away(state, NO_MEMO) is takes


@pytest.mark.parametrize(("unreadable", "takes"), [(WANT, True), (replace(WANT, size=1), False)])
def test_delete_takes_away_what_a_later_want_that_cannot_be_read_asks_for(unreadable: Marker, takes: bool) -> None:
    want = replace(WANT, ctime_ns=DELETE.ctime_ns + 1)
    memo = Memo(unreadable=Unreadable(replace(unreadable, ctime_ns=want.ctime_ns), "e", "h", 1.0))
    assert plan.takes_away(ChunkState(ID, want=want, delete=DELETE, ready=(OLD,)), memo) is takes
