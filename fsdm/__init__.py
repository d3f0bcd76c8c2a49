"""fsdm keeps a changing set of data chunks on a machine's disk. The layout on disk is the source of truth.

    from fsdm import DataManager, DataChunk

See `DataManager` for the calls, and `fsdm protocol` for what stands on disk. Names are loaded when they are first used,
so that a process that only reads does not pay for pydantic, requests and watchdog.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdm.client import Client as Client
    from fsdm.errors import ClosedError as ClosedError
    from fsdm.errors import DataDirectoryError as DataDirectoryError
    from fsdm.errors import ForeignProcessError as ForeignProcessError
    from fsdm.errors import FsdmError as FsdmError
    from fsdm.errors import InvalidInputError as InvalidInputError
    from fsdm.errors import NoDataDirectoryError as NoDataDirectoryError
    from fsdm.errors import UnknownFormatError as UnknownFormatError
    from fsdm.errors import UnsafeFileSystemError as UnsafeFileSystemError
    from fsdm.errors import WaitTimeoutError as WaitTimeoutError
    from fsdm.events import Event as Event
    from fsdm.limits import Limits as Limits
    from fsdm.manager import DataManager as DataManager
    from fsdm.model import DataChunk as DataChunk
    from fsdm.model import FileSource as FileSource
    from fsdm.refs import ChunkRef as ChunkRef
    from fsdm.state import Oddity as Oddity
    from fsdm.status import ChunkStatus as ChunkStatus
    from fsdm.status import DiskStatus as DiskStatus
    from fsdm.status import Status as Status

__version__ = "0.1.0"

_HOMES = {
    "ChunkRef": "fsdm.refs",
    "ChunkStatus": "fsdm.status",
    "Client": "fsdm.client",
    "ClosedError": "fsdm.errors",
    "DataChunk": "fsdm.model",
    "DataDirectoryError": "fsdm.errors",
    "DataManager": "fsdm.manager",
    "DiskStatus": "fsdm.status",
    "Event": "fsdm.events",
    "FileSource": "fsdm.model",
    "ForeignProcessError": "fsdm.errors",
    "FsdmError": "fsdm.errors",
    "InvalidInputError": "fsdm.errors",
    "Limits": "fsdm.limits",
    "NoDataDirectoryError": "fsdm.errors",
    "Oddity": "fsdm.state",
    "Status": "fsdm.status",
    "UnknownFormatError": "fsdm.errors",
    "UnsafeFileSystemError": "fsdm.errors",
    "WaitTimeoutError": "fsdm.errors",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 all of them are strings


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
