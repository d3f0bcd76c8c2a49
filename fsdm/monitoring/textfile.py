"""The numbers as a file, for the textfile collector of the node exporter.

It is removed at the end: the exporter would go on to serve it as if it were true. After `kill -9` it stays; its age
tells (`node_textfile_mtime_seconds`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import write_to_textfile

from fsdm.concurrency.log import Log
from fsdm.model.errors import InvalidInputError
from fsdm.monitoring.repeating import Refusals, repeating
from fsdm.store.filesystem import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

logger = Log("fsdm")

EACH_S: Final = 15.0


@contextmanager
def textfile(path: str, registry: CollectorRegistry) -> Iterator[None]:
    """Write what the registry has to a file, each EACH_S seconds, until the end of the block.

    Raises:
        InvalidInputError: it cannot be written.
    """
    try:
        write_to_textfile(path, registry)
    except OSError as e:
        hint = "the directory must be there, and this user must be allowed to write in it"
        raise InvalidInputError(f"{path}: {e.strerror}", field="--metrics-file", hint=hint) from e
    refusals = Refusals()

    def write() -> None:
        with refusals.told(f"{path} cannot be written"):  # its disk may be another one, and full
            write_to_textfile(path, registry)

    try:
        with repeating(write, EACH_S, name="fsdm-textfile", patience_s=EACH_S):
            yield
    finally:
        try:
            FileSystem(durable=False).unlink(path)
        except OSError as e:
            logger.warning("%s cannot be removed: %s", path, e)
