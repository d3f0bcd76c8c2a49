"""Damage by the disk, requests to verify, and the inspector that reads the bytes.

| here | stands for |
|---|---|
| `changes a byte` | whatever damages the files of a chunk in its place |
| `touches verify/ID` | store.markers.place_verify |
| `the inspector` | verify.background.BackgroundCheck, in a thread of its own; reconcile.results: `verified` |

Damage that comes before a request must not be there in the end; damage after it waits for the next request. So does
what is to be deleted: then the request goes, also where the delete is overruled after that. The inspector's ref is
taken in one step here (see `holding` for the steps of a ref). Left out: the scrub, the audit, bytes that cannot be read
at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .directories import NOWHERE, Asked, Inspector, World, put_directory, there
from .search import Step

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps(world: World) -> Iterator[Step[World]]:
    """Yield what can happen next."""
    place = there(world)
    if place is not None and world.damages and not place.damage:
        damaged = put_directory(world, world.here, place._replace(damage="done"))
        yield Step("the disk", "changes a byte", damaged._replace(damages=world.damages - 1), must=False)
    if world.verifies:
        asked = world._replace(verify=world.verifies, verifies=world.verifies - 1)
        if place is not None and place.damage and not world.delete:
            asked = put_directory(asked, world.here, place._replace(damage="asked"))
        yield Step("a client", "touches verify/ID", asked, must=False)
    if world.inspector.at != "idle":
        yield Step("the inspector", *_inspect(world))


def unasked(world: World) -> World:
    """Forget the requests before a delete: they are not answered."""
    place = there(world)
    if place is None or place.damage != "asked":
        return world
    return put_directory(world, world.here, place._replace(damage="done"))


def begun(world: World) -> World:
    """Hand a request over to the inspector."""
    return world._replace(inspector=Inspector("begun", world.verify), asked=Asked(world.verify))


def _inspect(world: World) -> tuple[str, World]:
    inspector, place, r = world.inspector, there(world), world.reconciler
    match inspector.at:
        case "begun" if place is None or not place.ready or world.delete or (r.locked and r.claim == world.here):
            return "gets no ref", _answered(world, Asked())
        case "begun":
            return "takes a ref", world._replace(inspector=inspector._replace(at="reads", directory=world.here))
        case "reads":
            read = world.directories[inspector.directory - 1]
            if world.delete or not read.ready:
                return "sees that it is leaving, closes", _answered(world, Asked())
            found = inspector.directory if read.damage else NOWHERE
            closed = Inspector("has read", inspector.verify, found=found)
            return f"has read it: it is {'damaged' if found else 'right'}, closes", world._replace(inspector=closed)
    found = inspector.found or world.asked.found
    return "answers", _answered(world, Asked(inspector.verify, answered=True, found=found))


def _answered(world: World, asked: Asked) -> World:
    return world._replace(inspector=Inspector(), asked=asked._replace(found=asked.found or world.asked.found))
