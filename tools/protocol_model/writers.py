"""The steps of careful and careless clients; each can be killed between any two of them.

| here | stands for |
|---|---|
| `careful want` | store.markers.place_want: the lock, the temporary file and its rename; the unlink and the close |
| `careful delete` | store.markers.place_delete: the lock and `_touch`; then the unlink and the close |
| `mv` | `cat > want/.new; mv want/.new want/ID` of the README, or any program that renames without the lock |
| `cp` | `cp x want/ID`: the file is there, empty, before its text is; only where none stands, so not in place |
| `careful register` | store.markers.place_known: the lock and the rename; then both unlinks and the close |
| `mv known` | `mv known/.new known/ID`, without the lock |
| `touch` | `touch delete/ID`: makes a marker, or makes the one that stands the later intent |
| `rm` | `rm want/ID`: see `withdrawing` |

A step may be several system calls where no process can see what lies between them, or where none minds.

The time limit of a client on the lock (store.markers.CLIENT_WAIT_S) is left out: here a lock is always free in time.
A client that goes on without it is as exact as a careless one, and those are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .markers import GONE, KNOWN, NONE, Marker, World, Writer, Wrong, free_inode, next_serial
from .search import Step
from .withdrawing import GOES_ON, can_withdraw, withdrawn

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("A", "B")
FILES = ("a", "b")
IDLE = Writer()
CAREFUL = frozenset({"careful want", "careful delete"})
CARELESS = frozenset({"mv", "cp", "touch"})


def steps(world: World, number: int, deeds: frozenset[str], wrong: Wrong) -> Iterator[Step[World]]:
    """Yield what writer `number` can do next; to begin with, one of `deeds`."""
    writer = world.writers[number]
    who = f"writer {NAMES[number]}"
    if writer.at != "idle":
        what, then = _go_on(world, number, wrong)
        yield Step(who, what, then)
        yield Step(who, "is killed", _killed(world, number), must=False)
    elif writer.left:
        begun = _with(world, number, writer._replace(left=writer.left - 1))
        for what, then in _begin(begun, number, deeds, wrong):
            yield Step(who, what, then, must=False)


def _begin(world: World, number: int, deeds: frozenset[str], wrong: Wrong) -> Iterator[tuple[str, World]]:
    writer = world.writers[number]
    locked = world._replace(lock=NAMES[number]) if wrong is not Wrong.NO_LOCK else world
    first = "place" if wrong is not Wrong.OPPOSITE_FIRST else "overrule"
    for kind in ("want", "delete", "register"):
        if f"careful {kind}" in deeds and (not world.lock or wrong is Wrong.NO_LOCK):
            what, then = _care(locked, number, f"{first} {kind}", wrong)
            yield f"flock want/, {what}", then
    if "mv" in deeds:
        yield "mv want/.new want/ID", _wanted(world, number, wrong)
    if "mv known" in deeds:
        yield "mv known/.new known/ID", _known(world)
    if "cp" in deeds and world.want is None:
        empty = Marker(free_inode(world), world.tick, world.tick, NONE, next_serial(world))
        yield "cp: create want/ID", _with(world._replace(want=empty), number, writer._replace(at="cp", new=empty))
    if "rm" in deeds and can_withdraw(world):
        yield "rm want/ID", withdrawn(world)
    if "touch" in deeds:
        yield "touch delete/ID", _deleted(world, wrong)


def _go_on(world: World, number: int, wrong: Wrong) -> tuple[str, World]:
    writer = world.writers[number]
    if writer.at == "cp":
        return "cp: write the text", _with(_written(world, number), number, writer._replace(at="idle", new=None))
    what, then = _care(world, number, writer.at, wrong)
    asked = {"want": FILES[number], "delete": GONE, "register": KNOWN}[writer.at.split()[1]]
    return f"{what}, let go", _done(then, number, asked)


def _care(world: World, number: int, deed: str, wrong: Wrong) -> tuple[str, World]:
    """Do one of the two steps of a careful call; the other one is next."""
    step, kind = deed.split()
    next_at = world.writers[number]._replace(at=f"{'overrule' if step == 'place' else 'place'} {kind}")
    match deed:
        case "place want":
            return "rename to want/ID", _with(_wanted(world, number, wrong), number, next_at)
        case "place delete":
            return "touch delete/ID", _with(_deleted(world, wrong), number, next_at)
        case "place register":
            return "rename to known/ID", _with(_known(world), number, next_at)
        case "overrule register":
            return "unlink delete/ID and want/ID", _with(world._replace(delete=None, want=None), number, next_at)
        case "overrule delete":
            return "unlink want/ID and known/ID", _with(world._replace(want=None, known=None), number, next_at)
        case "overrule want":
            return "unlink delete/ID", _with(world._replace(delete=None), number, next_at)
    raise AssertionError(deed)


def _with(world: World, number: int, writer: Writer) -> World:
    one, two = world.writers
    return world._replace(writers=(writer, two) if number == 0 else (one, writer))


def _killed(world: World, number: int) -> World:
    lock = "" if world.lock == NAMES[number] else world.lock
    return _with(world._replace(lock=lock), number, IDLE)


def _asked(world: World, last: str) -> World:
    return world._replace(last=last, firm=False, withdrawn=False)


def _done(world: World, number: int, files: str) -> World:
    """End a careful call; what came without the lock amid it is earlier, unless out of reach."""
    lock = "" if world.lock == NAMES[number] else world.lock
    own = world.delete if files == GONE else world.known if files == KNOWN else world.want
    world = _with(world._replace(lock=lock), number, Writer(left=world.writers[number].left))
    amid, world = world.amid, world._replace(amid=False)
    if files not in {GONE, KNOWN} and amid:  # a want leaves a registration that came amid it
        return _asked(world, KNOWN) if world.last == GONE else world
    if files == KNOWN and own is not None and _came_later_want(world, own):
        return withdrawn(world)
    if own is not None and own.files != files:  # replaced
        return _asked(world, own.files)
    if own is not None and world.aside is not None and world.aside.marker.serial > own.serial:
        return world  # a cp has written to what is aside
    return world._replace(last=files, firm=True, withdrawn=False)


def _wanted(world: World, number: int, wrong: Wrong) -> World:
    """Rename a want into place; its temporary file may as well be written in this instant."""
    marker = Marker(free_inode(world), world.tick, world.tick, FILES[number], next_serial(world))
    return _asked(world._replace(want=marker), marker.files)


def _known(world: World) -> World:
    """Rename a registration into place."""
    marker = Marker(free_inode(world), world.tick, world.tick, KNOWN, next_serial(world))
    amid = any(writer.at == "overrule want" for writer in world.writers)
    return _asked(world._replace(known=marker), KNOWN)._replace(amid=amid)


def _came_later_want(world: World, own: Marker) -> bool:
    """Tell whether a careless want came amid a careful registration, and is, or is just being, carried out."""
    r = world.reconciler
    going_on = r.at in GOES_ON and r.want is not None and r.want.ctime > own.ctime
    return going_on or world.wanted > own.ctime


def _deleted(world: World, wrong: Wrong) -> World:
    """Touch the delete: open(O_CREAT) and utime at once (in between: store.markers._touch)."""
    there, serial = world.delete, next_serial(world)
    if there is None:
        return _asked(world._replace(delete=Marker(free_inode(world), world.tick, world.tick, GONE, serial)), GONE)
    if there.ctime == there.mtime == world.tick:
        return world  # nothing has changed that anybody could see
    touched = there._replace(ctime=world.tick, mtime=world.tick, serial=serial)
    if world.aside is not None and world.aside.marker.ino == there.ino:  # it is just being put back
        world = world._replace(aside=world.aside._replace(marker=touched))
    return _asked(world._replace(delete=touched), GONE)


def _written(world: World, number: int) -> World:
    """Write the text into what has become of the file: it may be on its way out, or gone."""
    created = world.writers[number].new
    assert created is not None
    written = created._replace(ctime=world.tick, mtime=world.tick, files=FILES[number], serial=next_serial(world))
    want, aside = world.want, world.aside
    if want is not None and want.ino == written.ino:
        world = _asked(world._replace(want=written), written.files)
    # between the last look and the unlink is the one gap (PROTOCOL.md, "Removing a marker")
    at = world.reconciler.at
    if aside is not None and aside.marker.ino == written.ino and at != "unlink the judged":
        world = world._replace(aside=aside._replace(marker=written))
        return _asked(world, written.files) if want is None and at != "unlink what was aside" else world
    return world
