"""The waits of a client: for what was asked for, by looks at the files.

Each is a generator of rests between two looks, so that a thread and an asyncio loop can wait alike. Invariant: a wait
ends once nothing is pending, or all that is cannot pass by itself (where that was not said to be mended).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.concurrency.polling import Poller
from fsdm.model.errors import WaitTimeoutError
from fsdm.model.layout import as_id
from fsdm.model.units import count, first_few
from fsdm.store.data_dir import check_format, unreadable
from fsdm.store.filesystem import exists
from fsdm.store.scan import look, placed_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import ChunkState
    from fsdm.store.catalog import Catalog
    from fsdm.store.refs import ChunkRef

ACQUIRE_REST_S: Final = 0.02  # a reader waits for it, and a look costs microseconds
HINT: Final = "`fsdm status` tells why"


class Waiting:
    """The waits of one client; `check` raises where it was closed."""

    def __init__(self, layout: Layout, catalog: Catalog, check: Callable[[], None]) -> None:
        self._layout = layout
        self._catalog = catalog
        self.check = check
        self._poller = Poller()

    def until(self, is_done: Callable[[], bool], timeout_s: float | None) -> Generator[float, None, bool]:
        """Wait until a look says that it is done; tell whether it was in time."""
        return self._poller.until(is_done, timeout_s)

    def look(self, chunk_id: str) -> ChunkState:
        """Look at the state of one chunk, as it is now."""
        self._catalog.update()
        return look(self._layout, self._catalog, chunk_id)

    def pending(self) -> list[str]:
        """List the ids that something is asked for."""
        layout = self._layout
        return sorted(set().union(*(placed_ids(layout, one) for one in (layout.verify, layout.want, layout.delete))))

    def is_pending(self, chunk_id: str) -> bool:
        """Tell whether something is asked for a chunk, and not carried out."""
        layout = self._layout
        # in this order: a verify marker goes only after a want has come for what was damaged
        markers = (layout.verify_marker(chunk_id), layout.want_marker(chunk_id), layout.delete_marker(chunk_id))
        acquire = layout.acquire_marker(chunk_id)  # it stands for a while after its chunk has come
        return any(map(exists, markers)) or (exists(acquire) and not self.is_available(chunk_id))

    def _look(self, pending: Callable[[], list[str]], *, keep_waiting: bool) -> Callable[[], bool]:
        """Make a look that tells whether nothing is pending, and raises where all that is cannot pass by itself."""
        from fsdm.status.lasting import LastingFailures

        check = (lambda _: None) if keep_waiting else LastingFailures(self._layout).check

        def is_done() -> bool:
            self.check()
            left = pending()
            check(left)
            return not left

        return is_done

    def until_done(self, chunk_id: str, timeout_s: float | None, *, keep_waiting: bool) -> Generator[float, None, bool]:
        is_done = self._look(lambda: [chunk_id] * self.is_pending(chunk_id), keep_waiting=keep_waiting)
        if not (yield from self._poller.until(is_done, timeout_s)):
            raise WaitTimeoutError(f"chunk {chunk_id} has not converged: {self.standing(chunk_id)}", hint=HINT)
        check_format(self._layout)  # raises where the whole directory has gone, and no marker with it was carried out
        return self.is_available(chunk_id)

    def until_acquired(
        self, place: Place, take: Callable[[Place], ChunkRef | None], timeout_s: float | None
    ) -> Generator[float, None, ChunkRef]:
        """Wait until `take` gives a ref to a chunk, which is asked for meanwhile.

        Raises:
            FetchFailedError, UnknownChunkError: see `Acquirer.look`.
            WaitTimeoutError: it has not come in time.
        """
        from fsdm.store.acquiring import Acquirer, note_use

        acquirer = Acquirer(self._layout, place, take)

        def is_taken() -> bool:
            self.check()
            return acquirer.look()

        try:
            is_here = yield from self._poller.until(is_taken, timeout_s, ACQUIRE_REST_S)
        except OSError as e:
            raise unreadable(self._layout, e) from e
        finally:
            acquirer.close()
        if acquirer.ref is None or not is_here:
            said = f"chunk {place.chunk_id} has not come: {self.standing(place.chunk_id)}"
            raise WaitTimeoutError(said, hint=HINT)
        note_use(self._layout, acquirer.place)
        return acquirer.ref

    def until_converged(
        self, timeout_s: float | None, chunk_ids: Iterable[str | bytes] | None, *, keep_waiting: bool
    ) -> Generator[float, None, None]:
        ids = None if chunk_ids is None else [as_id(one, "chunk_ids") for one in chunk_ids]

        def pending() -> list[str]:
            return self.pending() if ids is None else [*filter(self.is_pending, ids)]

        if not (yield from self._poller.until(self._look(pending, keep_waiting=keep_waiting), timeout_s)):
            left = pending()
            told = first_few(f"{one[:12]} ({self.standing(one)})" for one in left)
            are = "is" if len(left) == 1 else "are"
            raise WaitTimeoutError(f"{count(len(left), 'intent')} {are} pending: {told}", hint=HINT)

    def is_available(self, chunk_id: str) -> bool:
        """Tell whether a chunk is here, and not to leave."""
        state = look(self._layout, self._catalog, chunk_id)
        if not (state.ready or state.delete):
            self._catalog.update()  # only then: where thousands are waited for, not for each of them
            state = look(self._layout, self._catalog, chunk_id)
        return bool(state.ready) and state.delete is None

    def standing(self, chunk_id: str) -> str:
        """Say how a chunk stands, in a few words."""
        from fsdm.status.chunk_status import read_standing

        return read_standing(self._layout, self.look(chunk_id))
