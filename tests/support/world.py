"""A whole data directory in one thread: its reconciler, its readers, the careless others, and what is to come of it.

`World` does what the processes around a data directory do, one deed at a time, and keeps a model: which outcomes the
intents so far allow for each chunk. Nothing runs by itself. The reconciler's crews only queue what is dispatched, and
the watch and the audit are not started, so it sees nothing but its own scans. A `Cut` runs deeds at a named point in
the middle of another one (before a step of the reconciler's file system, before a look of a reader, before a system
call of a client), which is how races and crashes happen here, each of them the same every time.

Time is the world's as well. `clock` is the reconciler's. A marker's ctime is `tick`, which deeds advance unless they
are to be tied; its mtime is different after every change, as the kernel gives it to a file that was looked at before.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections import Counter, deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from blake3 import blake3

import fsdm.store.flock
import fsdm.store.marker_removal
import fsdm.store.markers
import fsdm.store.refs
from fsdm.client import Client
from fsdm.model.documents import DataChunk, FileEntry
from fsdm.model.errors import DataDirectoryError, TransferError
from fsdm.model.layout import Layout
from fsdm.model.limits import Limits
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support.chunks import an_id, content, files_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import FileSource
    from fsdm.model.state import Marker
    from fsdm.store.refs import ChunkRef
    from fsdm.transfer.resume_record import Part

DATASETS: Final = ("d" * 64, "e" * 64)
BLOCKS: Final = range(10)
PASSES: Final = 40  # so many are more than enough to converge

HERE: Final = -1  # the chunk that a cut, or the rule, is about

# Where a cut can be: what is about to be done, and to what. `aside` is a marker on its way out.
LOOKING_POINTS: Final = ("lstat want", "lstat delete", "read want")
CHANGING_POINTS: Final = ("lock", "rename want", "rename delete")
MARKER_POINTS: Final = (
    *CHANGING_POINTS, *LOOKING_POINTS,
    "lstat want aside", "unlink want aside", "lstat delete aside", "unlink delete aside",
)  # fmt: skip
BRINGING_POINTS: Final = (
    "lstat want", "read want", "fetch partial", "mkdir partial", "create partial", "receive partial",
    "fsync_dir partial", "write partial READY", "rename partial READY", "fsync_dir partial READY", "rename partial",
    "lock", "rename want", "lstat want aside", "unlink want aside",
    "unlink chunks READY", "claim chunks", "rename chunks", "write failed", "unlink failed",
)  # fmt: skip
REMOVING_POINTS: Final = (
    "lstat want", "lstat delete", "claim chunks", "claim chunks", "unlink chunks READY", "rename chunks",
    "erase trash", "erase trash", "lock", "rename delete", "lstat delete aside", "unlink delete aside",
)  # fmt: skip
CLIENT_POINTS: Final = (
    "lock", "open want temporary", "rename want temporary", "unlink delete",
    "open delete", "utime delete", "unlink want",
)  # fmt: skip
VERIFYING_POINTS: Final = (
    "ref-lock chunks", "lstat chunks READY", "touch chunks", "write failed", "rename failed", "unlink chunks READY",
    "fsync_dir chunks", "lock", "lstat verify", "rename verify", "lstat verify aside", "unlink verify aside",
    "claim chunks", "rename chunks", "fetch partial", "rename partial",
)  # fmt: skip
RENEWING_POINTS: Final = (
    "lstat delete", "open want temporary", "fsync_file want temporary", "link want temporary", "unlink want temporary",
    "lstat want", "sleep want", "fsync_file want", "unlink chunks", "claim chunks",
)  # fmt: skip
READER_POINTS: Final = ("ref-lock chunks", "ref-open chunks", "ref-look delete", "ref-look chunks READY")
REFUSED: Final = ("mkdir", "create", "write", "rename", "fsync_file", "fsync_dir", "fetch", "receive")


class Killed(BaseException):
    """Whoever was at work is gone, between two of its steps."""


@dataclass(frozen=True, eq=False)
class Version:
    """What a chunk may be wanted as."""

    chunk: DataChunk
    files: dict[str, bytes]
    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Deed:
    """What somebody does: `kind` is a method of World. `tied`: within the same tick as what was done before."""

    kind: str
    chunk: int = HERE
    version: int = 0
    how: str = ""
    tied: bool = False

    def on(self, chunk: int) -> Deed:
        return replace(self, chunk=chunk) if self.chunk == HERE else self


@dataclass(frozen=True)
class Cut:
    """Deeds that are done at the `nth` time that `point` is reached (for `chunk`), in the middle of something else."""

    point: str
    nth: int
    deeds: tuple[Deed, ...]
    chunk: int = HERE

    def on(self, chunk: int) -> Cut:
        return replace(self, chunk=chunk, deeds=tuple(deed.on(chunk) for deed in self.deeds))


@dataclass
class Held:
    """A ref that was handed out, and what it is to show as long as it is open."""

    ref: ChunkRef
    version: Version
    path: Path
    files: dict[str, bytes]


@dataclass
class Damage:
    """What has become of a version in one directory; `asked`: it is to be verified, and was asked for after that."""

    version: Version
    files: dict[str, bytes]
    asked: bool


@dataclass
class Model:
    """What may come of one chunk in the end; None stands for "not here".

    `placed` is what `want/ID` held last. `seen`: whether the reconciler has seen that want while no delete stood (None
    where that is not known), which decides between two markers of one tick. `arrived` must stay available.
    """

    outcomes: frozenset[Version | None] = frozenset({None})
    placed: Version | None = None
    spoilt: bool = False
    seen: bool | None = False
    arrived: Version | None = None

    def is_to_be(self, *outcomes: Version | None) -> None:
        self.outcomes = frozenset(outcomes)


@dataclass
class QueueCrew:
    """Keeps what is submitted until the world runs it."""

    works: deque[Callable[[], None]]

    def submit(self, work: Callable[[], None]) -> None:
        self.works.append(work)

    def replenish(self) -> None:
        """See `Crew.hire`."""

    def resize(self, size: int) -> None:
        """See `Crew.resize`."""

    def close(self, timeout_s: float) -> bool:
        return True


class WorldFileSystem(FileSystem):
    """Tells the world of each step. Nothing is fsynced: a process that dies loses nothing by that."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._writes = False

    def step(self, name: str, path: str) -> None:
        self._world.point(name, path)

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._world.stamp(target, changed=self._writes)

    def write(self, path: str, data: bytes, **how: Any) -> None:
        self._writes = True
        try:
            super().write(path, data, **how)
        finally:
            self._writes = False

    def fsync_dir(self, path: str) -> None:
        self.step("fsync_dir", path)
        assert os.path.isdir(path)

    def fsync_file(self, fd: int, path: str) -> None:
        self.step("fsync_file", path)


