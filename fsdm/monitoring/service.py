"""The service beside a reconciler: the endpoint, the page, the textfile, the messages to systemd.

It answers probes before the data directory is open, which may take its time. Nothing is imported, bound or begun that
was not asked for.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Self

from fsdm.concurrency.single_flight import SingleFlight
from fsdm.model.errors import InvalidInputError
from fsdm.monitoring.health import LOOK_S, Health, health, look_at_disk, readiness
from fsdm.monitoring.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.manager import DataManager
    from fsdm.monitoring.page.app import PageApp
    from fsdm.store.filesystem import Space

SUFFIX: Final = ".prom"  # of what the node exporter reads


class Service(ExitStack):
    """Answers for a manager, once there is one. A context manager."""

    def __init__(
        self,
        *,
        address: str | None = None,
        file: str | None = None,
        page: bool = False,
        option: str = "--metrics-addr",
        names: bool = True,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Listen at `address`, where one is given, by this option; there may be a page, with the `names` of datasets.

        Raises:
            InvalidInputError: the address cannot be had, or the node exporter would not read `file`.
        """
        super().__init__()
        self._dm: DataManager | None = None
        self._file = file
        self._notifier = Notifier.of(environment)
        self._disk: SingleFlight[Space | str] | None = None
        self.url: str | None = None
        self._page: PageApp | None = None
        self._names = names
        if file is not None and not file.endswith(SUFFIX):
            hint = f"the node exporter reads no other: name it {file}{SUFFIX}"
            raise InvalidInputError(f"{file!r:.200} does not end in {SUFFIX}", field="--metrics-file", hint=hint)
        if address is not None:
            self._listen(address, option, page=page)

    def _listen(self, address: str, option: str, *, page: bool) -> None:
        from fsdm.monitoring.http_endpoint import Endpoint, parse_address

        if page:
            from fsdm.monitoring.page.app import PageApp

            self._page = PageApp(parse_address(address, option)[0])
        self._endpoint = Endpoint(
            address, health=self._health, readiness=self._readiness, page=self._page, option=option
        )
        self.url = self._endpoint.url

    def __enter__(self) -> Self:
        if self.url is not None:
            self.enter_context(self._endpoint.serving())
        return super().__enter__()

    @contextmanager
    def attend(self, dm: DataManager) -> Iterator[None]:
        """Serve the numbers of an open data directory, until the end of the block.

        Raises:
            InvalidInputError: the textfile cannot be written.
        """
        self._disk = SingleFlight(lambda: look_at_disk(dm.layout))
        self._dm = dm
        with ExitStack() as stack:
            if self.url is not None or self._file is not None:
                self._expose(dm, stack)
            if self._page is not None:
                from fsdm.monitoring.page.observer import Observer

                self._page.observer = Observer(dm, names=self._names)
                stack.enter_context(self._page.observer.observing())
            if self._notifier is not None:
                stack.enter_context(self._notifier.serving(self._health))
            yield

    def _expose(self, dm: DataManager, stack: ExitStack) -> None:
        from prometheus_client import ProcessCollector, make_wsgi_app

        from fsdm.monitoring.metrics import Metrics
        from fsdm.monitoring.textfile import textfile

        if self._file is not None:
            stack.enter_context(textfile(self._file, Metrics(dm).registry))
        if self.url is not None:
            registry = Metrics(dm).registry
            # not in the textfile: the node exporter has names like these of its own
            ProcessCollector(registry=registry)
            self._endpoint.metrics = make_wsgi_app(registry)

    def _health(self) -> Health:
        return health(self._dm)

    def _readiness(self) -> Health:
        return readiness(self._dm, None if self._disk is None else self._disk.ask(LOOK_S))
