"""The model of asking: two writers, careful and careless, and the reconciler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import judging, writers
from .markers import GONE, KNOWN, NONE, Damage, Reconciler, World, Writer, Wrong, is_pinned, show
from .renewing import is_waiting_for_the_clock
from .search import Step

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Asking:
    """The model; `deeds`: what each writer may do, and `intents` how often.

    `crashes` of the reconciler; `ticks` of the clock.

    `chunks`: what there may be to begin with. `damaged`: its bytes are, and a client has asked for them to be verified:
    so they are read, sooner or later, as often as a crash has them forgotten.
    """

    wrong: Wrong = Wrong.NOTHING
    deeds: tuple[frozenset[str], frozenset[str]] = (writers.CAREFUL, writers.CARELESS)
    intents: tuple[int, int] = (1, 1)
    crashes: int = 1
    ticks: int = 1
    chunks: tuple[str, ...] = (NONE, "a")
    damaged: bool = False

    def starts(self) -> Iterator[World]:
        one, two = (Writer(left=left) for left in self.intents)
        for chunk in self.chunks:
            last = chunk or GONE
            damage: Damage = "done" if self.damaged else ""
            yield World(
                0, None, None, None, "", chunk, NONE, (one, two), Reconciler(), self.crashes, last, chunk, damage
            )

    def steps(self, world: World) -> Iterator[Step[World]]:
        yield from judging.steps(world, self.wrong)
        for number in (0, 1):
            yield from writers.steps(world, number, self.deeds[number], self.wrong)
        is_waited_for = is_waiting_for_the_clock(world)
        if world.tick < self.ticks or is_waited_for:
            yield Step("the clock", "ticks", world._replace(tick=world.tick + 1), must=is_waited_for)
        if world.damage == "done" and world.delete is None:
            yield Step("the inspector", "finds that bytes have changed", world._replace(damage="found"))

    def wrong_with(self, world: World) -> str:
        return world.fault

    def settled(self, world: World) -> bool:
        """Tell whether all rests; a half-written `cp` stays, to be mended, also over a whole want."""
        half_written = world.want is not None and world.want.files == NONE
        return (
            world.reconciler.at == "look"
            and all(writer.at == "idle" for writer in world.writers)
            and world.delete is None
            and (world.want is None or half_written)
            and world.aside is None
            and world.partial == NONE
            and not world.damage
            and (_is_as_asked(world) or (half_written and world.last != GONE))
        )

    def show(self, world: World) -> str:
        return show(world)


def _is_as_asked(world: World) -> bool:
    """Tell whether what the later intent asks for is so; a registration that is tied with a want keeps the data."""
    if world.last == GONE:
        return world.chunk == NONE and world.known is None
    if world.last == KNOWN:
        known = world.known
        return known is not None and (world.chunk == NONE or known.ctime >= world.wanted)
    return world.chunk == world.last and is_pinned(world)
