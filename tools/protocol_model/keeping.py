"""The reconciler that keeps a chunk, step by step: fetch, publish, replace, retire.

What it decides is asked of reconcile.plan.decide. What it does then:

| here | stands for |
|---|---|
| `look` | store.scan.look, reconcile.plan.decide, and the release of a claim in reconcile.loop.Loop._decide |
| `Fetch`, `Publish`, `Confirm`, `Discard`, `Forget` | the methods of reconcile.apply.Applier with these names |
| `Quarantine`, `Renew`, `ClearVerify` | reconcile.repair, store.marker_removal.remove_marker; between: `renewing` |
| `Verify` | verify.background.BackgroundCheck.ask: see `inspecting` |
| `Retire: …`, `Clear: …` | Applier._take_out, with the looks of `_retire` and `_clear`; a refused claim stays open |

Left out: a fetch that is cut, directories that are moved by hand, the audit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from fsdm.model.state import ChunkState, Marker, Partial
from fsdm.reconcile.actions import (
    Clear,
    ClearVerify,
    Confirm,
    Discard,
    Fetch,
    Forget,
    Publish,
    Quarantine,
    Renew,
    Retire,
)
from fsdm.reconcile.memo import Memo, VerifyRequest
from fsdm.reconcile.plan import decide

from .directories import NOWHERE, Asked, Directory, Inspector, Reconciler, World, Wrong, put_directory, there
from .inspecting import begun
from .judging import ID, PLACE
from .search import Step

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Keeping:
    """The steps of the reconciler in one state."""

    world: World
    wrong: Wrong

    def steps(self) -> Iterator[Step[World]]:
        what, then = self._next()
        yield Step("reconciler", what, then)
        if self.world.crashes:
            crashes = self.world.crashes - 1
            killed = self.world._replace(reconciler=Reconciler(), inspector=Inspector(), asked=Asked(), crashes=crashes)
            yield Step("reconciler", "is killed, the next one starts", killed, must=False)

    def is_refused(self) -> bool:
        """Tell whether a reader or the inspector has a lock on what is to be claimed."""
        claim = self.world.reconciler.claim or self.world.here
        inspected = self.world.inspector.directory
        return claim == inspected or any(
            claim in {reader.child, reader.locked and reader.directory} for reader in self.world.readers
        )

    def _next(self) -> tuple[str, World]:
        world, r = self.world, self.world.reconciler
        match r.at:
            case "look":
                return self._look()
            case "Fetch":
                return self._fetch()
            case "fetching":
                return "fetch: all is there", self._at("look", whole=True)
            case "Publish" | "publishing":
                return self._publish()
            case "Confirm":
                return self._confirm()
            case "Discard":
                return "discards the partial", self._at("look", partial="", whole=False)
            case "Forget":
                return "removes the delete", self._at("look", delete=False)
            case "Quarantine" | "Renew" | "ClearVerify":
                return {"Quarantine": self._quarantine, "Renew": self._renew, "ClearVerify": self._clear_verify}[r.at]()
            case "unwant":
                same = world.want == r.want
                return "removes the want" if same else "another want stands", self._at(
                    "look", want="" if same else world.want
                )
            case "filling":
                directory = world.directories[world.here - 1]
                return "brings the rest", put_directory(
                    self._at("unwant"), world.here, directory._replace(complete=True)
                )
        return self._take_out()

    def _at(self, at: str, **changes: object) -> World:
        r = self.world.reconciler
        kept = r if at in {"unwant", "publishing", "filling"} else r._replace(want="", verify=0)
        return self.world._replace(reconciler=kept._replace(at=at), **changes)  # type: ignore[arg-type]

    def _look(self) -> tuple[str, World]:
        world, r = self.world, self.world.reconciler
        place = there(world)
        if r.held and not (world.delete or (place is not None and not place.ready)):
            r = r._replace(claim=NOWHERE, held=False)  # Loop._decide lets go
        partial = Partial.NONE if not world.partial else Partial.READY if world.whole else Partial.BEGUN
        decided = _decide(
            world.want,
            world.delete,
            partial,
            None if place is None else place.ready,
            r.held,
            world.verify,
            world.asked._replace(found=NOWHERE) if self.wrong is Wrong.ANSWERED_FIRST and world.verify else world.asked,
            quarantined=place is not None and not place.ready and place.kept,
        )
        if decided == "Verify" and world.inspector.at == "idle":
            return "looks, decides: Verify", begun(world)._replace(reconciler=r)
        at = decided if decided in _ACTIONS else "look"
        said = f"looks, decides: {decided}" if decided in _ACTIONS else "has nothing to do now"
        is_unready = place is not None and not place.ready
        at_rest = not (at != "look" or world.want or world.delete or world.verify or world.partial or is_unready)
        world = world._replace(asked=Asked() if at_rest else world.asked)
        return said, world._replace(reconciler=r._replace(at=at, want=world.want, verify=world.verify))

    def _fetch(self) -> tuple[str, World]:
        if self.world.want != self.world.reconciler.want:
            return "another want stands", self._at("look")
        return f"fetch: begins with {self.world.want}", self._at("fetching", partial=self.world.want, whole=False)

    def _publish(self) -> tuple[str, World]:
        world, r = self.world, self.world.reconciler
        if r.at == "Publish":
            if world.want != r.want or world.delete:
                return "another want, or a delete, stands", self._at("look")
            if world.partial != r.want:
                return "discards the partial of another want", self._at("look", partial="", whole=False)
            return "publish: the want stands, no delete does", self._at("publishing")
        early = self.wrong is Wrong.PUBLISHED_EARLY
        new = Directory(world.partial, ready=True, place="chunks", complete=not early)
        if world.here:
            return "publish: in the way is a directory", world._replace(fault="a chunk was published over another")
        world = self._at(
            "filling" if early else "unwant",
            partial="",
            whole=False,
            here=len(world.directories) + 1,
            directories=(*world.directories, new),
        )
        return "publishes", world

    def _confirm(self) -> tuple[str, World]:
        world, r = self.world, self.world.reconciler
        place = world.directories[world.here - 1]
        if world.want != r.want:
            return "another want stands", self._at("look")
        if place.ready and place.files == world.want:
            return "confirm: it is there", self._at("unwant")
        return "confirm: removes WANT and READY of other files", put_directory(
            self._at("look"), world.here, place._replace(ready=False, kept=False)
        )

    def _quarantine(self) -> tuple[str, World]:
        world, found = self.world, self.world.asked.found
        then = self._at("look", asked=world.asked._replace(found=NOWHERE))
        place = there(world)
        if place is None or not place.ready or (found != world.here and self.wrong is not Wrong.QUARANTINED_UNSEEN):
            return "READY is not the one that was found wrong", then
        if not place.damage:
            return "quarantines it: removes READY", then._replace(fault="a chunk that is right was quarantined")
        if self.wrong is Wrong.QUARANTINED_AWAY:
            trashed = place._replace(ready=False, place="trash")
            return "quarantines it: renames it into trash/", put_directory(
                then._replace(here=NOWHERE, want=world.want or place.files), world.here, trashed
            )
        return "quarantines it: removes READY", put_directory(then, world.here, place._replace(ready=False))

    def _renew(self) -> tuple[str, World]:
        world = self.world
        place = world.directories[world.here - 1]
        want = world.want if world.want or world.delete else place.files
        return "lets WANT be the want, if no marker stands", put_directory(
            self._at("look", want=want), world.here, place._replace(kept=False)
        )

    def _clear_verify(self) -> tuple[str, World]:
        world = self.world
        if world.verify != world.reconciler.verify and self.wrong is not Wrong.ANSWERED_ANY:
            return "another request stands", self._at("look")
        asked = Asked(found=world.asked.found)
        return "removes the request to verify", self._at("look", verify=0, asked=asked)

    def _take_out(self) -> tuple[str, World]:
        """Take a chunk out, for a delete (Retire) or because READY is missing (Clear), as `at` says."""
        world, r = self.world, self.world.reconciler
        action, _, step = r.at.partition(": ")
        place = world.directories[world.here - 1]
        let_go = world._replace(reconciler=Reconciler())
        match step:
            case "":
                claim = r.claim or world.here
                if self.is_refused() and self.wrong is not Wrong.NO_CLAIM:
                    return "claim: is refused", world._replace(reconciler=Reconciler(claim=claim, held=True))
                locked = self.wrong is not Wrong.NO_CLAIM
                return "claim: LOCK_EX", self._claimed(f"{action}: look", claim, locked=locked)
            case "look" if action == "Clear":
                if place.ready or place.kept:
                    return "sees READY or WANT, lets go", let_go
                return "sees that READY is not there", self._claimed("Clear: rename", r.claim)
            case "look" if world.want:
                return "sees a want, lets go", let_go
            case "look":
                return "sees no want", self._claimed("Retire: look again", r.claim)
            case "look again" if not world.delete:
                return "sees no delete, lets go", let_go
            case "look again":
                return "sees the delete", self._claimed("Retire: unlink", r.claim)
            case "unlink":
                then = put_directory(self._claimed("Retire: rename", r.claim), r.claim, place._replace(ready=False))
                return "removes READY", then
        trashed = put_directory(let_go._replace(here=NOWHERE), world.here, place._replace(place="trash"))
        return "renames it into trash/, lets go", trashed

    def _claimed(self, at: str, claim: int, *, locked: bool | None = None) -> World:
        r = self.world.reconciler
        locked = r.locked if locked is None else locked
        return self.world._replace(reconciler=Reconciler(at, claim, locked, r.held))


_ACTIONS = {
    action.__name__
    for action in (Fetch, Publish, Confirm, Retire, Clear, Discard, Forget, Quarantine, Renew, ClearVerify)
}


@cache
def _decide(
    want: str,
    delete: bool,
    partial: Partial,
    ready: bool | None,
    held: bool,
    verify: int,
    asked: Asked,
    *,
    quarantined: bool,
) -> str:
    state = ChunkState(
        ID,
        Marker(ord(want), 0, 0, 1) if want else None,
        Marker(1, 0, 0, 0) if delete else None,
        partial=partial,
        ready=(PLACE,) if ready else (),
        unready=(PLACE,) if ready is False else (),
        verify=Marker(verify, 0, 0, 0) if verify else None,
        quarantined=(PLACE,) if quarantined else (),
    )
    memo = Memo(
        held=int(held),
        suspect=PLACE if asked.found else None,
        asked=VerifyRequest(Marker(asked.verify, 0, 0, 0), answered=asked.answered) if asked.verify else None,
    )
    return type(decide(state, memo, 0.0)).__name__
