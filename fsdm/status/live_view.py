"""The live view: a thread that looks and draws, so that no other waits for a terminal.

It takes no more than a `SHARE`th of the time. Where it cannot keep up, lines above the view are left out, and counted.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.text import Text

from fsdm.status.progress import Progress
from fsdm.status.progress_view import Glyphs, View
from fsdm.status.survey import Surveyor
from fsdm.status.terminal import is_in_front
from fsdm.store.filesystem import exists

if TYPE_CHECKING:
    from rich.console import Console

    from fsdm.model.layout import Layout

INTERVAL_S: Final = 0.5
SHARE: Final = 10
LINES_MAX: Final = 1000  # waiting to be drawn
END_S: Final = 2.0  # a terminal that takes nothing does not keep the process from its end


class LiveView:
    """Draws how a data directory stands, from `after_s` after `__enter__` to `__exit__`."""

    def __init__(
        self,
        layout: Layout,
        console: Console,
        glyphs: Glyphs,
        *,
        max_bytes: int | None = None,
        is_own: bool = False,
        interval_s: float = INTERVAL_S,
        after_s: float = 0.0,
    ) -> None:
        self._layout = layout
        self._surveyor = Surveyor(layout)
        self._progress = Progress(max_bytes, is_own)
        self._glyphs = glyphs
        self._console = console
        self._terminal = sys.stderr if console.stderr else sys.stdout  # as it is now: rich puts its own in its place
        self._interval_s, self._after_s = interval_s, after_s
        self._mutex = threading.Lock()  # of the two below; never held over a system call
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._trouble = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fsdm-view", daemon=True)

    def say(self, line: str) -> None:
        """Draw a line above the view, soon. In any thread; never waits."""
        with self._mutex:
            if len(self._lines) < LINES_MAX:
                self._lines.append(line)
            else:
                self._left_out += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(END_S)

    def _run(self) -> None:
        if self._stop.wait(self._after_s):
            return
        view = View(self._progress, self._glyphs)
        with Live(view, console=self._console, auto_refresh=False, redirect_stdout=False) as live:
            while not self._stop.is_set():
                began = time.monotonic()
                self._draw(live)
                took = time.monotonic() - began
                self._stop.wait(max(self._interval_s, took * SHARE))
            self._draw(live)

    def _draw(self, live: Live) -> None:
        if not is_in_front(self._terminal):  # a person types there: lines wait
            return
        if exists(self._layout.format_file):  # else there is nothing yet
            try:
                self._progress.take(self._surveyor.look(), time.monotonic())
                self._trouble = ""
            except OSError as e:
                if self._trouble != str(e):  # once, not at every look
                    self._trouble = str(e)
                    self.say(f"fsdm: {self._layout.root} cannot be looked at: {e}")
        with self._mutex:
            lines, self._lines = self._lines, deque()
            left_out, self._left_out = self._left_out, 0
        for line in lines:
            live.console.print(Text(self._glyphs.fit(line)), soft_wrap=True)
        if left_out:
            live.console.print(Text(f"({left_out} lines were left out)"))
        live.refresh()