class _HookedOs:
    """`os` as `fsdm.store.markers` sees it: each call that names a path is a point, and stamps what it changes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._paths: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._world.point("open", path)
        is_new = not os.path.lexists(path)
        fd = os.open(path, flags, mode)
        self._paths[fd] = path
        if is_new:
            self._world.stamp(path, changed=True)
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        os.close(fd)

    def lstat(self, path: str) -> os.stat_result:
        self._world.point("lstat", path)
        return os.lstat(path)

    def utime(self, fd: int, ns: tuple[int, int] | None = None) -> None:
        self._world.point("utime", self._paths[fd])
        os.utime(fd)
        self._world.stamp(fd, changed=True)
        if ns is not None:
            self._world.has_mtime_of_what_was_read(fd)

    def rename(self, source: str, target: str) -> None:
        self._world.point("rename", source)
        os.rename(source, target)
        self._world.stamp(target)

    def link(self, source: str, target: str, *, follow_symlinks: bool) -> None:
        os.link(source, target, follow_symlinks=follow_symlinks)
        self._world.stamp(target)
        if not os.path.basename(source).startswith(fsdm.store.marker_removal.ASIDE):
            self._world.came_back(target)

    def unlink(self, path: str) -> None:
        self._world.point("unlink", path)
        os.unlink(path)


class _HookedTime:
    """`time` as `fsdm.store.markers` sees it: the clock that ctimes are taken from is the world's tick."""

    def __init__(self, world: World) -> None:
        self._world = world

    def clock_gettime_ns(self, clock: int) -> int:
        assert clock == fsdm.store.marker_removal.CLOCK_REALTIME_COARSE
        return self._world.tick

    def sleep(self, seconds: float) -> None:
        self._world.passes_a_tick()


