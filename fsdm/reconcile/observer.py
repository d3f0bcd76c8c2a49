"""Telling a program of others of events: no callback that is slow or fails holds a reconciler up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.concurrency.channel import Channel, Gap
from fsdm.concurrency.log import Log
from fsdm.model.events import Event
from fsdm.model.units import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.reconcile.counters import Counters

logger = Log("fsdm")


class Observer:
    """Calls `on_event` for one event after the other, in a thread of its own; where there is none, does nothing.

    An event of kind *gap* stands for those that were dropped because `on_event` took too long, and is counted.
    """

    def __init__(self, on_event: Callable[[Event], None] | None, counters: Counters) -> None:
        self._on_event, self._counters = on_event, counters
        self._channel = None if on_event is None else Channel[Event](self._read, name="fsdm-events")

    def tell(self, event: Event) -> None:
        """Have it told of an event, soon."""
        if self._channel is not None:
            self._channel.put(event)

    def close(self) -> None:
        """Wait until it was told of all; a callback that goes on and on is left to itself."""
        if self._channel is not None:
            self._channel.close()

    def _read(self, _number: int, event: Event | Gap) -> None:
        if isinstance(event, Gap):
            were = "was" if event.count == 1 else "were"
            event = Event("gap", "", f"{count(event.count, 'event')} {were} not told, for on_event took too long")
            self._counters.tell(event)
        assert self._on_event is not None
        with logger.told("on_event", event):  # not our code: what it was told of has happened, and goes on
            self._on_event(event)
