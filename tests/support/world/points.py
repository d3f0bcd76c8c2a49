"""The instants that a cut may name: a step, and its object (`aside`: a marker on its way out)."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from fsdm.model.layout import Layout
from fsdm.store.marker_removal import ASIDE
from tests.support.world.deeds import HERE, Cut, Deed, Killed

LOOKING: Final = ("lstat want", "lstat delete", "read want")
CHANGING: Final = ("lock", "rename want", "rename delete")
MARKER: Final = (
    *CHANGING, *LOOKING,
    "lstat want aside", "unlink want aside", "lstat delete aside", "unlink delete aside",
)  # fmt: skip
BRINGING: Final = (
    "lstat want", "read want", "fetch partial", "mkdir partial", "create partial", "receive partial",
    "fsync_dir partial", "write partial READY", "rename partial READY", "fsync_dir partial READY", "rename partial",
    "lock", "rename want", "lstat want aside", "unlink want aside",
    "unlink chunks READY", "claim chunks", "rename chunks", "write failed", "unlink failed",
)  # fmt: skip
REMOVING: Final = (
    "lstat want", "lstat delete", "claim chunks", "claim chunks", "unlink chunks READY", "rename chunks",
    "erase trash", "erase trash", "lock", "rename delete", "lstat delete aside", "unlink delete aside",
)  # fmt: skip
CLIENT: Final = (
    "lock", "open want temporary", "rename want temporary", "unlink delete",
    "open delete", "utime delete", "unlink want",
)  # fmt: skip
VERIFYING: Final = (
    "ref-lock chunks", "lstat chunks READY", "touch chunks", "write failed", "rename failed", "unlink chunks READY",
    "fsync_dir chunks", "lock", "lstat verify", "rename verify", "lstat verify aside", "unlink verify aside",
    "claim chunks", "rename chunks", "fetch partial", "rename partial",
)  # fmt: skip
RENEWING: Final = (
    "lstat delete", "open want temporary", "fsync_file want temporary", "link want temporary", "unlink want temporary",
    "lstat want", "sleep want", "fsync_file want", "unlink chunks", "claim chunks",
)  # fmt: skip
EVICTING: Final = (
    "lstat known", "read known", "lstat evict", "claim chunks", "set_mtime chunks", "unlink chunks READY",
    "rename chunks", "erase trash", "lock", "rename evict", "unlink evict aside", "rename acquire",
    "unlink acquire aside", "fetch partial", "touch partial", "rename partial", "touch chunks",
)  # fmt: skip
REGISTERING: Final = (
    "lstat known",
    "read known",
    "fsync_file known",
    "lock",
    "rename want",
    "rename delete",
    "rename known",
)
READER: Final = ("ref-lock chunks", "ref-open chunks", "ref-look delete", "ref-look chunks READY")
ALL: Final = {*MARKER, *BRINGING, *REMOVING, *CLIENT, *VERIFYING, *RENEWING, *EVICTING, *REGISTERING, *READER}
REFUSED: Final = ("mkdir", "create", "write", "rename", "fsync_file", "fsync_dir", "fetch", "receive")


class Points:
    """The points that are reached, and what is going on there; `do` does the deeds of a cut."""

    def __init__(self, layout: Layout, ids: list[str], do: Callable[[Deed], None]) -> None:
        self.reached: Counter[str] = Counter()
        self.problems: list[str] = []  # what went wrong in a deed amid another one
        self.cut: Cut | None = None
        self.was_cut = False  # whether the last cut was made
        self.busy: str | None = None  # in whose midst a cut's deeds are done: "loop", "work", "client", "reader"
        self.subject = ""  # the id that a work or a client is about
        self.locked = False  # in the midst of a change of markers
        self._layout = layout
        self._ids = ids
        self._do = do
        self._reached_in_cut = 0
        self._at = ""  # the point that a cut is at

    def reach(self, name: str, path: str) -> None:
        """Something is about to happen: the cut may be here."""
        label = self._label(name, path)
        self.reached[label] += 1
        cut = self.cut
        if cut is None or cut.point != label:
            return
        here = next((i for i, chunk_id in enumerate(self._ids) if chunk_id in path), HERE)
        if here == HERE or cut.chunk not in {HERE, here}:
            return
        self._reached_in_cut += 1
        if self._reached_in_cut <= cut.nth:
            return
        self.cut = None
        self._at = label
        for deed in cut.deeds:
            self._do_in_between(deed.on(here))
        self._at = ""

    @property
    def is_amid_a_change(self) -> bool:
        """Whether the reconciler is between two steps of a change of markers."""
        return self.busy == "work" and (self.locked or self._at.split()[:1] in (["rename"], ["unlink"], ["link"]))

    @contextmanager
    def in_midst(self, of: str, subject: str = "") -> Iterator[None]:
        """Say who acts in the block, and for which id."""
        before = self.busy, self.subject
        self.busy, self.subject = of, subject
        try:
            yield
        finally:
            self.busy, self.subject = before

    @contextmanager
    def cut_by(self, cut: Cut | None) -> Iterator[None]:
        """Have the cut's deeds done when its point is reached in the block, if it is; `was_cut` tells."""
        assert cut is None or cut.point in ALL, f"{cut.point!r} is no point; these are: {', '.join(sorted(ALL))}"
        self.cut, self._reached_in_cut = cut, 0
        try:
            yield
        finally:
            self.was_cut = cut is not None and self.cut is None
            self.cut = None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """No cut is made in the block, and nobody is at work around it."""
        before = self.cut, self.busy
        self.cut, self.busy = None, None
        try:
            yield
        finally:
            self.cut, self.busy = before

    def _do_in_between(self, deed: Deed) -> None:
        if deed.kind == "kill":
            raise Killed
        if deed.kind == "refuse":
            if self._at.split()[0] in REFUSED:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        try:
            self._do(deed)
        except Exception as e:
            self.problems.append(f"{deed} at {self._at!r}: {e!r}")

    def _label(self, name: str, path: str) -> str:
        where, _, rest = path.removeprefix(self._layout.root + "/").partition("/")
        base = rest.rpartition("/")[2]
        if base.startswith(ASIDE):
            what = " aside"
        elif "READY" in base or (name == "fsync_dir" and os.path.lexists(f"{path}/READY")):
            what = " READY"
        else:
            what = " temporary" if where in {"want", "delete", "verify", "known"} and base.startswith(".") else ""
        return "lock" if name == "lock" else f"{name} {where}{what}"
