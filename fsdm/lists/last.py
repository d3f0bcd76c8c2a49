"""The list that was applied last, and one that is held back, on the disk: `follow/` (see `store/followed.py`).

Invariants: STATE never names a list as applied before its markers were placed; its lines are believed to be wants only
where LIST has the bytes that STATE says, and this version of fsdm has read them.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Final, Self

from fsdm import __version__
from fsdm.lists.assignment import ListText, digest_of
from fsdm.lists.difference import Before
from fsdm.lists.fetching import Version, sha256_of
from fsdm.model.errors import DataDirectoryError, ReconcilerRunsError
from fsdm.store.filesystem import CREATE, SAFE, FileSystem
from fsdm.store.flock import EXCLUSIVE, LockDescriptor, open_fd, try_flock
from fsdm.store.followed import HELD, LIST, LOCK, STATE, STATE_MAX_BYTES, path_of
from fsdm.store.json_files import read_object
from fsdm.transfer.resume_record import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.layout import Layout

FS: Final = FileSystem(durable=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A list that is held back: the sha256 of its text, that of its bytes, since when, and why."""

    sha256: str
    bytes_sha256: str
    since: float
    why: str
    chunks: int


@dataclass(frozen=True, slots=True)
class Last:
    """The document STATE: see `store.followed.Followed`.

    `version` is what the server said of the bytes that came last from `asked` (the sha256 of what was asked),
    `bytes_sha256` of those in LIST. `began_ns`, `placed_ns` and `unproven` are of the comparison with it.
    """

    url: str
    asked: str = ""
    sha256: str | None = None
    bytes_sha256: str = ""
    chunks: int = 0
    applied_at: float | None = None
    looked_at: float | None = None
    error: str = ""
    hint: str = ""
    version: Version = field(default_factory=Version)
    held_back: Held | None = None
    began_ns: int = 0
    placed_ns: int = 0
    unproven: tuple[str, ...] = ()
    boot_id: str | None = None
    fsdm: str = ""
    applied_url: str = ""

    @classmethod
    def read(cls, layout: Layout, url: str, asked: str) -> Self:
        """Read it, as far as it makes sense; of a list that was asked for elsewhere no version is known."""
        try:
            said = read_object(path_of(layout, STATE), STATE_MAX_BYTES) or {}
            held = said.get("held_back")
            last = cls(
                **{
                    **{key: value for key, value in said.items() if key in cls.__dataclass_fields__},
                    "version": Version(**said.get("version", {})),
                    "held_back": None if held is None else Held(**held),
                    "unproven": tuple(said.get("unproven", ())),
                }
            )
        except (OSError, ValueError, TypeError):
            return cls(url, asked)
        same = last.asked == asked and last.boot_id == boot_id()
        version, applied_url = last.version if same else Version(), last.applied_url or last.url
        return replace(last, url=url, asked=asked, version=version, applied_url=applied_url)

    def write(self, layout: Layout) -> None:
        """Write it, by a rename.

        Raises:
            DataDirectoryError: the disk refuses.
        """
        try:
            FS.write(path_of(layout, STATE), json.dumps(asdict(self)).encode() + b"\n", durable=False)
        except OSError as e:
            raise refused(layout, e) from e

    def lines(self, layout: Layout) -> set[bytes]:
        """Return the digests of the lines of LIST, where they are known to be wants; else none."""
        if not self.knows_its_lines:
            return set()
        try:
            with open(path_of(layout, LIST), "rb") as file:
                if sha256_of(file) != self.bytes_sha256:
                    return set()
                return {digest_of(line.strip()) for line in ListText(file, LIST).lines()}
        except (OSError, EOFError, zlib.error):
            return set()

    @property
    def knows_its_lines(self) -> bool:
        """Tell whether LIST was applied by this version of fsdm, and the machine runs since then.

        Markers are not fsynced: after a power failure some may be lost.
        """
        return self.fsdm == __version__ and self.boot_id is not None and self.boot_id == boot_id()

    @property
    def before(self) -> Before:
        """The comparison with the lines of LIST."""
        return Before(self.began_ns, self.placed_ns, frozenset(self.unproven))

    def applied(self, layout: Layout, new: str, **said: Any) -> Self:
        """Make a file LIST, whose markers have been placed, and return what is known now."""
        FS.rename(new, path := path_of(layout, LIST))
        placed_ns = os.stat(path).st_ctime_ns
        placed = replace(self.free(layout), placed_ns=placed_ns, boot_id=boot_id(), fsdm=__version__)
        return replace(placed, applied_at=time.time(), applied_url=self.url, **said)

    def hold(self, layout: Layout, new: str, held: Held) -> Self:
        """Make a file HELD, and return what is known now."""
        FS.rename(new, path_of(layout, HELD))
        return replace(self, held_back=held)

    def free(self, layout: Layout) -> Self:
        """Hold nothing back any more."""
        FS.unlink(path_of(layout, HELD))
        return replace(self, held_back=None)


@contextmanager
def new_file(layout: Layout) -> Iterator[tuple[IO[bytes], str]]:
    """Make a file in `follow/`, and give its path; it goes at the end, unless it was renamed."""
    path = path_of(layout, f".new.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(path, CREATE & ~os.O_WRONLY | os.O_RDWR, 0o644), "w+b", buffering=0) as file:
            yield file, path
    except OSError as e:
        raise refused(layout, e) from e
    finally:
        with suppress(OSError):
            FS.unlink(path)


class FollowLock(LockDescriptor):
    """`follow/LOCK`, held: this process alone follows a list here."""

    def __init__(self, layout: Layout) -> None:
        """Take it.

        Raises:
            ReconcilerRunsError: another process has it.
            DataDirectoryError: it cannot be had.
        """
        super().__init__()
        try:
            FS.mkdir(layout.follow)
            self.fd = fd = open_fd(path_of(layout, LOCK), os.O_RDWR | os.O_CREAT | SAFE)
            if not try_flock(fd, EXCLUSIVE):
                owner = os.pread(fd, 64, 0).decode(errors="replace").strip()
                what = f"another process follows a list here{f': pid {owner}' * bool(owner)}"
                raise ReconcilerRunsError(what, hint="end it first, or leave it to it")
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            for name in os.listdir(layout.follow):
                if name.startswith(".new."):  # of one that was killed
                    FS.unlink(path_of(layout, name))
        except OSError as e:
            self.close()
            raise refused(layout, e) from e
        except BaseException:
            self.close()
            raise


def refused(layout: Layout, error: OSError) -> DataDirectoryError:
    """Make the error for a disk, or modes, that refuse."""
    what = f"{error.filename or layout.follow}: {error.strerror or error}"
    return DataDirectoryError(what, hint="its owner follows a list; see who may write there, and df")
