"""Races and crashes of a whole data directory, each told as a story that ends as was asked last.

What is checked is said by `World` (tests/support/world): after each step what must hold at any time, and at the end
that all came to what was asked for, and to rest.
"""

from pathlib import Path

import pytest

from tests.support.world import Cut, Deed, World

KILL, REFUSE, SETTLE, STOP = (Deed(kind) for kind in ("kill", "refuse", "settle", "stop"))
WANT, DELETE = Deed("want", how="mv"), Deed("delete", how="touch")
OTHER = Deed("want", version=1, how="mv")  # other files under the same id

LIVES: dict[str, list[Deed | Cut | tuple[Deed, Cut]]] = {
    "a delete comes as the chunk is published": [WANT, Cut("rename partial", 0, (DELETE,))],
    "the reconciler is killed as the chunk is published": [WANT, Cut("rename partial", 0, (KILL,))],
    "the reconciler is killed with READY gone": [WANT, SETTLE, DELETE, Cut("rename chunks", 0, (KILL,))],
    "the disk is full as a file is fetched": [WANT, Cut("receive partial", 0, (KILL,)), OTHER],
    "the disk is full as READY is written": [WANT, Cut("write partial READY", 0, (REFUSE,)), Deed("wait", how="long")],
    "a want comes while a delete waits for a reader": [
        *(WANT, SETTLE, Deed("find", how="client"), DELETE, SETTLE),
        *(WANT, SETTLE, Deed("close_ref")),
    ],
    "other files are wanted while the old ones are read": [
        *(WANT, SETTLE, Deed("find", how="client"), OTHER, SETTLE),
        *(DELETE, Deed("close_ref"), SETTLE),
    ],
    "a client is killed between its steps": [
        WANT,
        (Deed("delete", how="client"), Cut("unlink want", 0, (KILL,))),
    ],
    "a want comes in the tick in which the delete is forgotten": [
        *(WANT, SETTLE, DELETE),
        Cut("unlink delete aside", 0, (Deed("want", how="mv", tied=True),)),
    ],
    "other files are wanted as the want that was carried out goes": [WANT, Cut("rename want", 0, (OTHER,))],
    "a delete comes as damage is found": [
        *(WANT, SETTLE, Deed("damage", how="byte"), Deed("verify", how="touch")),
        Cut("unlink chunks READY", 0, (DELETE,)),
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", LIVES)
def test_life_ends_as_was_asked_last(name: str, world: World) -> None:
    try:
        world.live(*LIVES[name])
    finally:
        world.close()


def test_story_with_a_wrong_word_is_told_what_there_is(world: World) -> None:
    with pytest.raises(AssertionError, match="there is no deed 'wnat': want, delete, "):
        Deed("wnat")
    with pytest.raises(AssertionError, match="want is not done by 'scp': how='client' or 'cp' or 'mv'"):
        Deed("want", how="scp")
    with pytest.raises(AssertionError, match="'rename patrial' is no point; these are: claim chunks, "):
        world.live(WANT, Cut("rename patrial", 0, (DELETE,)))
    with pytest.raises(AssertionError, match="'unlink delete' is not reached"):
        world.live(WANT, Cut("unlink delete", 0, (DELETE,)))
    world.close()