@dataclass
class World:
    """See the module. `chunks` is how many there are, each of them with three versions."""

    root: Path
    chunks: int = 3
    jobs: int = 1
    clock: float = 1_000_000.0
    tick: int = 1
    reconciler: Reconciler | None = None
    held: list[Held] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        self.ids = [an_id(1000 + i) for i in range(self.chunks)]
        self.versions = [self._versions(i) for i in range(self.chunks)]
        self.served = {
            file.url: version.files[name]
            for versions in self.versions
            for version in versions
            for name, file in version.chunk.files.items()
        }
        self.models = [Model() for _ in self.ids]
        self.works: deque[Callable[[], None]] = deque()
        self.outside = self.root / "outside"
        self.outside.mkdir()
        (self.outside / "canary").write_bytes(self.versions[0][0].chunk.to_json())
        self.layout = Layout(self.root / "data")
        self._fs = WorldFileSystem(self)
        make_layout(self.layout, FileSystem())
        self._decoys = {f"{self.layout.want}/notes.txt", f"{self.layout.want}/{self.ids[0]}~"}
        self._decoys |= {f"{self.layout.delete}/.hidden", f"{self.layout.chunks}/README"}
        for path in self._decoys:
            Path(path).write_text("nobody's business")
        self._changes = 0
        self._stamps: dict[int, tuple[int, int]] = {}  # inode → (ctime, mtime)
        self._read = 0  # the inode that was read last
        self._back: set[tuple[int, int]] = set()  # wants that came back by themselves
        self._damages: dict[int, Damage] = {}  # by the inode of a directory
        self._cut: Cut | None = None
        self._reached_in_cut = 0
        self._busy: str | None = None  # in whose midst a cut's deeds are done: "loop", "work", "client", "reader"
        self._looking = False
        self._subject = ""  # the id that a work or a client is about
        self._at = ""  # the point that a cut is at
        self._locked = False  # in the midst of a change of markers
        self._patches = ExitStack()
        self._patch()
        self._client = Client(self.layout.root)
        self._passer_by = Client(self.layout.root)  # lets go of what it finds at once
        self._neighbour = Client(self.layout.root)  # in the reconciler's process, it finds by the reconciler's catalog

    def _versions(self, i: int) -> list[Version]:
        shapes = [
            [(0, 4, "ab"), (0, 4, "a"), (2, 5, "b")],
            [(2, 6, "a"), (2, 5, "b"), (0, 3, "b")],
            [(0, 3, "a"), (0, 3, "ab"), (1, 4, "a")],
        ][i]
        return [self._version(i, number, *shape) for number, shape in enumerate(shapes)]

    def _version(self, i: int, number: int, start: int, end: int, names: str) -> Version:
        files = {name: content(f"{i}/{number}/{name}", 24) for name in names}
        sources = {
            name: {
                "url": f"http://source/{i}/{number}/{name}",
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            for name, data in files.items()
        }
        chunk = DataChunk(id=self.ids[i], dataset_id=DATASETS[i // 2], block_range=(start, end), files=sources)
        return Version(chunk, files, f"chunk {i} version {number}")

    # ---------------------------------------------------------------------------------------------------------- points

    def _patch(self) -> None:
        enter = self._patches.enter_context
        for module in (fsdm.store.markers, fsdm.store.marker_removal):
            enter(mock.patch.object(module, "os", _HookedOs(self)))
        enter(mock.patch.object(fsdm.store.marker_removal, "time", _HookedTime(self)))
        enter(mock.patch.object(fsdm.store.markers, "CLIENT_WAIT_S", 0.0))
        enter(mock.patch.object(fsdm.store.marker_removal, "RECONCILER_WAIT_S", 0.0))
        read_regular = fsdm.store.markers.read_regular
        lock, marker_of, take = (
            fsdm.store.markers.intents_lock,
            fsdm.store.markers.marker_of,
            fsdm.store.flock.Claim.take,
        )

        @contextmanager
        def intents_lock(layout: Layout, wait_s: float) -> Iterator[bool]:
            self.point("lock", f"{layout.want}/{self._subject}")
            with lock(layout, wait_s) as got:
                before, self._locked = self._locked, True
                try:
                    yield got
                finally:
                    self._locked = before

        def stamped(found: os.stat_result, *, limit: int | None = None) -> Marker:
            now = self.tick, int(self.clock * 1e9)  # of what somebody was killed over, before it had its name
            ctime_ns, mtime_ns = self._stamps.setdefault(found.st_ino, now)
            return replace(marker_of(found, limit=limit), ctime_ns=ctime_ns, mtime_ns=mtime_ns)

        def read(path: str, limit: int) -> Any:
            self.point("read", path)
            found = read_regular(path, limit)
            self._read = 0 if found is None else found[0].st_ino
            return found

        def claim(it: fsdm.store.flock.Claim) -> bool:
            self.point("claim", it.path)
            return take(it)

        for module in (fsdm.store.markers, fsdm.store.marker_removal):
            enter(mock.patch.object(module, "intents_lock", intents_lock))
            enter(mock.patch.object(module, "read_regular", read))
        enter(mock.patch.object(fsdm.store.markers, "marker_of", stamped))
        enter(mock.patch.object(fsdm.store.flock.Claim, "take", claim))
        self._patch_refs()
        handler = _Errors(self.logged)
        logging.getLogger("fsdm").addHandler(handler)
        self._patches.callback(logging.getLogger("fsdm").removeHandler, handler)

    def _patch_refs(self) -> None:
        open_fd, try_flock, exists = fsdm.store.refs.open_fd, fsdm.store.refs.try_flock, fsdm.store.refs.exists
        opened: dict[int, str] = {}

        def hooked_open(path: str) -> int:
            self.point("ref-open", path)
            fd = open_fd(path)
            opened[fd] = path
            return fd

        def hooked_lock(fd: int, flags: Any) -> bool:
            self.point("ref-lock", opened[fd])
            return try_flock(fd, flags)

        def hooked_look(path: str, dir_fd: int | None = None) -> bool:
            self.point("ref-look", path if dir_fd is None else f"{opened[dir_fd]}/{path}")
            return exists(path, dir_fd)

        enter = self._patches.enter_context
        enter(mock.patch.object(fsdm.store.refs, "open_fd", hooked_open))
        enter(mock.patch.object(fsdm.store.refs, "try_flock", hooked_lock))
        enter(mock.patch.object(fsdm.store.refs, "exists", hooked_look))

    def point(self, name: str, path: str) -> None:
        """Something is about to happen: the cut may be here."""
        label = self._label(name, path)
        self.reached[label] += 1
        cut = self._cut
        if cut is None or cut.point != label:
            return
        here = next((i for i, chunk_id in enumerate(self.ids) if chunk_id in path), HERE)
        if here == HERE or cut.chunk not in {HERE, here}:
            return
        self._reached_in_cut += 1
        if self._reached_in_cut <= cut.nth:
            return
        self._cut = None
        self._at = label
        for deed in cut.deeds:
            self._do_in_between(deed.on(here))
        self._at = ""

    def _do_in_between(self, deed: Deed) -> None:
        if deed.kind == "kill":
            raise Killed
        if deed.kind == "refuse":
            if self._at.split()[0] in REFUSED:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        try:
            self.do(deed)
        except Exception as e:
            self.problems.append(f"{deed} at {self._at!r}: {e!r}")

    def _label(self, name: str, path: str) -> str:
        where, _, rest = path.removeprefix(self.layout.root + "/").partition("/")
        base = rest.rpartition("/")[2]
        if base.startswith(fsdm.store.marker_removal.ASIDE):
            what = " aside"
        elif "READY" in base or (name == "fsync_dir" and os.path.lexists(f"{path}/READY")):
            what = " READY"
        else:
            what = " temporary" if where in {"want", "delete", "verify"} and base.startswith(".") else ""
        return "lock" if name == "lock" else f"{name} {where}{what}"

    @contextmanager
    def _in_midst(self, of: str, subject: str = "") -> Iterator[None]:
        before = self._busy, self._subject
        self._busy, self._subject = of, subject
        try:
            yield
        finally:
            self._busy, self._subject = before

    @contextmanager
    def cut_by(self, cut: Cut | None) -> Iterator[None]:
        """Have the cut's deeds done when its point is reached in the block, if it is."""
        self._cut, self._reached_in_cut = cut, 0
        try:
            yield
        finally:
            self._cut = None

    def stamp(self, what: str | int, *, changed: bool = False) -> None:
        """The ctime of a file is now, and so is its mtime where its content has changed."""
        found = os.fstat(what) if isinstance(what, int) else os.lstat(what)
        self._changes += 1
        mtime = (
            int(self.clock * 1e9) + self._changes
            if changed or found.st_ino not in self._stamps
            else self._stamps[found.st_ino][1]
        )
        self._stamps[found.st_ino] = self.tick, mtime

    def has_mtime_of_what_was_read(self, fd: int) -> None:
        """A copy was given the mtime of its original."""
        found = os.fstat(fd)
        self._stamps[found.st_ino] = self.tick, self._stamps[self._read][1]

    def passes_a_tick(self) -> None:
        """Somebody waits for the next tick of the clock."""
        self.point("sleep", f"{self.layout.want}/{self._subject}")
        self.tick += 1

    # ------------------------------------------------------------------------------------------------- what others do

    def do(self, deed: Deed, cut: Cut | None = None) -> None:
        """Do one deed; with a cut, others in its midst."""
        if not deed.tied or cut is not None:
            self.tick += 1
        with self._broken_by_any_error(), self.cut_by(cut) if cut is not None else ExitStack():
            getattr(self, deed.kind)(deed)

    @contextmanager
    def _broken_by_any_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.broken = True
            raise

    def want(self, deed: Deed) -> None:
        """Ask for a version: as a client, by `cp` over what is there, or by `mv` of a finished file."""
        version, path = self.versions[deed.chunk][deed.version], self._want_path(deed.chunk)
        if deed.how == "client":
            self._want_as_client(deed, version, path)
            return
        self._clear_the_way(path)
        if deed.how == "cp":
            Path(path).write_bytes(version.chunk.to_json())
            self.stamp(path, changed=True)
        else:
            self._move_in(path, version.chunk.to_json())
        self._is_wanted(deed.chunk, version)

    def _want_as_client(self, deed: Deed, version: Version, path: str) -> None:
        before = self._identity(path)
        killed, armed = False, self._cut is not None
        try:
            with self._in_midst(self._busy or "client", self.ids[deed.chunk]):
                self._client.download_chunk(version.chunk)
        except Killed:
            killed = True
        except DataDirectoryError:
            assert os.path.isdir(path), "a want was refused for no reason"
            return
        if killed and self._identity(path) == before:
            return  # it came to nothing
        self._is_wanted(deed.chunk, version)
        if armed and self._cut is None:
            self.models[deed.chunk].seen = None

    def delete(self, deed: Deed) -> None:
        """Ask for a chunk to go: as a client, or by `touch`."""
        path = self._delete_path(deed.chunk)
        if deed.how == "client":
            self._delete_as_client(deed, path)
            return
        is_new = not os.path.lexists(path)
        Path(path).touch()
        self.stamp(path, changed=True)
        self._is_deleted(deed.chunk, path, is_new=is_new)

    def _delete_as_client(self, deed: Deed, path: str) -> None:
        before = self._identity(path)
        try:
            with self._in_midst(self._busy or "client", self.ids[deed.chunk]):
                self._client.delete_chunk(self.ids[deed.chunk])
        except Killed:
            if self._identity(path) != before:
                self._is_deleted(deed.chunk, path, is_new=before is None)
            return
        model = self.models[deed.chunk]
        self._is_to_go(deed.chunk)
        model.is_to_be(None)
        model.spoilt = os.path.isdir(self._want_path(deed.chunk))

    def rm_want(self, deed: Deed) -> None:
        """`rm want/ID`: withdraw a want, if it is still there."""
        path = self._want_path(deed.chunk)
        if os.path.lexists(path):
            self._remove(path)
            self._is_withdrawn(deed.chunk)
            self.models[deed.chunk].spoilt = False

    def rm_delete(self, deed: Deed) -> None:
        """`rm delete/ID`: withdraw a delete, if it is still there."""
        path = self._delete_path(deed.chunk)
        if os.path.lexists(path):
            self._remove(path)
            self._is_withdrawn(deed.chunk)

    def touch_want(self, deed: Deed) -> None:
        """`touch want/ID`, where there is one that can be read: it is asked for once more."""
        path, model = self._want_path(deed.chunk), self.models[deed.chunk]
        if os.path.lexists(path) and not model.spoilt and model.placed is not None:
            os.utime(path)
            self.stamp(path, changed=True)
            self._is_wanted(deed.chunk, model.placed)

    def spoil(self, deed: Deed) -> None:
        """Put something at `want/ID` that is no want: half of one, one of another id, a directory, a symlink."""
        path, version = self._want_path(deed.chunk), self.versions[deed.chunk][deed.version]
        self._clear_the_way(path)
        text = version.chunk.to_json()
        if deed.how in {"half", "other"}:
            Path(path).write_bytes(
                text[: len(text) // 2] if deed.how == "half" else text.replace(b'"id":"', b'"id":"0')
            )
            self.stamp(path, changed=True)
        elif deed.how == "directory":
            if os.path.lexists(path):
                os.unlink(path)
            os.mkdir(path)
            self.stamp(path, changed=True)
        else:
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink(self.outside / "canary", path)
            self.stamp(path, changed=True)
        self._is_withdrawn(deed.chunk)
        self.models[deed.chunk].spoilt = True
        self._may_be_lost(deed.chunk)

    def damage(self, deed: Deed) -> None:
        """The disk, or somebody, changes what is available: a byte is another, a file is shorter, or gone."""
        directory = self._directory_of(deed.chunk)
        version = self._on_disk(deed.chunk)
        names = sorted(os.listdir(directory / "data")) if directory else []
        if directory is None or version is None or not names:
            return
        was = self._damage_of(deed.chunk)
        path = directory / "data" / names[deed.version % len(names)]
        data = path.read_bytes()
        if deed.how == "gone":
            path.unlink()
        elif deed.how == "short" or not data:
            path.write_bytes(data[:-1])
        else:
            path.write_bytes(bytes([(data[0] + 1) % 256]) + data[1:])
        files = files_of(directory / "data")
        self._damages[directory.stat().st_ino] = Damage(version, files, asked=was is not None and was.asked)
        for held in self.held:
            if held.path.parent == directory:
                held.files = files
        self.models[deed.chunk].arrived = None
        self._may_be_lost(deed.chunk)

    def verify(self, deed: Deed) -> None:
        """Ask for a chunk's bytes to be compared with READY."""
        path = self.layout.verify_marker(self.ids[deed.chunk])
        if deed.how == "client":
            with self._in_midst(self._busy or "client", self.ids[deed.chunk]):
                self._client.verify_chunk(self.ids[deed.chunk])
        else:
            Path(path).touch()
            self.stamp(path, changed=True)
        damage = self._damage_of(deed.chunk)
        if damage is not None and not os.path.lexists(self._delete_path(deed.chunk)):
            damage.asked = True
            self._may_be_lost(deed.chunk)

    def fault(self, deed: Deed) -> None:
        """The source of a chunk fails the next time it is asked."""
        self.faults[deed.chunk] = deed.how

    def wait(self, deed: Deed) -> None:
        """Time passes."""
        self.clock += {"blink": 0.01, "second": 1.0, "while": 4.0}.get(deed.how, 400.0)

    def _move_in(self, path: str, data: bytes) -> None:
        temporary = f"{os.path.dirname(path)}/.mv"
        Path(temporary).write_bytes(data)
        self.stamp(temporary, changed=True)
        os.rename(temporary, path)
        self.stamp(path)

    @staticmethod
    def _clear_the_way(path: str) -> None:
        if os.path.islink(path):
            os.unlink(path)
        elif os.path.isdir(path):
            os.rmdir(path)

    @staticmethod
    def _remove(path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)

    # ------------------------------------------------------------------------------------------------------- the model

    def _is_wanted(self, i: int, version: Version) -> None:
        model = self.models[i]
        if model.arrived is not version:
            model.arrived = None
        model.is_to_be(version)
        model.placed, model.seen, model.spoilt = version, False, False

    def _is_deleted(self, i: int, path: str, *, is_new: bool) -> None:
        """A delete was placed without a look at the want: the later one counts, then what the reconciler has seen."""
        model, want = self.models[i], self._want_path(i)
        self._is_to_go(i)
        tied = self._is_tied(want, path)
        if not tied or model.spoilt:
            model.is_to_be(None)
        elif self._busy in {"loop", "work"} or model.seen is None or not is_new:
            model.is_to_be(None, *model.outcomes, model.placed)
        elif model.seen:
            model.is_to_be(None)
        else:
            model.is_to_be(model.placed)

    def _is_to_go(self, i: int) -> None:
        """A delete has come: it need not be available, and a request to verify it goes unanswered."""
        self.models[i].arrived = None
        for damage in self._damages.values():
            damage.asked = damage.asked and damage.version not in self.versions[i]

    def _is_withdrawn(self, i: int) -> None:
        """A marker has gone (or is spoilt): the other one counts; where there is none, things stay as they are."""
        model = self.models[i]
        want, delete = self._want_path(i), self._delete_path(i)
        found: set[Version | None] = {self._on_disk(i), *self._kept(i)}
        if self._is_intent(want) and not model.spoilt and not os.path.lexists(delete):
            found = {model.placed}
        elif os.path.lexists(delete) and not (self._is_intent(want) and not model.spoilt):
            found = {None}
        elif os.path.lexists(delete):
            found = set(model.outcomes)
        in_midst_of_a_change = self._locked or self._at.split()[:1] in (["rename"], ["unlink"], ["link"])
        if self._busy == "work" and in_midst_of_a_change:
            found |= {None, self._on_disk(i), *model.outcomes}
        if found != {model.arrived}:
            model.arrived = None
        model.outcomes = frozenset(found)
        self._may_be_lost(i)

    def came_back(self, path: str) -> None:
        """A want that was kept stands again: it is the one that `want/ID` held last, but nobody's new intent."""
        identity, text = self._identity(path), Path(path).read_bytes()
        assert identity is not None
        self._back.add(identity)
        i = self.ids.index(os.path.basename(path))
        (version,) = (version for version in self.versions[i] if version.chunk.to_json() == text)
        model = self.models[i]
        model.placed, model.seen, model.spoilt = version, False, False

    def _kept(self, i: int) -> set[Version | None]:
        """What comes back where no marker stands, or goes: a directory that has WANT, and no READY."""
        kept = Path(self.layout.chunks).glob(f"*/*-{self.ids[i]}/WANT")
        texts = [path.read_bytes() for path in kept if not (path.parent / "READY").exists()]
        found = [version for version in self.versions[i] if version.chunk.to_json() in texts]
        return {None, *found} if found else set()

    def _may_be_lost(self, i: int) -> None:
        """What is damaged does not come back by itself where its WANT has gone, or something stands at `want/ID`."""
        directory, model = self._directory_of(i), self.models[i]
        if directory is None or self._damage_of(i) is None:
            return
        if model.spoilt or not (directory / "WANT").exists():
            model.is_to_be(None, *model.outcomes)

    def _is_tied(self, want: str, delete: str) -> bool:
        """Whether nobody can tell which of two intents is the later one."""
        return (
            self._is_intent(want)
            and self._ctime(want) == self._ctime(delete)
            and self._identity(want) not in self._back
        )

    def _restarted(self) -> None:
        """What the reconciler had seen is forgotten: where two markers are tied, the want may win now."""
        for i, model in enumerate(self.models):
            want, delete = self._want_path(i), self._delete_path(i)
            model.seen = False
            if os.path.lexists(delete) and self._is_tied(want, delete):
                model.is_to_be(*model.outcomes, model.placed)

    def _directory_of(self, i: int) -> Path | None:
        """Where a chunk is ready."""
        return next((path for path, version in self._ready().items() if version in self.versions[i]), None)

    def _damage_of(self, i: int) -> Damage | None:
        """What is wrong with the bytes of a chunk that is ready."""
        directory = self._directory_of(i)
        damage = None if directory is None else self._damages.get(directory.stat().st_ino)
        if directory is None or damage is None:
            return None
        return damage if files_of(directory / "data") == damage.files else None

    def _on_disk(self, i: int) -> Version | None:
        ready = [version for version in self._ready().values() if version in self.versions[i]]
        return ready[0] if ready else None

    def _ready(self) -> dict[Path, Version]:
        """Every directory in `chunks/` with READY, and which version it is; each must be whole."""
        found = {}
        for directory in Path(self.layout.chunks).glob("*/*"):
            if (directory / "READY").exists():
                assert {entry.name for entry in directory.iterdir()} - {"WANT", "VERIFIED"} == {"READY", "data"}
                found[directory] = self._version_of(directory, files_of(directory / "data"))
        return found

    def _version_of(self, directory: Path, files: dict[str, bytes]) -> Version:
        for version in (version for versions in self.versions for version in versions):
            place = version.chunk.place
            if (place.dataset_id, place.name) == (directory.parent.name, directory.name) and version.files == files:
                return version
        damage = self._damages.get(directory.stat().st_ino)
        if damage is not None and damage.files == files:
            return damage.version
        raise AssertionError(f"{directory.name} has {files}")

    def _available(self) -> dict[Path, Version]:
        return {
            directory: version
            for directory, version in self._ready().items()
            if not os.path.lexists(self.layout.delete_marker(version.chunk.id))
        }

    def _responsible(self, dataset_id: str, block: int, available: Iterable[Version]) -> Version | None:
        """By the letter of the protocol: the greatest start, then the smallest end, then the smallest id."""
        order = sorted(
            (chunk.block_range.start * -1, chunk.block_range.stop, chunk.id, version.name, version)
            for version in available
            if (chunk := version.chunk).dataset_id == dataset_id
            and chunk.block_range.start <= block < chunk.block_range.stop
        )
        return order[0][-1] if order else None

    def _want_path(self, i: int) -> str:
        return self.layout.want_marker(self.ids[i])

    def _delete_path(self, i: int) -> str:
        return self.layout.delete_marker(self.ids[i])

    @staticmethod
    def _is_intent(path: str) -> bool:
        return os.path.isfile(path) and not os.path.islink(path)

    def _ctime(self, path: str) -> int:
        return self._stamps[os.lstat(path).st_ino][0]

    def _identity(self, path: str) -> tuple[int, int] | None:
        if not os.path.lexists(path):
            return None
        inode = os.lstat(path).st_ino
        return inode, self._stamps[inode][1]

    # --------------------------------------------------------------------------------------------------------- readers

    def one_that_is_here(self, n: int) -> int:
        """A chunk that is ready on disk; where there is none, one is asked for, and the reconciler brings it."""
        here = [i for i in range(self.chunks) if self._on_disk(i) is not None]
        if not here:
            self.do(Deed("want", n, how="mv"))
            self.do(Deed("settle"))
        return here[n % len(here)] if here else n

    def find(self, deed: Deed) -> None:
        """Ask for a block in or near a chunk, and keep the ref (or let go at once)."""
        chunk = (self._on_disk(deed.chunk) or self.versions[deed.chunk][0]).chunk
        start, end = chunk.block_range.start, chunk.block_range.stop
        block = (start, end - 1, end, start + 1, max(start - 1, 0))[deed.version]
        client = self._passer_by if deed.how == "passer-by" else self._client
        if deed.how == "neighbour" and self.reconciler is not None:
            client, client._catalog = self._neighbour, self.reconciler.catalog
        before = set(client._refs._held)
        armed, busy = self._cut is not None, self._busy
        expected = self._responsible(chunk.dataset_id, block, self._available().values())
        with self._in_midst(busy or "reader"):
            ref = client.find_chunk(chunk.dataset_id, block)
        disturbed = busy is not None or (armed and self._cut is None)
        if ref is None:
            assert disturbed or expected is None, f"{expected} is not found at {block}"
            return
        directory = ref.path.parent
        was_held = any(place.name == directory.name for place in before)
        assert block in ref.block_range
        assert (disturbed and was_held) or not os.path.lexists(self.layout.delete_marker(ref.id)), "deleted, but found"
        assert (directory / "READY").exists() or (disturbed and directory.exists()), "found, but not there"
        files = files_of(ref.path)
        version = self._version_of(directory, files)
        assert disturbed or version is expected, f"{version} is found at {block}, {expected} is responsible"
        self.held.append(Held(ref, version, ref.path, files))
        self._check_refs()
        if deed.how == "passer-by":
            self.held.pop().ref.close()

    def clone(self, deed: Deed) -> None:
        """Take another ref to what is held (in the midst of a find of that client, another thread would wait)."""
        held = self.held[deed.version % len(self.held)] if self.held else None
        if held is not None and not held.ref._refs._mutex.locked():
            self.held.append(Held(held.ref.clone(), held.version, held.path, held.files))

    def close_ref(self, deed: Deed) -> None:
        """Let go of a ref."""
        if self.held:
            self.held.pop(deed.version % len(self.held)).ref.close()

    # ------------------------------------------------------------------------------------------------- the reconciler

    def start(self) -> None:
        """Start the reconciler, if it is not running."""
        if self.reconciler is not None:
            return
        workers = QueueCrew(self.works)
        reconciler = Reconciler(
            self.layout,
            limits=Limits(jobs=self.jobs),
            fetcher=self,
            fs=self._fs,
            crews=(workers, workers, workers),
            clock=lambda: self.clock,
            jitter=lambda: 1.0,
        )
        with self._in_midst("loop"):
            reconciler.open()
        self.reconciler = reconciler

    def stop(self, deed: Deed) -> None:
        """The reconciler ends as a kill would end it: nothing is finished, its locks are gone."""
        if self.reconciler is not None:
            self.reconciler._applier.close()
            self.reconciler = None
        self.works.clear()
        self._restarted()

    def look(self, deed: Deed) -> None:
        """One round of the loop: what is found is decided and dispatched, but not yet carried out."""
        if self.reconciler is None:
            return
        self.reconciler.loop.next_scan = 0.0
        if self._looking:  # the loop is one thread: amid a round it can only be rung
            return
        armed = self._cut
        self._looking = True
        with self._in_midst("loop"):
            try:
                self.reconciler.step(0.0)
            except OSError as e:
                assert e.errno == errno.ENOSPC  # noqa: PT017 any other is a defect
            finally:
                self._looking = False
        for i, model in enumerate(self.models):
            if self._busy is not None or (armed is not None and self._cut is None):
                model.seen = model.seen or None
            elif self._is_intent(self._want_path(i)) and not os.path.lexists(self._delete_path(i)):
                model.seen = True

    def work(self, how_many: int = 1000) -> None:
        """Carry out what was dispatched, in order."""
        while self.works and how_many:
            how_many -= 1
            work = self.works.popleft()
            subject = getattr(work, "args", (None,))[0]
            with self._in_midst("work", getattr(subject, "id", getattr(subject, "chunk_id", ""))):
                work()

    def run(self, loop: int = 1, cut: Cut | None = None, how_many: int = 1000) -> None:
        """So many passes, each with (some of) the work that it dispatches; a cut may end the one that it falls in."""
        with self._broken_by_any_error(), self.cut_by(cut):
            for _ in range(loop):
                self.clock += 0.5
                try:
                    self.start()
                    self.look(Deed("look"))
                    self.work(how_many)
                except Killed:
                    self.stop(Deed("stop"))

    def settle(self, deed: Deed) -> None:
        """Pass after pass, until there is nothing more to be done now."""
        cut, self._cut = self._cut, None
        busy, self._busy = self._busy, None
        for _ in range(PASSES):
            self.run()
            if not self.works and not self.reconciler.loop.executor and not self.reconciler.loop.work_queue._soon:  # type: ignore[union-attr]
                break
        self._cut, self._busy = cut, busy

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """The source: see `fsdm.transfer.chunk_download.Fetcher`."""
        data, i, path = self.served[source.url], int(source.url.split("/")[3]), part.path
        self.point("fetch", path)
        stop.check()
        fault = self.faults.pop(i, None)
        if fault == "permanent":
            raise TransferError("404", transient=False)
        fs.step("create", path)
        with open(path, "wb") as file:
            file.write(data[:10])
            file.flush()
            self.point("receive", path)
            stop.check()
            if fault == "transient":
                raise TransferError("the connection broke", transient=True)
            file.write(data[10:])
        assert len(data) == source.size
        fs.step("fsync_file", path)
        return FileEntry(size=len(data), blake3=blake3(data).hexdigest(), sha256=hashlib.sha256(data).hexdigest())

    # ---------------------------------------------------------------------------------------------------------- checks

    def check(self) -> None:
        """What holds at every moment between two deeds."""
        with self._broken_by_any_error():
            self._check()

    def _check(self) -> None:
        if self.logged:
            raise RuntimeError(self.logged[0])
        assert not self.problems, self.problems[0]
        self._check_refs()
        ready = self._ready()
        assert len({version.chunk.id for version in ready.values()}) == len(ready), "one id is ready in two places"
        available = {v for v in ready.values() if not os.path.lexists(self.layout.delete_marker(v.chunk.id))}
        for i, model in enumerate(self.models):
            if model.arrived is not None:
                assert model.arrived in available, f"{model.arrived} is gone, though nobody asked for that"
            (outcome,) = model.outcomes if len(model.outcomes) == 1 else (None,)
            if outcome in available and self._damage_of(i) is None:
                model.arrived = outcome
        assert sorted(self._client.list_chunks()) == sorted(version.chunk.id for version in available)
        self._check_all_blocks(ready, available)
        for path in self._decoys:
            assert Path(path).read_text() == "nobody's business"
        assert files_of(self.outside) == {"canary": self.versions[0][0].chunk.to_json()}

    def _check_refs(self) -> None:
        for held in self.held:
            assert not held.ref.closed, "a ref was closed by another's closing"
            assert held.ref.path == held.path
            assert held.path.exists(), f"{held.version} has left its place under a ref"
            assert files_of(held.path) == held.files
            fd = os.open(held.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)
            raise AssertionError(f"{held.version} may leave its place under a ref")

    def finish(self) -> None:
        """Refs are closed, faults mended, time passes: now everything must come to what was asked for, and to rest."""
        self.held, held = [], self.held
        for each in held:
            each.ref.close()
        self.faults.clear()
        for i, model in enumerate(self.models):
            if model.spoilt:
                self.rm_want(Deed("rm_want", i))
        for _ in range(PASSES):
            self.clock += 400.0
            self.run()
            self.check()
            if self._rests():
                break
        assert self._rests(), (
            f"it does not come to rest: {self._left()}, {self.reconciler and self.reconciler.passes.states}"
        )
        assert {name for name in os.listdir(self.layout.failed) if not name.startswith(".")} == self._lost()
        for i, model in enumerate(self.models):
            assert self._on_disk(i) in model.outcomes, f"{self.ids[i]} is {self._on_disk(i)}, not {model.outcomes}"
            damage = self._damage_of(i)
            assert damage is None or not damage.asked, f"{damage} stays, though it was to be verified"

    def _check_all_blocks(self, ready: dict[Path, Version], available: set[Version]) -> None:
        for dataset_id in DATASETS:
            for block in BLOCKS:
                expected = self._responsible(dataset_id, block, available)
                ref = self._passer_by.find_chunk(dataset_id, block)
                found = ref and ready.get(ref.path.parent)
                if ref is not None:
                    ref.close()
                assert found is expected, f"{found} is found at {block}, {expected} is responsible"

    def _rests(self) -> bool:
        it = self.reconciler
        if it is None or it.loop.executor or self.works or self._left():
            return False
        return it.loop.states.keys() == self._lost()

    def _lost(self) -> set[str]:
        """What was damaged, and has to be wanted again: its `failed/ID` stays to say so."""
        lost = set()
        for path in Path(self.layout.failed).glob("[!.]*"):
            is_damaged = json.loads(path.read_text())["kind"] == "damaged"
            if is_damaged and self._on_disk(self.ids.index(path.name)) is None:
                lost.add(path.name)
        return lost

    def _left(self) -> list[str]:
        layout = self.layout
        directories = (layout.want, layout.delete, layout.verify, layout.partial, layout.trash)
        paths = {f"{directory}/{name}" for directory in directories for name in os.listdir(directory)}
        return sorted(path for path in paths - self._decoys if not self._is_temporary(path))

    def _is_temporary(self, path: str) -> bool:
        """What a client that was killed leaves in `want/`: a dotfile, which nobody reads."""
        return any(os.path.basename(path).startswith(f".{chunk_id}.") for chunk_id in self.ids)

    def close(self) -> None:
        """Undo what was patched, and remove the directory."""
        for held in self.held:
            held.ref.close()
        if self.reconciler is not None:
            self.reconciler._applier.close()
        self._client.close()
        self._passer_by.close()
        self._neighbour.close()
        self._patches.close()
        shutil.rmtree(self.root, ignore_errors=True)


class _Errors(logging.Handler):
    """An error in the log is a defect: what the disk or the network do is not logged as one."""

    def __init__(self, logged: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._logged = logged

    def emit(self, record: logging.LogRecord) -> None:
        self._logged.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")
