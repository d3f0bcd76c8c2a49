"""The model of holding: two readers, their forks and ends, and the reconciler (`keeping`).

| here | stands for |
|---|---|
| `step 0` … `step 3` | PROTOCOL.md, "Reading"; store.refs.Refs.take and `_open_ready` |
| `closes` | store.refs.ChunkRef.close; SIGKILL does the same, at any step |
| `forks` | a descriptor that is shared: store.refs.ChunkRef.keep_over_exec, `flock -s DIR cmd`, fork in any language |
| `the eraser` | reconcile.trash.Trash, in a thread of its own |

Fair is the strictest reading: the reconciler may happen to try for its claim only in moments when it is refused, unless
it is `eager`. Left out: clones (they share one descriptor, and so one lock).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import inspecting
from .directories import GONE, NOWHERE, Directory, Reader, Reconciler, World, Wrong, put_directory, there
from .keeping import Keeping
from .search import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS = ("reader A", "reader B")
FIRST = World(
    "", False, "", False, 1, (Directory("a", True, "chunks", True),), (Reader(), Reader()), Reconciler(), 0, 0, "a"
)


@dataclass(frozen=True)
class Holding:
    """The model; `asks`: changes of mind; `crashes` of the reconciler; `forks` of readers.

    `eager`: the reconciler, once refused, misses no moment in which it would be granted its claim. `damages`: how often
    a chunk's bytes change, and `verifies`, how often a client asks for them to be verified.
    """

    wrong: Wrong = Wrong.NOTHING
    asks: int = 2
    crashes: int = 1
    forks: bool = True
    eager: bool = False
    readers: int = 2
    damages: int = 0
    verifies: int = 0

    def starts(self) -> Iterator[World]:
        yield FIRST._replace(asks=self.asks, crashes=self.crashes, damages=self.damages, verifies=self.verifies)

    def steps(self, world: World) -> Iterator[Step[World]]:
        return (step._replace(state=_noticed(step.state)) for step in self._steps(world))

    def _steps(self, world: World) -> Iterator[Step[World]]:
        reconciling = Keeping(world, self.wrong)
        if self.eager and world.reconciler.held and not reconciling.is_refused():
            yield from reconciling.steps()
            return
        yield from self._ask(world)
        for number in range(self.readers):
            yield from self._read(world, number)
        yield from inspecting.steps(world)
        yield from reconciling.steps()
        for number, directory in enumerate(world.directories, 1):
            if directory.place == "trash":
                yield Step(
                    "the eraser", "erases a directory", put_directory(world, number, directory._replace(place="erased"))
                )

    def wrong_with(self, world: World) -> str:
        inspected = world.inspector.directory
        if inspected and (world.here != inspected or world.directories[inspected - 1].place != "chunks"):
            return "a directory has left while a ref is held"
        for reader in world.readers:
            for number in ((reader.directory,) if reader.at == "holding" else ()) + (reader.child,):
                if number and (world.here != number or world.directories[number - 1].place != "chunks"):
                    return "a directory has left while a ref is held"
        if any(d.ready and d.place == "chunks" and not d.complete for d in world.directories):
            return "a chunk is available and not complete"
        return world.fault

    def settled(self, world: World) -> bool:
        place = there(world)
        return (
            world.reconciler.at == "look"
            and not world.want
            and not world.delete
            and not world.partial
            and not world.verify
            and world.inspector.at == "idle"
            and (place is None or place.damage != "asked")
            and (place is None if world.last == GONE else place is not None and place.ready)
            and (place is None or place.files == world.last)
            and all(directory.place != "trash" for directory in world.directories)
        )

    def show(self, world: World) -> str:
        place = there(world)
        parts = [f"want {world.want}"] if world.want else []
        parts += ["delete"] if world.delete else []
        parts += [f"verify {world.verify}"] if world.verify else []
        parts += [f"partial {world.partial}"] if world.partial else []
        if place is None:
            parts.append("nothing here")
        else:
            ready = ", READY" if place.ready else ", WANT" if place.kept else ""
            parts.append(f"directory {world.here}, files {place.files}{ready}{', damaged' if place.damage else ''}")
        for reader, name in zip(world.readers, READERS, strict=True):
            if reader.directory:
                parts.append(f"{name} {reader.at} {reader.directory}")
            if reader.child:
                parts.append(f"its child holds {reader.child}")
        if world.reconciler.locked:
            parts.append(f"claimed {world.reconciler.claim}")
        return f"| {', '.join(parts)}"

    # -------------------------------------------------------------------------------------------------------- clients

    def _ask(self, world: World) -> Iterator[Step[World]]:
        if world.asks:
            asked = world._replace(asks=world.asks - 1)
            if not world.delete:
                deleted = inspecting.unasked(asked)._replace(want="", delete=True, last=GONE)
                yield Step("a client", "deletes", deleted, must=False)
            for files in "ab":
                if world.want != files:
                    wanted = asked._replace(want=files, delete=False, last=files)
                    yield Step("a client", f"wants {files}", wanted, must=False)

    # -------------------------------------------------------------------------------------------------------- readers

    def _read(self, world: World, number: int) -> Iterator[Step[World]]:
        reader, who = world.readers[number], READERS[number]
        if reader.at == "idle":
            if self._may_begin(world):
                begun = reader._replace(at="begun")
                looked = "has not looked" if self.wrong is Wrong.NO_STEP_0 else "it may be available"
                yield Step(who, f"step 0: {looked}", _reads(world, number, begun), must=False)
        else:
            what, then = self._go_on(world, reader)
            yield Step(who, what, self._checked(_reads(world, number, then), then))
            if reader.at != "holding":
                yield Step(who, "is killed", _reads(world, number, _closed(reader)), must=False)
        if self.forks and reader.at == "holding" and not reader.child:
            yield Step(who, "forks", _reads(world, number, reader._replace(child=reader.directory)), must=False)
        if reader.child:
            done = reader._replace(child=NOWHERE)
            if self.wrong is Wrong.LOCK_UN:
                yield Step(f"child of {who}", "LOCK_UN", _reads(world, number, done._replace(locked=False)))
            else:
                yield Step(f"child of {who}", "closes", _reads(world, number, done))

    def _may_begin(self, world: World) -> bool:
        if self.wrong is Wrong.NO_STEP_0:
            return True
        place = there(world)
        ready = place is not None and place.ready
        return not world.delete and (ready or self.wrong is Wrong.NO_READY_AT_STEP_0)

    def _go_on(self, world: World, reader: Reader) -> tuple[str, Reader]:
        """Do one of steps 1 to 3 of "Reading", or the release."""
        closed = _closed(reader)
        ready = reader.directory and world.directories[reader.directory - 1].ready
        if self.wrong is Wrong.READY_BY_PATH:
            ready = world.here and world.directories[world.here - 1].ready
        refused = world.reconciler.locked and world.reconciler.claim == reader.directory
        early = self.wrong is Wrong.READY_BEFORE_LOCK
        match reader.at:
            case "begun" if world.here:
                return "step 1: opens it", reader._replace(at="opened", directory=world.here)
            case "begun":
                return "step 1: there is none", closed
            case "opened" if early:
                return ("READY is there", reader._replace(at="sure")) if ready else ("no READY, closes", closed)
            case "opened" | "sure" if refused:
                return "step 2: is refused, closes", closed
            case "opened" | "sure":
                at = "saw READY" if reader.at == "sure" else "locked"
                return "step 2: LOCK_SH", reader._replace(at=at, locked=True)
            case "locked" if not ready:
                return "step 3: no READY, closes", closed
            case "locked" if self.wrong is Wrong.NO_DELETE_AFTER_LOCK:
                return "step 3: READY is there", reader._replace(at="holding")
            case "locked":
                return "step 3: READY is there", reader._replace(at="saw READY")
            case "saw READY" if world.delete:
                return "step 3: deleted, closes", closed
            case "saw READY":
                return "step 3: not deleted; it has a ref", reader._replace(at="holding")
        return "closes", closed

    def _checked(self, world: World, then: Reader) -> World:
        if then.at == "holding" and not then.available:
            return world._replace(fault="a ref was given, and the chunk was not available at any time since its lock")
        return world


def _noticed(world: World) -> World:
    place = there(world)
    if place is None or not place.ready or world.delete:
        return world
    one, two = (
        reader._replace(available=reader.available or (reader.locked and reader.directory == world.here))
        for reader in world.readers
    )
    return world._replace(readers=(one, two))


def _closed(reader: Reader) -> Reader:
    return Reader(child=reader.child)


def _reads(world: World, number: int, reader: Reader) -> World:
    one, two = world.readers
    return world._replace(readers=(reader, two) if number == 0 else (one, reader))
