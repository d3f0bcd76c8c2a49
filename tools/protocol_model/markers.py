"""The state while intents are carried out: markers, writers, the reconciler, one chunk.

The files that a want asks for are "a" where writer A asks, and "b" where B does. Both kinds of want have the same size.
The clock is coarse: everything between two ticks has the same time. A want that comes back of a quarantined chunk has
the mtime of the WANT that it is a copy of. The number of an inode is given away again, also within the
tick in which its file was written.

What no process can see, and the properties speak of (ghosts): `Marker.serial`, the order in which markers were placed;
`World.last`, the later intent, that is what is to be true in the end; `World.firm`, whether it was asked for with care;
`World.withdrawn`, whether it is what came of a withdrawal; `World.amid`, whether it is a registration that came while a
careful want was being placed; `World.fault`, what has gone wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

Kind = Literal["want", "delete", "known"]
Damage = Literal["", "done", "found"]  # of the chunk's bytes, and whether the reconciler has read them

GONE = "-"  # what a delete asks for, in place of files
KNOWN = "known"  # what a registration asks for: the chunk may be fetched, and may be evicted
NONE = ""
UNREADY = "unready"  # a directory without READY
OF_WANT = -1  # an mtime
BEFORE = -1  # a time before all ticks
UNREAD = "?"  # in place of the files of a want that was judged by its times alone
RECONCILER = "reconciler"


class Wrong(Enum):
    """A rule of the protocol that is broken; the value says what is done instead."""

    NOTHING = "the protocol as it is"
    UNLINK_AT_ONCE = "a marker is unlinked where it stands, without renaming it aside"
    NO_SECOND_LOOK = "a marker that was renamed aside is unlinked without looking again"
    NO_LOOK_AT_WINNER = "an overruled marker is removed without looking whether what overruled it still stands"
    BACK_OVER = "a marker is put back over whatever stands there by then"
    BACK_REGARDLESS = "a marker is put back without looking at the opposite one, and is the later intent then"
    FINISH_UNLOCKED = "what a crash left aside is finished without the lock of intents"
    NO_FINISH = "what a crash left aside is left where it is"
    FORGET_REGARDLESS = "the delete of a chunk that is gone is removed without looking for the want once more"
    WANT_BEFORE_PUBLISH = "the want is removed before its chunk is published"
    OPPOSITE_FIRST = "a careful writer removes the opposite marker before its own is in place"
    NO_LOCK = "careful writers take no lock"
    TIE_TO_DELETE = "of two markers of the same time the delete wins"
    TIE_TO_WANT = "of two markers of the same time the want wins, whatever has been seen"
    TEXT_UNSEEN = "a want that was renamed aside is unlinked without a look whether its text is the one that was read"
    TEXT_NOT_NAMED = "the name of what is aside does not say which text was read"
    DELETE_SEEN_FIRST = "the reconciler looks at the delete before it looks at the want"
    CLEARED_FIRST = "a quarantined chunk is cleared before its want has come back"
    WANT_GONE_FIRST = "WANT goes before the want of a quarantined chunk has come back"
    BACK_AGAIN = "WANT goes only while a marker stands: else the want of a quarantined chunk comes back once more"
    BACK_OVER_WANT = "the want of a quarantined chunk comes back over whatever stands there by then"
    NOT_SETTLED = "a want that came back stays where a delete came before it"
    SETTLED_SOON = "whether a delete came before a want that came back is looked for within the same tick"
    SETTLED_AT_ONCE = "a want that came back is unlinked where it stands, without renaming it aside"
    READY_BEFORE_WANT = "where other files are wanted, READY goes before WANT"
    KNOWN_KEPT = "a delete is forgotten while a registration that came before it stands"
    KNOWN_AT_ONCE = "a registration is unlinked where it stands, without renaming it aside"
    KNOWN_BACK = "a marker is put back without looking for a registration that has overruled it"
    WANTED_WHEN_WRITTEN = "a chunk counts as wanted since its WANT was written, not since its want was placed"
    NEVER_WANTED_AGAIN = "a want of what is here leaves WANT as it was, and an earlier registration is the later one"
    BACK_THOUGH_KNOWN = "the want of a quarantined chunk comes back though it was registered since"


class Marker(NamedTuple):
    """A marker; `files` is NONE while a `cp` has only created it."""

    ino: int
    ctime: int
    mtime: int
    files: str
    serial: int

    @property
    def identity(self) -> tuple[int, int, bool]:
        """See fsdm.model.state.Marker.identity."""
        return self.ino, self.mtime, self.files != NONE


def same(one: Marker | None, other: Marker | None) -> bool:
    """Compare two markers as far as a process can: fsdm.model.state.Marker.same_as."""
    return one is not None and other is not None and one.identity == other.identity


def unchanged(judged: Marker | None, other: Marker | None) -> bool:
    """Compare a marker with what stands in its place, before a rename changes its ctime."""
    return same(judged, other) and judged is not None and other is not None and judged.ctime == other.ctime


def same_text(judged: Marker, other: Marker) -> bool:
    """Tell whether another marker has the text that was read of the judged one, if it was read."""
    return judged.files in {UNREAD, other.files}


class Removal(NamedTuple):
    """The removal of a marker: the judged one, and the one that has overruled it, if any, of the kind `by`."""

    kind: Kind
    judged: Marker
    winner: Marker | None
    by: Kind = "delete"


class Aside(NamedTuple):
    """The file `.judged-INODE_MTIME_SIZE_ID`, and the marker that was judged."""

    kind: Kind
    judged: Marker
    marker: Marker


class Writer(NamedTuple):
    """A client: its next step, how many intents it may still begin, and the file it is writing."""

    at: str = "idle"
    left: int = 0
    new: Marker | None = None


class Reconciler(NamedTuple):
    """Its next step, the markers of its last look, what it is removing, and its memo."""

    at: str = "start"
    want: Marker | None = None
    delete: Marker | None = None
    removal: Removal | None = None
    opposite: int = 0  # the serial of the marker that was seen opposite to one that is to be put back
    alone: Marker | None = None
    unreadable: Marker | None = None
    known: Marker | None = None
    renewing: bool = False  # what it removes is a want that has come back


class World(NamedTuple):
    """The state of one id. `kept`: the files that WANT asks for, and `wanted`: its mtime, the ctime of its want."""

    tick: int
    want: Marker | None
    delete: Marker | None
    aside: Aside | None
    lock: str  # the holder of the flock on want/
    chunk: str
    partial: str
    writers: tuple[Writer, Writer]
    reconciler: Reconciler
    crashes: int  # that may still come
    last: str
    kept: str = NONE
    damage: Damage = ""
    firm: bool = False
    withdrawn: bool = False
    fault: str = ""
    wanted: int = BEFORE
    known: Marker | None = None
    amid: bool = False


def standing(world: World, kind: Kind) -> Marker | None:
    """Return what stands at `want/ID` or `delete/ID`."""
    return world.want if kind == "want" else world.delete if kind == "delete" else world.known


def put(world: World, kind: Kind, marker: Marker | None) -> World:
    """Put a marker at `want/ID` or `delete/ID`."""
    if kind == "known":
        return world._replace(known=marker)
    return world._replace(want=marker) if kind == "want" else world._replace(delete=marker)


def overruling(kind: Kind) -> tuple[Kind, ...]:
    """Return the kinds of markers that overrule one of this kind, where they are later."""
    kinds: dict[Kind, tuple[Kind, ...]] = {
        "want": ("delete", "known"),
        "delete": ("want", "known"),
        "known": ("delete",),
    }
    return kinds[kind]


def holds(world: World, marker: Marker) -> bool:
    """Tell whether what a marker asks for is so."""
    if marker.files == GONE:
        return world.chunk == NONE and world.known is None
    return world.chunk == marker.files


def is_pinned(world: World) -> bool:
    """Tell whether the chunk that is here may not be evicted: it was wanted, and not registered since."""
    return world.known is None or world.known.ctime <= world.wanted


def remembered(world: World) -> list[Marker]:
    """Return all markers that the reconciler could still compare with one that it finds."""
    r, aside = world.reconciler, world.aside
    known = [r.want, r.delete, r.known, r.alone, r.unreadable]
    if aside is not None:
        known.append(aside.judged)
    if r.removal is not None:
        known += [r.removal.judged, r.removal.winner]
    return [marker for marker in known if marker is not None]


def files(world: World) -> list[Marker]:
    """Return all files that are there."""
    found = [
        world.want,
        world.delete,
        world.known,
        world.aside and world.aside.marker,
        *(writer.new for writer in world.writers),
    ]
    return [file for file in found if file is not None]


def free_inode(world: World) -> int:
    """Return the lowest number that no file has."""
    used = {file.ino for file in files(world)}
    return next(number for number in range(len(used) + 1) if number not in used)


def next_serial(world: World) -> int:
    """Return a number greater than those of all markers that may still be compared."""
    known = [*files(world), *remembered(world)]
    return 1 + max([world.reconciler.opposite, *(marker.serial for marker in known)])


def show(world: World) -> str:
    """Show the state in a line: `want b@1` stands for a want of the files b, its ctime 1."""
    parts = [f"tick {world.tick}"]
    for kind in ("want", "delete", "known"):
        marker = standing(world, kind)
        if marker is not None:
            parts.append(_shown(kind, marker))
    if world.aside is not None:
        parts.append(f"aside: {_shown(world.aside.kind, world.aside.marker)}")
    if world.partial:
        parts.append(f"partial {world.partial}")
    parts.append(f"chunk {world.chunk}{', damaged' if world.damage else ''}" if world.chunk else "no chunk")
    parts += [f"WANT {world.kept}"] if world.kept and world.chunk == UNREADY else []
    parts += [f"wanted @{world.wanted}"] if world.chunk and world.known is not None else []
    later = "gone" if world.last == GONE else world.last
    return f"| {', '.join(parts)}; the later intent: {later}{', with care' if world.firm else ''}"


def _shown(kind: str, marker: Marker) -> str:
    if kind != "want":
        return f"{kind}@{marker.ctime}"
    return f"want {marker.files or 'half-written'}@{marker.ctime}"
