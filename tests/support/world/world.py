"""All parts of a world together, and what must hold between two deeds and at the end."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fsdm.client import Client
from fsdm.model.layout import Layout
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support.chunks import files_of
from tests.support.world.caching import Caching
from tests.support.world.clocks import Clocks
from tests.support.world.deeds import Cut, Deed
from tests.support.world.disk import SHAPES, Disk, versions_of
from tests.support.world.expected import Expected
from tests.support.world.hooks import Hooks
from tests.support.world.others import Others
from tests.support.world.points import Points
from tests.support.world.readers import Readers
from tests.support.world.reconciling import ALL, PASSES, Reconciling


class World:
    """A data directory below `root`, three chunks with three versions each, and all who are at work there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken = False  # something did not hold: what broke first is to be told
        self.clocks = Clocks()
        self.disk = self._make_disk()
        self.points = Points(self.disk.layout, self.disk.ids, self.do)
        self.expected = Expected(self.disk, self.clocks, self.points)
        self._end = ExitStack()
        hooks = Hooks(self.disk.layout, self.points, self.clocks, self.expected.came_back)
        self._logged = self._end.enter_context(hooks.hooked())
        client = self._end.enter_context(Client(self.disk.layout.root))
        self.readers = Readers(self.disk, self.points, client)
        parts = (self.disk, self.clocks, self.points, self.expected, self.readers)
        self.others = Others(*parts, client, root / "outside" / "canary")
        self.caching = Caching(*parts, client)
        self.reconciling = Reconciling(*parts, self.others.faults)

    def _make_disk(self) -> Disk:
        versions = [versions_of(i) for i in range(len(SHAPES))]
        outside = self.root / "outside"
        outside.mkdir()
        (outside / "canary").write_bytes(versions[0][0].chunk.to_json())
        layout = Layout(self.root / "data")
        make_layout(layout, FileSystem())
        return Disk(layout, versions, self.clocks.ctime)

    def do(self, deed: Deed, cut: Cut | None = None) -> None:
        """Do one deed; with a cut, others in its midst."""
        if not deed.tied or cut is not None:
            self.clocks.tick += 1
        (doer,) = (
            part for part in (self.others, self.readers, self.caching, self.reconciling) if hasattr(part, deed.kind)
        )
        with self._broken_by_any_error(), self.points.cut_by(cut) if cut is not None else ExitStack():
            getattr(doer, deed.kind)(deed)

    def run(self, passes: int = 1, cut: Cut | None = None, how_many: int = ALL) -> None:
        with self._broken_by_any_error():
            self.reconciling.run(passes, cut, how_many)

    def live(self, *story: Deed | Cut | tuple[Deed, Cut]) -> None:
        """Do what a story says, step by step, of chunk 0 where it names none; and come to rest.

        A step is a deed; a cut into the passes of the reconciler; or a deed, and a cut into it. Each cut is to be made.
        """
        for step in story:
            match step:
                case Deed():
                    self.do(step.on(0))
                case Cut():
                    self.run(PASSES, step.on(0))
                    assert self.points.was_cut, f"{step.point!r} is not reached"
                case deed, cut:
                    self.do(deed.on(0), cut.on(0))
                    assert self.points.was_cut, f"{cut.point!r} is not reached"
            self.check()
        self.finish()

    def one_that_is_here(self, n: int) -> int:
        """A chunk that is ready on disk; where there is none, one is asked for, and the reconciler brings it."""
        here = [i for i in range(len(self.disk.ids)) if self.disk.version_here(i) is not None]
        if not here:
            self.do(Deed("want", n, how="mv"))
            self.do(Deed("settle"))
        return here[n % len(here)] if here else n

    def check(self) -> None:
        """See that what must hold at every moment between two deeds does."""
        with self._broken_by_any_error():
            if self._logged:
                raise RuntimeError(self._logged[0])
            assert not self.points.problems, self.points.problems[0]
            self.readers.check_held()
            self.expected.check_registered()
            ready = self.disk.ready()
            assert len({version.chunk.id for version in ready.values()}) == len(ready), "one id is ready in two places"
            available = {v for v in ready.values() if not os.path.lexists(self.disk.layout.delete_marker(v.chunk.id))}
            for i, model in enumerate(self.expected.models):
                if model.arrived is not None:
                    assert model.arrived in available, f"{model.arrived} is gone, though nobody asked for that"
                (outcome,) = model.outcomes if len(model.outcomes) == 1 else (None,)
                if outcome in available and self.disk.damage_of(i) is None:
                    model.arrived = outcome
            self.readers.check_found(ready, available)
            self.disk.check_decoys()
            assert files_of(self.root / "outside") == {"canary": self.disk.versions[0][0].chunk.to_json()}

    def finish(self) -> None:
        """Close refs, mend faults, let time pass: all must come to what was asked for, and to rest."""
        self.readers.close_all()
        self.others.faults.clear()
        for i, model in enumerate(self.expected.models):
            if model.spoilt:
                self.do(Deed("rm_want", i, tied=True))
        for _ in range(PASSES):
            self.clocks.now += 400.0
            self.run()
            self.check()
            if self.reconciling.rests:
                break
        assert self.reconciling.rests, f"it does not come to rest: {self.disk.left()}"
        failed = {name for name in os.listdir(self.disk.layout.failed) if not name.startswith(".")}
        assert failed == self.disk.lost()
        for i, model in enumerate(self.expected.models):
            here, damage = self.disk.version_here(i), self.disk.damage_of(i)
            assert here in model.outcomes, f"{self.disk.ids[i]} is {here}, not {model.outcomes}"
            assert damage is None or not damage.asked, f"{damage} stays, though it was to be verified"

    def close(self) -> None:
        self.readers.close()
        self.reconciling.close()
        self._end.close()
        shutil.rmtree(self.root, ignore_errors=True)

    @contextmanager
    def _broken_by_any_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.broken = True
            raise
