"""The state while chunks are held: directories, readers, the reconciler, one id's markers.

The directories have numbers, as inodes do; a process that has opened one has it, whatever becomes of its name. Clients
change their minds in one step here, so one marker stands at a time (see `asking` for what lies in between). A want asks
for the files "a" or for the files "b".

What no process can see (ghosts): `Reader.available`; `Directory.damage`, but for the inspector; `World.last`, the later
intent; `World.fault`, what went wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

NOWHERE = 0  # the number of no directory
GONE = "-"  # what a delete asks for, in place of files

Damage = Literal["", "done", "asked"]  # of a directory's bytes, and whether a request came since


class Wrong(Enum):
    """A rule of the protocol that is broken; the value says what is done instead."""

    NOTHING = "the protocol as it is"
    READY_BEFORE_LOCK = "READY is looked for before the lock"
    READY_BY_PATH = "READY is looked for by path, not through the descriptor"
    NO_DELETE_AFTER_LOCK = "a reader does not look for the delete after its lock"
    NO_STEP_0 = "a reader does not look for anything before its lock"
    NO_READY_AT_STEP_0 = "before its lock, a reader looks for the delete only"
    LOCK_UN = "a forked child lets go by LOCK_UN"
    NO_CLAIM = "the reconciler takes no lock on what it removes"
    PUBLISHED_EARLY = "a chunk is published before all of its files are there"
    QUARANTINED_AWAY = "a damaged chunk is renamed into trash/ at once, without a claim"
    QUARANTINED_UNSEEN = "what was found of one READY counts for whichever stands there by then"
    ANSWERED_FIRST = "a request to verify goes before what was found is taken out of service"
    ANSWERED_ANY = "a request to verify goes with the one before it, whose bytes were read"


class Directory(NamedTuple):
    """A chunk's directory, wherever it stands by now."""

    files: str
    ready: bool
    place: str  # chunks, trash or erased
    complete: bool
    kept: bool = True  # whether WANT is there
    damage: Damage = ""


class Reader(NamedTuple):
    """A process that takes refs, what it has open and locked; a fork of it shares `child`."""

    at: str = "idle"
    directory: int = NOWHERE
    locked: bool = False
    child: int = NOWHERE
    available: bool = False  # ghost: whether the chunk was, at some moment since the lock was got


class Reconciler(NamedTuple):
    """Its next step, its open claim, locked or not; `held`: it was refused (Memo.held)."""

    at: str = "look"
    claim: int = NOWHERE
    locked: bool = False
    held: bool = False
    want: str = ""
    verify: int = 0


class Inspector(NamedTuple):
    """Its next step, its request, the directory that it holds, and the one it found damaged."""

    at: str = "idle"
    verify: int = 0
    directory: int = NOWHERE
    found: int = NOWHERE


class Asked(NamedTuple):
    """The reconciler's memo of requests (Memo.asked), and the directory that was `found` wrong."""

    verify: int = 0
    answered: bool = False
    found: int = NOWHERE


class World(NamedTuple):
    """The state of one id. `verify`: the number of the request that stands, or 0."""

    want: str
    delete: bool
    partial: str
    whole: bool  # whether the partial is
    here: int  # the directory that has the chunk's name
    directories: tuple[Directory, ...]
    readers: tuple[Reader, Reader]
    reconciler: Reconciler
    asks: int  # that may still come
    crashes: int
    last: str
    verify: int = 0
    verifies: int = 0  # that may still come
    damages: int = 0
    inspector: Inspector = Inspector()
    asked: Asked = Asked()
    fault: str = ""


def put_directory(world: World, number: int, directory: Directory) -> World:
    directories = list(world.directories)
    directories[number - 1] = directory
    return world._replace(directories=tuple(directories))


def there(world: World) -> Directory | None:
    """Return the directory that has the chunk's name."""
    return world.directories[world.here - 1] if world.here else None
