"""Taking a damaged chunk out of service, and asking for it again (PROTOCOL.md, "Verifying").

Invariant: a crash at any step neither loses that the chunk is wanted, nor brings back what was deleted: WANT without
READY says that the want has not come back yet.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fsdm.model.documents import Failure
from fsdm.model.layout import READY, WANT
from fsdm.reconcile.recovery import stamp
from fsdm.store import stored_want
from fsdm.store.filesystem import exists, is_directory
from fsdm.store.marker_removal import restore_want, withdraw_restored_want
from fsdm.store.markers import look_at
from fsdm.verify.manifest_check import damage

if TYPE_CHECKING:
    from fsdm.model.layout import Layout
    from fsdm.model.limits import Recover
    from fsdm.reconcile.actions import Quarantine, Renew
    from fsdm.store.filesystem import FileSystem

HINTS: Final[dict[Recover, str]] = {
    "now": "it is fetched again by itself",
    "acquire": "it is fetched again when somebody asks for it (fsdm acquire), or by fsdm retry",
    "never": "fsdm retry has it fetched again",
}


def quarantine(layout: Layout, fs: FileSystem, action: Quarantine) -> Failure | None:
    """Take a chunk out of service, if it is damaged; return what `failed/ID` says then."""
    path, found = layout.path(action.place), action.found
    ready = look_at(f"{path}/{READY}")
    why = damage(layout, action.place) if found is None else found.why
    if why is None or ready is None or (found is not None and not found.ready.same_as(ready)):
        return None
    now, again = time.time(), stored_want.is_saved(path, action.id)
    failure = Failure(
        id=action.id,
        kind="damaged",
        error=f"{path}: {why}",
        hint=HINTS[action.recover] if again else "want it again to have it fetched again",
        first_at=now,
        last_at=now,
        given_up=None if action.recover == "now" else True,
        marker=stamp(look_at(f"{path}/{WANT}")),
        acquire=stamp(look_at(layout.acquire_marker(action.id))),
        known=stamp(look_at(layout.known_marker(action.id))),
    )
    fs.write(layout.failed_of(action.id), failure.to_json(), durable=True)
    fs.unlink(f"{path}/{READY}")
    fs.fsync_dir(path)
    return failure


def renew(layout: Layout, fs: FileSystem, action: Renew) -> bool:
    """Ask again for a quarantined chunk; tell whether it still was one. One at a time."""
    path = layout.path(action.place)
    if exists(f"{path}/{READY}") or not is_directory(path):
        return False
    if stored_want.is_saved(path, action.id):
        restore_want(layout, fs, f"{path}/{WANT}", action.id)
        withdraw_restored_want(layout, fs, f"{path}/{WANT}", action.id)
        _make_durable(layout, fs, action.id)
    fs.fsync_dir(path)  # READY may have gone in a step that a crash cut off: it is not to come back without WANT
    stored_want.remove(fs, path)
    fs.fsync_dir(path)
    return True


def _make_durable(layout: Layout, fs: FileSystem, chunk_id: str) -> None:
    """Fsync what stands in `want/` and `delete/` by now: no client fsyncs what it writes."""
    want = look_at(layout.want_marker(chunk_id))
    if want is not None and want.fault is None:
        with suppress(FileNotFoundError):  # withdrawn since
            fs.fsync_path(layout.want_marker(chunk_id))
    fs.fsync_dir(layout.want)
    fs.fsync_dir(layout.delete)
