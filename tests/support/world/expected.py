"""The model: which outcomes the intents so far allow for each chunk."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.world.clocks import Clocks
from tests.support.world.disk import Disk
from tests.support.world.points import Points
from tools.support.versions import Version


@dataclass
class Model:
    """The allowed outcomes of one chunk; None stands for "not here".

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

    def allow(self, *outcomes: Version | None) -> None:
        """It ends as one of these, and may be away meanwhile, unless there is but one."""
        self.is_to_be(*outcomes)
        if self.outcomes != {self.arrived}:
            self.arrived = None

    def stands(self, version: Version) -> None:
        self.placed, self.seen, self.spoilt = version, False, False


@dataclass
class Expected:
    """The models of all chunks, and how each intent changes them."""

    _disk: Disk
    _clocks: Clocks
    _points: Points

    def __post_init__(self) -> None:
        self.models = [Model() for _ in self._disk.ids]
        self.registered: dict[int, bytes] = {}  # the texts that stand, whatever is fetched, wanted or evicted

    def check_registered(self) -> None:
        """See that each registration stands that nobody has withdrawn or deleted."""
        for i, text in self.registered.items():
            there = os.path.isfile(self._disk.known(i)) and Path(self._disk.known(i)).read_bytes()
            assert there == text, f"the registration of {self._disk.ids[i]} has gone, though nobody asked for that"

    def wanted(self, i: int, version: Version) -> None:
        model = self.models[i]
        if model.arrived is not version:
            model.arrived = None
        model.is_to_be(version)
        model.stands(version)

    def deleted(self, i: int, *, is_new: bool) -> None:
        """Take in a delete placed without a look at the want: the later counts, then the one seen."""
        model = self.models[i]
        self.is_to_go(i)
        if not self._is_tied(i) or model.spoilt:
            model.is_to_be(None)
        elif self._points.busy in {"loop", "work"} or model.seen is None or not is_new:
            model.is_to_be(None, *model.outcomes, model.placed)
        else:
            model.is_to_be(None if model.seen else model.placed)

    def is_to_go(self, i: int) -> None:
        """A delete has come: it need not be available, and a request to verify it goes unanswered."""
        self.models[i].arrived = None
        self.registered.pop(i, None)
        for damage in self._disk.damages.values():
            damage.asked = damage.asked and damage.version not in self._disk.versions[i]

    def withdrawn(self, i: int) -> None:
        """Take in that a marker has gone, or is spoilt: the other one counts, else all stays."""
        model, here = self.models[i], self._disk.version_here(i)
        is_wanted = self._disk.has_want(i) and not model.spoilt
        found: set[Version | None] = {here, *self._disk.kept(i)}
        if self._disk.is_deleted(i):
            found = set(model.outcomes) if is_wanted else {None}
        elif is_wanted:
            found = {model.placed}
        if self._points.is_amid_a_change:
            found |= {None, here, *model.outcomes}
        requests = (self._disk.layout.acquire_marker, self._disk.layout.evict_marker)
        if any(os.path.lexists(request(self._disk.ids[i])) for request in requests):
            found |= {None, self._disk.known_version(i)}
        if found != {model.arrived}:
            model.arrived = None
        model.outcomes = frozenset(found)
        self.may_be_lost(i)

    def came_back(self, path: str) -> None:
        """A want that was kept stands again: it is the one that `want/ID` held last, but nobody's new intent."""
        identity, text = self._clocks.identity(path), Path(path).read_bytes()
        assert identity is not None
        self._clocks.came_back.add(identity)
        i = self._disk.ids.index(os.path.basename(path))
        (version,) = (version for version in self._disk.versions[i] if version.chunk.to_json() == text)
        self.models[i].stands(version)

    def may_be_lost(self, i: int) -> None:
        """Allow a damaged chunk to be lost where WANT has gone, or `want/ID` is spoilt."""
        directory, model = self._disk.directory_of(i), self.models[i]
        if directory is None or self._disk.damage_of(i) is None:
            return
        if model.spoilt or not (directory / "WANT").exists():
            model.is_to_be(None, *model.outcomes)

    def looked(self, *, in_order: bool) -> None:
        """The reconciler has looked; where others came in its midst, nobody knows what it has seen."""
        for i, model in enumerate(self.models):
            if not in_order:
                model.seen = model.seen or None
            elif self._disk.has_want(i) and not self._disk.is_deleted(i):
                model.seen = True

    def restarted(self) -> None:
        """Forget what the reconciler had seen: of two tied markers, the want may win now."""
        for i, model in enumerate(self.models):
            model.seen = False
            if self._disk.is_deleted(i) and self._is_tied(i):
                model.is_to_be(*model.outcomes, model.placed)

    def _is_tied(self, i: int) -> bool:
        """Whether nobody can tell which of two intents is the later one."""
        want = self._disk.want(i)
        return (
            self._disk.has_want(i)
            and self._clocks.ctime(want) == self._clocks.ctime(self._disk.delete(i))
            and self._clocks.identity(want) not in self._clocks.came_back
        )
