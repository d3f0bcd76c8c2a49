"""The report of a node that follows a list: made after each look, kept in `follow/REPORT`, and sent where it is read.

Invariant: a report speaks of the list that is applied, and of the disk as it was looked at after that. While nothing
has changed in the directories that it is made of, the chunks are not looked at again.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from fsdm.concurrency.log import Log
from fsdm.fleet.report import Report, Reporter
from fsdm.lists.assignment import Assignment, Known, ListText
from fsdm.model.errors import DataDirectoryError, FsdmError, InvalidInputError
from fsdm.store.filesystem import FileSystem, exists
from fsdm.store.followed import HELD, LIST, REPORT, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.client import Client
    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.follow import Follow
    from fsdm.transfer.http.source_settings import Sources

logger = Log("fsdm.follow")

FS: Final = FileSystem(durable=False)
REST_S: Final = 2.0  # the coarsest clock of a file system: a directory's mtime tells all that is older


class _All:
    """The lines of a list that was applied: they are wants."""

    def __contains__(self, line: object) -> bool:
        return True


class Reports:
    """Makes and sends the reports of a node with this name; used by one thread."""

    def __init__(
        self,
        client: Client,
        follow: Follow,
        name: str,
        sources: Sources,
        stop: Cancellation,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._follow, self._name = client, follow, name
        self._sources, self._stop, self._clock = sources, stop, clock
        self._reporter = Reporter(client)
        self._list: tuple[str, Assignment] | None = None
        self._open = ExitStack()
        self._last: tuple[list[tuple[str, int]], Report] | None = None
        self._error = ""

    def close(self) -> None:
        """Let go of the list."""
        self._open.close()

    def report(self, applied: str | None) -> None:
        """Report how the list stands that is applied; what keeps the report from its reader is logged, once.

        Raises:
            StoppedError: it is to end.
        """
        try:
            document = self._made(applied).to_json()
            FS.write(path_of(self._client.layout, REPORT), document, durable=False)
            self._send(document)
            self._error = ""
        except OSError as e:
            hint = "check the path, and who may write there"
            self._failed(DataDirectoryError(f"{self._follow.report or REPORT}: {e.strerror}", hint=hint))
        except FsdmError as e:
            self._stop.check()
            self._failed(e)

    def _failed(self, error: FsdmError) -> None:
        if str(error) != self._error:
            logger.warning("no report is sent: %s%s", error, f" ({error.hint})" if error.hint else "")
        self._error = str(error)

    def _made(self, applied: str | None) -> Report:
        now, more = self._clock(), {"zone": self._follow.zone, "capacity": self._follow.capacity}
        if applied is None:
            return Report(at=now, **more)
        seen, last = [*self._directories(applied)], self._last
        if last is not None and last[0] == seen:
            return last[1].model_copy(update={"at": now})
        found = self._reporter.report(self._wanted(applied), applied, now).model_copy(update=more)
        is_old = all(mtime_ns < (time.time() - REST_S) * 1e9 for _, mtime_ns in seen)
        self._last = (seen, found) if is_old else None
        return found

    def _directories(self, applied: str) -> Iterator[tuple[str, int]]:
        """List what a report is made of, with mtimes in ns."""
        layout = self._client.layout
        yield applied, 0
        for path in (layout.brake, path_of(layout, HELD)):
            yield path, exists(path)
        with os.scandir(layout.chunks) as datasets:
            paths = [layout.chunks, layout.delete, layout.want, layout.failed, *(one.path for one in datasets)]
        for path in sorted(paths):
            with suppress(FileNotFoundError):
                yield path, os.stat(path).st_mtime_ns

    def _wanted(self, applied: str) -> Assignment:
        """Return the list that is applied; it is read once."""
        if self._list is None or self._list[0] != applied:
            self._open.close()
            file = open(path_of(self._client.layout, LIST), "rb")  # noqa: SIM115 the next line sees to its end
            self._open.callback(file.close)
            known = Known(_All(), lambda _: True)
            assignment = self._open.enter_context(ListText(file, LIST).read(known=known))
            if assignment.sha256 != applied:
                raise InvalidInputError(f"{LIST} is not the list that was applied", hint="it is applied anew")
            self._list = applied, assignment
        return self._list[1]

    def _send(self, document: bytes) -> None:
        where, name = self._follow.report, f"{self._name}.json"
        if where is None:
            return
        if where.startswith("s3://"):
            from fsdm.fleet.object_shelf import ObjectShelf

            ObjectShelf(where, self._sources).write(name, document)
        elif "://" in where:
            from fsdm.transfer.putting import put

            put(f"{where.rstrip('/')}/{quote(name)}", document, self._sources, self._stop)
        else:
            FS.write(os.path.join(os.path.abspath(where), name), document, durable=False)
