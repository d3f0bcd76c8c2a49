"""The state machines of random lives."""

import itertools
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import SearchStrategy

from tests.support.filesystems import MEMORY
from tests.support.world import HERE, Cut, Deed, World, points

LONG = os.environ.get("FSDM_STATEFUL") == "long"
SETTINGS = settings(
    max_examples=5_000 if LONG else 60,
    stateful_step_count=30 if LONG else 15,
    derandomize=not LONG,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


def deeds(kind: str, *how: str, versions: int = 1, ties: bool = False) -> list[Deed]:
    """All deeds of a kind; the plainest first, for that is what is shrunk to."""
    tied = (False, False, True) if ties else (False,)
    return [Deed(kind, HERE, v, h, t) for v, h, t in itertools.product(range(versions), how or ("",), tied)]


WANTS = deeds("want", "client", "cp", "mv", versions=3, ties=True)
DELETES = deeds("delete", "client", "touch", ties=True)
WITHDRAWALS = deeds("rm_want") + deeds("rm_delete") + deeds("touch_want", ties=True)
SPOILT = deeds("spoil", "half", "other", "directory", "symlink", ties=True)
DAMAGES = deeds("damage", "byte", "short", "gone", versions=2)
VERIFIES = deeds("verify", "touch", "client")
REGISTERS = deeds("register", "client", "mv", versions=2)
UNREGISTERS, ACQUIRES = deeds("rm_known"), deeds("acquire")
EVICTS = deeds("evict") + deeds("gc")
FINDS = deeds("find", "client", "neighbour", "passer-by", versions=5)
LOOK, SETTLE, STOP, KILL, REFUSE = (Deed(kind) for kind in ("look", "settle", "stop", "kill", "refuse"))
CARELESS = [*deeds("want", "mv", versions=3), *deeds("delete", "touch")]
CARELESS_ALONE = [(deed,) for deed in (*WITHDRAWALS[:2], *CARELESS)]
BOTH = [
    *itertools.product(deeds("want", "mv", versions=3), deeds("delete", "touch", ties=True)),
    *itertools.product(deeds("delete", "touch"), deeds("want", "mv", versions=3, ties=True)),
]
RECYCLE = (Deed("delete", how="touch"), SETTLE, Deed("want", how="mv"), SETTLE)
REFS = deeds("clone", versions=3) + deeds("close_ref", versions=3)
WEATHER = [*deeds("wait", "second", "while", "long"), *deeds("fault", "transient", "permanent"), STOP]
chunks = st.sampled_from([0, 1, 0, 1, 2])
damages, verifies = st.sampled_from(DAMAGES), st.sampled_from(VERIFIES)
wants, deletes, finds = st.sampled_from(WANTS), st.sampled_from(DELETES), st.sampled_from(FINDS)
intents = st.one_of(wants, deletes, st.sampled_from(WITHDRAWALS), deletes, wants, st.sampled_from(SPOILT))


def cuts(anywhere: tuple[str, ...], deeds: SearchStrategy[tuple[Deed, ...]]) -> SearchStrategy[Cut]:
    """Cuts at one of these points; at those of them that the machine is narrowed to, if it is."""

    def of(machine: Asking) -> SearchStrategy[Cut]:
        where = [point for point in anywhere if point in machine.narrowed] or anywhere
        return st.builds(Cut, st.sampled_from(where), st.sampled_from([0, 0, 0, 0, 1]), deeds)

    return st.runner().flatmap(of)


def while_it_works(*often: Deed) -> SearchStrategy[tuple[Deed, ...]]:
    """Choose deeds in the midst of the reconciler's work; those named are the most likely."""
    a_deed = st.sampled_from([(deed,) for deed in often])
    return st.one_of(
        a_deed,
        st.sampled_from([(KILL,), (KILL,), (REFUSE,)]),
        a_deed,
        a_deed,
        st.tuples(st.one_of(intents, finds)),
        st.tuples(intents, st.sampled_from([KILL, LOOK, REFUSE])),
    )


while_one_reads = st.one_of(
    st.sampled_from([RECYCLE, (Deed("delete", how="client"),), RECYCLE, RECYCLE[:2]]),
    st.tuples(st.one_of(intents, st.sampled_from(REFS)), st.just(SETTLE)),
)
while_one_asks = st.sampled_from([(SETTLE,), (KILL,), (LOOK,)])


class Asking(RuleBasedStateMachine):
    """Ask for chunks at random; check after each rule, and come to rest at the end.

    The other parts add rules to this one. A rule is one deed, or one with others in its midst. A machine that is
    `narrowed` looks for a fault at these points alone, which takes less time.
    """

    narrowed: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Path(tempfile.mkdtemp(prefix="fsdm-world-", dir=MEMORY)))

    @initialize(available=st.lists(st.tuples(wants, chunks), max_size=3))
    def some_are_available(self, available: list[tuple[Deed, int]]) -> None:
        for deed, chunk in available:
            self.world.do(deed.on(chunk))
        self.world.do(SETTLE)

    @rule(deed=intents, chunk=chunks)
    def somebody_asks(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(chunk))

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            if not self.world.broken:  # else what broke first is to be told
                self.world.finish()
        finally:
            self.world.close()


