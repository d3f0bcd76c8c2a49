"""A follower with what the command line and `config.toml` say, in a thread beside what the process does otherwise."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from fsdm.cli.config import FOLLOW, SOURCES
from fsdm.client import Client
from fsdm.concurrency.log import Log
from fsdm.model.errors import DataDirectoryError, FsdmError, InvalidInputError, ReconcilerRunsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.manager import DataManager
    from fsdm.model.follow import Follow
    from fsdm.model.layout import Layout
    from fsdm.model.sources import Source

logger = Log("fsdm.follow")

STOP_S: Final = 0.05  # a process that is to end does not wait longer for what its follower asks of the network
AGAIN_S: Final = 5.0


class Following:
    """Follows a list in a thread, and reports."""

    def __init__(
        self,
        layout: Layout,
        follow: Follow,
        sources: tuple[Source, ...],
        share: float | None,
        max_bytes: int | None,
        when: Callable[[], bool] = lambda: True,
        on_error: Callable[[FsdmError], None] | None = None,
    ) -> None:
        """Make it; `when` tells whether to follow just now.

        An error that ends it is given to `on_error`; without, it is logged, and all begins again after a while.

        Raises:
            InvalidInputError: a setting, or what a source names, cannot be used.
        """
        from fsdm.concurrency.cancellation import Cancellation
        from fsdm.fleet.report import name_of
        from fsdm.lists.fetching import Fetching
        from fsdm.lists.following import Follower
        from fsdm.lists.reporting import Reports
        from fsdm.transfer.http.source_settings import Sources

        if not follow.url:
            raise InvalidInputError("it is not said what to follow", field="url", hint="fsdm follow URL, or url = …")
        table = Sources(sources, layout.root)
        is_node = follow.report is not None or follow.node_id is not None
        name = name_of(layout, follow.node_id, make=True) if is_node else None
        self._client, self._stopping = Client(layout.root), Cancellation()
        follow = replace(follow, capacity=follow.capacity or max_bytes)
        self._reports = Reports(self._client, follow, name or "", table, self._stopping)
        reported = self._reports.report if is_node else lambda _: None
        self._follower = Follower(layout, follow, Fetching(table), share=share, node=name, reported=reported)
        self._woken, self._ended = threading.Event(), threading.Event()
        self._when, self._on_error = when, on_error
        self._thread = threading.Thread(target=self._run, name="fsdm-follow", daemon=True)

    def look_now(self) -> None:
        """Have it look now, and compare what is here with the list. In any thread."""
        self._follower.ask_anew()
        self._woken.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow, until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            is_applying = self._follower.stop()
            self._ended.set()
            self._woken.set()
            self._thread.join(None if is_applying else STOP_S)
            if not self._thread.is_alive():
                self._reports.close()
                self._client.close()

    def _run(self) -> None:
        said = ""
        while not self._ended.is_set():
            if self._when():
                try:
                    self._follower.run(self._woken)
                    return
                except (ReconcilerRunsError, DataDirectoryError) as e:
                    if self._on_error is not None:
                        self._on_error(e)
                        return
                    if str(e) != said:
                        logger.warning("the list is not followed yet: %s", e)
                    said = str(e)
            self._ended.wait(AGAIN_S if said else STOP_S)


class Configured(ExitStack):
    """The list of `[follow]` in `config.toml`, followed by a manager while it reconciles. A context manager."""

    def __init__(self, dm: DataManager, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._dm = dm
        self._kept: tuple[Any, ...] = ()
        self._following: Following | None = None
        self._config = config

    def __enter__(self) -> Self:
        self.keep_to(self._config)
        return super().__enter__()

    def keep_to(self, config: Mapping[str, Any]) -> None:
        """Follow as this file says; where it says the same as before, look now.

        Raises:
            InvalidInputError: a setting cannot be used; all goes on as it was.
        """
        follow, limits = config.get(FOLLOW), self._dm.limits
        kept = (follow, config.get(SOURCES, ()), limits.brake_share, limits.max_bytes)
        if kept == self._kept and self._following is not None:
            self._following.look_now()
            return
        following = None
        if follow is not None:
            following = Following(self._dm.layout, follow, *kept[1:], when=lambda: self._dm.reconciling)
        self.close()
        self._kept, self._following = kept, following
        if following is not None:
            self.enter_context(following.running())
