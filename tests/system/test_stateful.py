"""Random intents, refs, restarts, faults and races, held against a model of what was asked for.

Hypothesis strings together what a `World` (tests/support/world) can do and, where something breaks, shortens it to the
few deeds that break it. `FSDM_STATEFUL=long` runs many more of them, and others each time.
"""

from pathlib import Path

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.support.machines import (
    SETTINGS,
    SETTLE,
    Asking,
    Bringing,
    Caching,
    Clients,
    Everything,
    Judging,
    Readers,
    Removing,
    Verifying,
)
from tests.support.world import Cut, Deed, World, points


@pytest.mark.parametrize("machine", [Clients, Readers, Bringing, Removing, Judging, Verifying, Caching, Everything])
def test_random_life_ends_as_was_asked_last(machine: type[Asking]) -> None:
    """Intents, refs, crashes, full disks, failing sources, and races between all of them."""
    run_state_machine_as_test(machine, settings=SETTINGS)


def test_every_point_that_a_cut_can_name_is_reached(tmp_path: Path) -> None:
    """Else the machine would look for races at places that are no longer there."""
    world = World(tmp_path)
    story = [
        *(Deed("fault", how="transient"), Deed("want", how="client"), SETTLE, Deed("wait", how="while"), SETTLE),
        *(Deed("want", version=1, how="mv"), SETTLE, Deed("find", how="client"), Deed("close_ref")),
        *(Deed("delete", how="touch"), Deed("want", how="mv"), SETTLE, Deed("want", version=1, how="mv")),
        *(Deed("delete", how="touch"), SETTLE, Deed("want", how="client"), Deed("delete", how="client"), SETTLE),
        *(Deed("want", how="mv"), SETTLE, Deed("verify", how="touch"), SETTLE),
        *(Deed("damage", how="byte"), Deed("verify", how="client"), SETTLE),
    ]
    try:
        for deed in story:
            world.do(deed.on(0))
            world.check()
        world.finish()
        world.do(Deed("want", 0, how="mv"))
        world.do(SETTLE)
        for deed in (Deed("damage", 0, how="byte"), Deed("verify", 0, how="touch")):
            world.do(deed)
        world.run(4, Cut("link want temporary", 0, (Deed("delete", 0, how="touch"),)))
        world.finish()
        gone = [Deed("rm_want"), Deed("delete", how="touch"), SETTLE]
        asked = [Deed("register", how="mv"), Deed("acquire"), SETTLE, Deed("wait", how="long"), SETTLE]
        asked += [Deed("find", how="client"), Deed("evict"), SETTLE, Deed("close_ref"), Deed("evict"), SETTLE]
        overruled = [Deed("want", how="mv"), Deed("register", how="mv"), SETTLE, Deed("acquire"), SETTLE]
        overruled += [Deed("delete", how="touch"), Deed("register", how="mv"), SETTLE, *gone[1:]]
        for deed in (*gone, *asked, *overruled):
            world.do(deed.on(1))
        world.finish()
        assert not points.ALL - world.points.reached.keys()
    finally:
        world.close()