class Clients(Asking):
    """Clients are overtaken by the reconciler while they place a marker, or killed."""

    @rule(deed=st.one_of(wants, deletes), chunk=chunks, cut=cuts(points.CLIENT, while_one_asks))
    def a_client_asks_and_is_overtaken_or_killed(self, deed: Deed, chunk: int, cut: Cut) -> None:
        self.world.do(replace(deed, how="client").on(chunk), cut.on(chunk))


class Readers(Asking):
    """Readers find and keep refs, while others ask and the reconciler does all that was asked for."""

    @rule(deed=st.one_of(finds, st.sampled_from(REFS)), chunk=chunks)
    def a_ref_is_taken_cloned_or_closed(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(self.world.one_that_is_here(chunk)))

    @rule(deed=finds, chunk=chunks, cut=cuts(points.READER, while_one_reads))
    def a_reader_finds_while_others_act(self, deed: Deed, chunk: int, cut: Cut) -> None:
        self.world.do(deed.on(self.world.one_that_is_here(chunk)), cut)

    @rule()
    def the_reconciler_settles(self) -> None:
        self.world.do(SETTLE)


class Bringing(Asking):
    """Fetch and publish while others act; the reconciler is killed, or its disk is full."""

    @rule(deed=wants, chunk=chunks, cut=cuts(points.BRINGING, while_it_works(*WITHDRAWALS[:1], *CARELESS)))
    def something_is_wanted_and_worked_on(self, deed: Deed, chunk: int, cut: Cut) -> None:
        self.world.do(deed.on(chunk))
        self.world.run(4, cut.on(chunk))


class Removing(Asking):
    """Retire deleted chunks while others act; the reconciler is killed, or its disk is full."""

    @rule(
        deed=deletes,
        chunk=chunks,
        cut=cuts(points.REMOVING, while_it_works(WITHDRAWALS[1], WANTS[0], WITHDRAWALS[1], FINDS[0], KILL)),
    )
    def something_is_deleted_and_worked_on(self, deed: Deed, chunk: int, cut: Cut) -> None:
        chunk = self.world.one_that_is_here(chunk)
        self.world.do(deed.on(chunk))
        self.world.run(4, cut.on(chunk))


class Judging(Asking):
    """The reconciler judges markers, and others place or remove some in its midst; it is killed."""

    @rule(deed=intents, chunk=chunks, cut=cuts(points.MARKER, while_it_works(*WITHDRAWALS[:2], *CARELESS)))
    def a_marker_is_judged(self, deed: Deed, chunk: int, cut: Cut) -> None:
        self.world.do(deed.on(chunk))
        self.world.run(4, cut.on(chunk))

    @rule(asked=st.sampled_from(BOTH), chunk=chunks, cut=cuts(points.CHANGING, st.sampled_from(CARELESS_ALONE)))
    def one_of_two_markers_is_overruled(self, asked: tuple[Deed, Deed], chunk: int, cut: Cut) -> None:
        for deed in asked:
            self.world.do(deed.on(chunk))
        self.world.run(4, cut.on(chunk))

    @rule(chunk=chunks, version=st.integers(0, 2))
    def a_delete_follows_within_the_tick_of_a_want_that_was_seen(self, chunk: int, version: int) -> None:
        self.world.reconciling.start()
        self.world.do(Deed("want", chunk, version, "mv"))
        self.world.do(Deed("look", tied=True))
        self.world.do(Deed("delete", chunk, how="touch", tied=True))
        self.world.run(2)

    @rule()
    def the_reconciler_looks(self) -> None:
        self.world.reconciling.start()
        self.world.do(LOOK)


