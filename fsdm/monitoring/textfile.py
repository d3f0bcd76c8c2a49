"""The numbers as a file, for the textfile collector of the node exporter.

It is replaced as a whole, and removed at the end: the exporter would tell of it as if it were true for as long as it is
there. After `kill -9` it stays; its age tells (`node_textfile_mtime_seconds`).
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import write_to_textfile

from fsdm.model.errors import InvalidInputError
from fsdm.store.filesystem import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

logger = logging.getLogger("fsdm")

EACH_S: Final = 15.0
SUFFIX: Final = ".prom"


class Textfile:
    """Writes what a registry has to a file, each EACH_S seconds."""

    def __init__(self, path: str, registry: CollectorRegistry) -> None:
        self._path = path
        self._registry = registry
        self._refused = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it, until the end of the block.

        Raises:
            InvalidInputError: it cannot be written.
        """
        try:
            write_to_textfile(self._path, self._registry)
        except OSError as e:
            hint = "the directory must be there, and this user must be allowed to write in it"
            raise InvalidInputError(f"{self._path}: {e.strerror}", field="--metrics-file", hint=hint) from e
        stop = threading.Event()
        thread = threading.Thread(target=self._keep, args=(stop,), name="fsdm-textfile", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(EACH_S)
            try:
                FileSystem(durable=False).unlink(self._path)
            except OSError as e:
                logger.warning("%s cannot be removed: %s", self._path, e)

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(EACH_S):
            try:
                write_to_textfile(self._path, self._registry)
            except OSError as e:  # its disk may be another one, and full
                if not self._refused:
                    logger.warning("%s cannot be written: %s", self._path, e)
                self._refused = True
            else:
                self._refused = False


def check_name(path: str) -> str:
    """See that the node exporter would read it.

    Raises:
        InvalidInputError: it would not.
    """
    if not path.endswith(SUFFIX):
        hint = f"the node exporter reads no other: name it {path}{SUFFIX}"
        raise InvalidInputError(f"{path!r:.200} does not end in {SUFFIX}", field="--metrics-file", hint=hint)
    return path
