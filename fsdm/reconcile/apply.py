"""Carrying out one action: one effect, and its outcome.

Every effect is idempotent, and looks at its own precondition again, under the lock that guards it. Nothing here waits
for a ref. Writes go data → fsync → READY → rename → fsync of the parents. Only one action runs for an id at a time.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdm.concurrency.turn import holding
from fsdm.model.errors import InvalidInputError, StaleMarkerError, StoppedError, TransferError
from fsdm.model.events import Event
from fsdm.model.layout import CACHED, MANIFEST_MAX_BYTES, PARTS, READY, WANT, Layout, Place
from fsdm.model.units import count, readable
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Action, CannotRead, Done, Failed, Held, Outcome, Quarantined, Stale, Stopped
from fsdm.reconcile.caching import may_go, request_of, use
from fsdm.reconcile.refusals import UnreadableWantError, disk_error
from fsdm.reconcile.repair import quarantine, renew
from fsdm.store import stored_want
from fsdm.store.filesystem import can_rename, exists, is_directory
from fsdm.store.flock import Claim
from fsdm.store.json_files import read_manifest
from fsdm.store.marker_removal import remove_marker, remove_request
from fsdm.store.markers import is_wanted, look_at, read_chunk
from fsdm.transfer.chunk_download import FileFetcher, fetch_chunk
from fsdm.verify.manifest_check import missing, satisfies

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import DataChunk, FileEntry, Manifest
    from fsdm.model.state import Marker
    from fsdm.reconcile.trash import Trash
    from fsdm.store.catalog import Catalog
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.scheduler import Scheduler


@dataclass(slots=True)
class Applier:
    """The effects on one data directory. `trash` takes over what is in `trash/`."""

    layout: Layout
    fs: FileSystem
    catalog: Catalog
    fetcher: FileFetcher
    scheduler: Scheduler | None
    tell: Callable[[Event], None]
    trash: Trash
    _fetching: dict[str, DataChunk] = field(default_factory=dict)
    _fetch_s: dict[str, float] = field(default_factory=dict)  # of the download of what is complete in partial/
    _marker_mutex: threading.Lock = field(default_factory=threading.Lock)  # else our workers ask for the flock in turns
    _claims: dict[Place, Claim] = field(default_factory=dict)  # of directories that refs keep from us
    _retired: set[str] = field(default_factory=set)  # taken out while there was a dataset that cannot be listed

    def apply(self, action: Action, stop: Cancellation) -> Outcome:
        """Carry out one action. Never raises for what the disk, the network or another process does."""
        try:
            return self._apply(action, stop)
        except StaleMarkerError:
            return Stale()
        except StoppedError:
            return Stopped()
        except UnreadableWantError as e:
            return CannotRead(e.want, e.error)
        except TransferError as e:
            return Failed(e, disk=False)
        except OSError as e:
            return Failed(disk_error(e), disk=True)

    def _apply(self, action: Action, stop: Cancellation) -> Outcome:
        match action:
            case actions.Fetch():
                return self._fetch(action, stop)
            case actions.Publish():
                return self._publish(action)
            case actions.Confirm():
                return self._confirm(action)
            case actions.Overrule():
                return self._overrule(action)
            case actions.Register():
                return self._register(action)
            case actions.Retire():
                return self._retire(action)
            case actions.Clear():
                return self._clear(action)
            case actions.Discard():
                self._fetch_s.pop(action.id, None)
                self._discard(self.layout.partial_of(action.id))
                return Done()
            case actions.Forget():
                return self._forget(action)
            case actions.Unregister(chunk_id, known, delete):
                return self._removed(
                    self.layout.known_marker(chunk_id), known, (self.layout.delete_marker(chunk_id), delete)
                )
            case _:
                return self._apply_to_service(action)

    def _apply_to_service(self, action: Action) -> Outcome:
        match action:
            case actions.Quarantine():
                return self._quarantine(action)
            case actions.Use():
                return use(self.layout, self.fs, action.place)
            case actions.Evict():
                return self._evict(action)
            case actions.Renew():
                with holding(self._marker_mutex):
                    return Done() if renew(self.layout, self.fs, action) else Stale()
            case actions.ClearVerify() | actions.ClearAcquire() | actions.ClearEvict():
                return self._cleared(*request_of(self.layout, action))
            case actions.Report():
                self.fs.write(self.layout.failed_of(action.id), action.failure.to_json(), durable=False)
                return Done()
            case actions.ClearFailure():
                self.fs.unlink(self.layout.failed_of(action.id))
                return Done()
            case _:  # Verify: the loop has it begun, for it may take hours
                return Stale()

    def release(self, place: Place) -> None:
        """Drop the claim on a directory that is no longer to go."""
        if (claim := self._claims.pop(place, None)) is not None:
            claim.close()

    def close(self) -> None:
        for place in [*self._claims]:
            self.release(place)

    def _fetch(self, action: actions.Fetch, stop: Cancellation) -> Outcome:
        chunk, text = self._read(action.id, action.want, known=action.known)
        wanted_ns = 0 if action.known else action.want.ctime_ns  # what comes for who asks is not wanted by that
        partial, began = self.layout.partial_of(action.id), time.monotonic()
        self.tell(Event("started", action.id, count(len(chunk.files), "file"), chunk.dataset_id, chunk.size_bytes))

        def tell_file(name: str, entry: FileEntry) -> None:
            self.tell(Event("file", action.id, f"{name}, {readable(entry.size)}", chunk.dataset_id, entry.size))

        self._fetching[action.id] = chunk
        try:
            manifest = fetch_chunk(
                chunk,
                partial,
                fs=self.fs,
                fetcher=self.fetcher,
                scheduler=self.scheduler,
                stop=stop,
                on_file=tell_file,
                meanwhile=lambda: stored_want.save_in_partial(self.fs, partial, text, wanted_ns),
            )
        except OSError:
            # on a full disk `failed/ID`, and those that may go on, need its room: so it is erased before anything else
            # is done; and after an fsync that failed nothing is known of what is in it
            if trashed := self._trash(partial):
                self.fs.erase(trashed)
            raise
        finally:
            del self._fetching[action.id]
        ready = manifest.to_json()
        if len(ready) > MANIFEST_MAX_BYTES:  # it would never be read, and the chunk would come again and again
            raise TransferError(f"READY would have {len(ready)} bytes, and {MANIFEST_MAX_BYTES} are read of one")
        self.fs.write(f"{partial}/{READY}", ready, durable=True)
        self._fetch_s[action.id] = time.monotonic() - began
        return Done(actions.Fetched(chunk, text, manifest))

    def is_free(self, chunk_id: str) -> bool:
        """Tell whether no directory in `chunks/` stands in the way of a chunk."""
        return not self.catalog.places(chunk_id)

    def _publish(self, action: actions.Publish) -> Outcome:
        layout, fs = self.layout, self.fs
        partial, fetch_s = layout.partial_of(action.id), self._fetch_s.pop(action.id, None)
        manifest: Manifest | None
        if action.fetched is not None:  # this process has just written all of it
            marker = layout.known_marker if action.known else layout.want_marker
            if not action.want.same_as(look_at(marker(action.id))):
                return Stale()
            chunk, text, manifest = action.fetched.chunk, action.fetched.text, action.fetched.manifest
        else:
            chunk, text = self._read(action.id, action.want, known=action.known)
            manifest = read_manifest(partial)
            if manifest is None or not manifest.satisfies(chunk) or missing(partial, manifest) is not None:
                self._discard(partial)
                return Done()
        if exists(layout.delete_marker(action.id)):
            return Stale()
        if action.fetched is None:
            stored_want.save(fs, partial, text, 0 if action.known else action.want.ctime_ns, layout.trash)
        if action.known:
            fs.touch(f"{partial}/{CACHED}")
        fs.unlink(f"{partial}/{PARTS}")
        place, dataset = chunk.place, layout.dataset(chunk.dataset_id)
        if not is_directory(dataset):
            fs.mkdir(dataset)
            fs.fsync_dir(layout.chunks)
        try:
            fs.rename(partial, layout.path(place))
        except OSError as e:
            if e.errno != errno.EXDEV or not can_rename(layout.partial, dataset):
                raise
            self._discard(partial)  # an overlay's lower layer has it: what is fetched anew can be renamed
            return Done()
        self.catalog.add(place)
        fs.fsync_dir(dataset)
        fs.fsync_dir(layout.partial)
        told = f"{count(len(manifest.files), 'file')}, {readable(manifest.size_bytes)}"
        after_s = None if action.known else action.want.age_s(time.time())
        self.tell(Event("available", action.id, told, place.dataset_id, manifest.size_bytes, after_s, fetch_s))
        if action.known:
            return Done()
        return self._removed(layout.want_marker(action.id), action.want.read_as(text), None)

    def _confirm(self, action: actions.Confirm) -> Outcome:
        layout = self.layout
        chunk, text = self._read(action.id, action.want)
        if exists(layout.delete_marker(action.id)):
            return Stale()
        path = layout.path(action.place)
        if satisfies(path, action.place, chunk):
            stored_want.save(self.fs, path, text, action.want.ctime_ns, layout.trash)
            self.fs.unlink(f"{path}/{CACHED}")
            # it may have been published by a process that was killed before it had synced that
            for parent in (os.path.dirname(path), layout.chunks, layout.partial):
                self.fs.fsync_dir(parent)
            return self._removed(layout.want_marker(action.id), action.want.read_as(text), None)
        if not can_rename(layout.partial, os.path.dirname(path)):  # then what is fetched could never take its place
            raise OSError(errno.EXDEV, "is on another mount than partial/", os.path.dirname(path))
        # other files: it gets no new refs, and the directory goes when the last one does
        self._keep(layout.want_marker(action.id))
        self.fs.fsync_dir(layout.want)
        stored_want.remove(self.fs, path)
        self.fs.unlink(f"{path}/{READY}")
        self.fs.fsync_dir(path)
        return Done()

    def is_fetching(self, chunk_id: str, document: Marker, *, known: bool) -> bool:
        """Tell whether the running fetch may bring what this marker, or this registration, asks for."""
        running = self._fetching.get(chunk_id)
        try:
            return running is None or running == read_chunk(self.layout, chunk_id, document, known=known)[0]
        except (InvalidInputError, StaleMarkerError, OSError):
            return True

    def _retire(self, action: actions.Retire) -> Outcome:
        def still_deleted() -> bool:
            marker = self.layout.delete_marker(action.id)
            # want before delete: a want that came since is looked at again
            return not is_wanted(self.layout, action.id) and action.delete.same_as(look_at(marker))

        outcome = self._take_out(action.place, still_deleted)
        if isinstance(outcome, Done):
            if self.catalog.refused() is not None:
                self._retired.add(action.id)
            after_s = action.delete.age_s(time.time())
            self.tell(Event("deleted", action.id, dataset_id=action.place.dataset_id, after_s=after_s))
        return outcome

    def _clear(self, action: actions.Clear) -> Outcome:
        ready, want = (f"{self.layout.path(action.place)}/{name}" for name in (READY, WANT))
        return self._take_out(action.place, lambda: not exists(ready) and not exists(want))

    def _evict(self, action: actions.Evict) -> Outcome:
        gone: list[Event] = []
        outcome = self._take_out(action.place, lambda: may_go(self.layout, self.fs, action, gone), at_once=False)
        if isinstance(outcome, Held):  # that is a use as well
            self.release(action.place)
            use(self.layout, self.fs, action.place)
        elif isinstance(outcome, Done) and gone:
            self.tell(*gone)
        return self._cleared(*request_of(self.layout, action))

    def _take_out(self, place: Place, still_due: Callable[[], bool], *, at_once: bool = True) -> Outcome:
        """Remove READY and discard the directory, under a claim; `at_once`: durably."""
        path = self.layout.path(place)
        if (claim := self._claims.get(place)) is None:
            try:
                claim = self._claims[place] = Claim(path)
            except FileNotFoundError:
                self.catalog.discard(place)
                return Stale()
            except NotADirectoryError:  # a stray file or symlink under the name of a chunk: no ref can be on it
                self._discard(path)
                self.catalog.discard(place)
                return Done()
        if not claim.take():
            return Held(place)
        try:
            if not claim.is_at(path):  # it was moved or removed by hand
                self.catalog.discard(place)
                return Stale()
            if not still_due():
                return Stale()
            self.fs.unlink(f"{path}/{READY}")
            self._discard(path, at_once=at_once)
            self.catalog.discard(place)
        finally:
            self.release(place)
        return Done()

    def _forget(self, action: actions.Forget) -> Outcome:
        refused = self.catalog.refused()
        if refused is not None and action.id not in self._retired:  # it may well be where one cannot look
            return Failed(disk_error(refused), disk=True)
        failed = self.layout.failed_of(action.id)
        if exists(failed):  # once the marker has gone, nothing would tell that it is of no interest any more
            self.fs.unlink(failed)
            self.fs.fsync_dir(self.layout.failed)
        outcome = self._removed(self.layout.delete_marker(action.id), action.delete, None)
        if isinstance(outcome, Done):
            self._retired.discard(action.id)
        return outcome

    def _overrule(self, action: actions.Overrule) -> Outcome:
        want, delete = self.layout.want_marker(action.id), self.layout.delete_marker(action.id)
        if action.loser == "want":
            return self._removed(want, action.want, (delete, action.delete))
        self._read(action.id, action.want)  # only a want that can be read overrules a delete
        self._keep(want)
        return self._removed(delete, action.delete, (want, action.want))

    def _quarantine(self, action: actions.Quarantine) -> Outcome:
        failure = quarantine(self.layout, self.fs, action)
        if failure is None:
            return Done()
        self.tell(Event("damaged", action.id, failure.error, action.place.dataset_id, cause="damaged"))
        return Quarantined(failure)

    def _cleared(self, path: str, judged: Marker) -> Outcome:
        """Remove a request: none outlasts what it asks for by more than a look."""
        return Done() if remove_request(self.layout, self.fs, path, judged) else Stale()

    def _removed(self, path: str, judged: Marker, winner: tuple[str, Marker] | None) -> Outcome:
        """Remove a marker, for good.

        Before that the directories of its opposites are fsynced, for no client does that: else a power failure may take
        the later marker that has overruled this one, or bring back an earlier one that a client has removed for it.
        """
        layout, directory = self.layout, os.path.dirname(path)
        opposites = {layout.delete: (layout.want, layout.known)}.get(directory, (layout.delete,))
        for other in dict.fromkeys((*opposites, *([] if winner is None else [os.path.dirname(winner[0])]))):
            self.fs.fsync_dir(other)
        with holding(self._marker_mutex):
            if not remove_marker(layout, self.fs, path, judged, winner):
                return Stale()
        self.fs.fsync_dir(directory)
        return Done()

    def _register(self, action: actions.Register) -> Outcome:
        known = self.layout.known_marker(action.id)
        self._read(action.id, action.known, known=True)
        self._keep(known)
        marker = self.layout.want_marker if action.loser == "want" else self.layout.delete_marker
        return self._removed(marker(action.id), action.overruled, (known, action.known))

    def _keep(self, path: str) -> None:
        """Fsync a want or a registration that takes something away: no client fsyncs what it writes."""
        try:
            self.fs.fsync_path(path)
        except FileNotFoundError:  # withdrawn since it was read
            raise StaleMarkerError(path) from None

    def _discard(self, path: str, *, at_once: bool = True) -> None:
        """Trash, durably, and only then erase: a power failure must not bring READY back without its files."""
        parent = os.path.dirname(path)
        if (trashed := self._trash(path)) and at_once:
            self.fs.fsync_dir(parent)
            self.fs.fsync_dir(self.layout.trash)
        if trashed:
            self.trash.erase(trashed, None if at_once else parent)

    def _trash(self, path: str) -> str | None:
        """Rename into the trash; erase in place what is on another mount, or in an overlay's lower layer."""
        try:
            return self.fs.discard(path, self.layout.trash)
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
        if is_directory(path):
            self.fs.unlink(f"{path}/{READY}")
            self.fs.fsync_dir(path)
        self.fs.erase(path)
        self.fs.fsync_dir(os.path.dirname(path))
        return None

    def _read(self, chunk_id: str, want: Marker, *, known: bool = False) -> tuple[DataChunk, bytes]:
        """Read the want of an action, or its registration, once: the chunk that it describes, and its text."""
        try:
            return read_chunk(self.layout, chunk_id, want, known=known)
        except InvalidInputError as e:
            raise UnreadableWantError(want, e) from e