class Verifying(Asking):
    """Change bytes and verify them, while refs are held and others act."""

    @rule(
        damage=damages,
        verify=verifies,
        chunk=chunks,
        cut=cuts(points.VERIFYING, while_it_works(*CARELESS, VERIFIES[0], DAMAGES[0])),
    )
    def what_is_damaged_is_verified(self, damage: Deed, verify: Deed, chunk: int, cut: Cut) -> None:
        self._damage_and_verify(damage, verify, chunk, cut)

    @rule(chunk=chunks, cut=cuts(points.RENEWING, while_it_works(*WITHDRAWALS[:2], *CARELESS)))
    def what_is_damaged_comes_back(self, chunk: int, cut: Cut) -> None:
        self._damage_and_verify(DAMAGES[0], VERIFIES[0], chunk, cut)

    def _damage_and_verify(self, damage: Deed, verify: Deed, chunk: int, cut: Cut) -> None:
        chunk = self.world.one_that_is_here(chunk)
        for deed in (damage, verify):
            self.world.do(deed.on(chunk))
        self.world.run(5, cut.on(chunk))

    @rule(deed=st.one_of(verifies, damages), chunk=chunks)
    def bytes_change_or_are_verified(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(self.world.one_that_is_here(chunk)))

    @rule(deed=st.one_of(st.sampled_from(FINDS[:2]), st.sampled_from(REFS[3:])), chunk=chunks)
    def a_ref_is_taken_or_closed(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(chunk))

    @rule(deed=st.sampled_from([SETTLE, Deed("wait", how="long"), STOP]))
    def the_reconciler_goes_on(self, deed: Deed) -> None:
        self.world.do(deed)


class Caching(Asking):
    """Register, acquire and evict chunks, which are held, wanted and deleted as well; the reconciler is killed."""

    @rule(
        deed=st.sampled_from([*EVICTS, *ACQUIRES, *REGISTERS]),
        chunk=chunks,
        cut=cuts(points.EVICTING, while_it_works(*EVICTS, *ACQUIRES, *REGISTERS, *WITHDRAWALS[:1], KILL)),
    )
    def a_request_is_worked_on(self, deed: Deed, chunk: int, cut: Cut) -> None:
        self.world.do(deed.on(chunk))
        self.world.run(4, cut.on(chunk))

    @rule(deed=st.sampled_from([*EVICTS, *ACQUIRES, *REGISTERS, *UNREGISTERS]), chunk=chunks)
    def a_request_is_left(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(chunk))

    @rule(chunk=chunks, cut=cuts(points.EVICTING, while_it_works(WANTS[0], ACQUIRES[0], FINDS[0], KILL)))
    def what_came_when_asked_for_is_evicted(self, chunk: int, cut: Cut) -> None:
        for deed in (REGISTERS[0], SETTLE, ACQUIRES[0], SETTLE, Deed("wait", how="long"), SETTLE, EVICTS[0]):
            self.world.do(deed.on(chunk))
        self.world.run(4, cut.on(chunk))

    @rule(chunk=chunks, evict=st.sampled_from(EVICTS))
    def what_was_wanted_since_is_to_go(self, chunk: int, evict: Deed) -> None:
        for deed in (REGISTERS[0], SETTLE, Deed("want", how="mv"), SETTLE, evict, SETTLE):
            self.world.do(deed.on(chunk))

    @rule(deed=st.one_of(finds, st.sampled_from(REFS)), chunk=chunks)
    def a_ref_is_taken_or_closed(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(self.world.one_that_is_here(chunk)))

    @rule(deed=st.sampled_from([SETTLE, LOOK, STOP, Deed("wait", how="long")]))
    def the_reconciler_goes_on(self, deed: Deed) -> None:
        self.world.do(deed)


class Everything(Clients, Readers, Bringing, Removing, Judging, Verifying):
    """All of that, and a source that fails, work that is left lying, restarts, and time that passes."""

    @rule(how_many=st.integers(0, 2))
    def not_all_work_is_done(self, how_many: int) -> None:
        self.world.run(1, None, how_many)

    @rule(deed=st.sampled_from(WEATHER), chunk=chunks)
    def the_world_around_changes(self, deed: Deed, chunk: int) -> None:
        self.world.do(deed.on(chunk))
