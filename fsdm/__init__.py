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
    from fsdm.concurrency.cancellation import Cancellation as Cancellation
    from fsdm.fleet.queries import FleetClient as FleetClient
    from fsdm.fleet.task import HeldChunk as HeldChunk
    from fsdm.manager import DataManager as DataManager
    from fsdm.model.documents import DataChunk as DataChunk
    from fsdm.model.documents import Failure as Failure
    from fsdm.model.documents import FileEntry as FileEntry
    from fsdm.model.documents import FileSource as FileSource
    from fsdm.model.errors import AlreadyKnownError as AlreadyKnownError
    from fsdm.model.errors import BrakedError as BrakedError
    from fsdm.model.errors import ChunkFailedError as ChunkFailedError
    from fsdm.model.errors import ChunkInUseError as ChunkInUseError
    from fsdm.model.errors import ClosedError as ClosedError
    from fsdm.model.errors import DamagedError as DamagedError
    from fsdm.model.errors import DataDirectoryError as DataDirectoryError
    from fsdm.model.errors import DiskError as DiskError
    from fsdm.model.errors import FetchFailedError as FetchFailedError
    from fsdm.model.errors import ForeignProcessError as ForeignProcessError
    from fsdm.model.errors import FsdmError as FsdmError
    from fsdm.model.errors import HostError as HostError
    from fsdm.model.errors import IndexerError as IndexerError
    from fsdm.model.errors import InvalidInputError as InvalidInputError
    from fsdm.model.errors import NoDataDirectoryError as NoDataDirectoryError
    from fsdm.model.errors import NotAvailableError as NotAvailableError
    from fsdm.model.errors import NotHeldError as NotHeldError
    from fsdm.model.errors import PolicyError as PolicyError
    from fsdm.model.errors import PublishedMeanwhileError as PublishedMeanwhileError
    from fsdm.model.errors import QueryDiedError as QueryDiedError
    from fsdm.model.errors import ReconcilerEndedError as ReconcilerEndedError
    from fsdm.model.errors import ReconcilerRunsError as ReconcilerRunsError
    from fsdm.model.errors import SchedulerLostError as SchedulerLostError
    from fsdm.model.errors import StoppedError as StoppedError
    from fsdm.model.errors import TransferError as TransferError
    from fsdm.model.errors import UnknownChunkError as UnknownChunkError
    from fsdm.model.errors import UnknownFormatError as UnknownFormatError
    from fsdm.model.errors import UnsafeFileSystemError as UnsafeFileSystemError
    from fsdm.model.errors import WaitTimeoutError as WaitTimeoutError
    from fsdm.model.events import Event as Event
    from fsdm.model.index_format import Location as Location
    from fsdm.model.indexes import Index as Index
    from fsdm.model.limits import Limits as Limits
    from fsdm.model.sources import Source as Source
    from fsdm.model.state import Oddity as Oddity
    from fsdm.status.chunk_status import ChunkStatus as ChunkStatus
    from fsdm.status.chunk_status import DiskStatus as DiskStatus
    from fsdm.status.chunk_status import Status as Status
    from fsdm.store.filesystem import FileSystem as FileSystem
    from fsdm.store.held_range import HeldRange as HeldRange
    from fsdm.store.index_file import ChunkIndex as ChunkIndex
    from fsdm.store.refs import ChunkRef as ChunkRef
    from fsdm.transfer.own_fetcher import Fetcher as Fetcher
    from fsdm.transfer.resume_record import Part as Part

    __version__: str

_HOMES = {
    "AlreadyKnownError": "fsdm.model.errors",
    "BrakedError": "fsdm.model.errors",
    "Cancellation": "fsdm.concurrency.cancellation",
    "ChunkFailedError": "fsdm.model.errors",
    "ChunkInUseError": "fsdm.model.errors",
    "ChunkIndex": "fsdm.store.index_file",
    "ChunkRef": "fsdm.store.refs",
    "ChunkStatus": "fsdm.status.chunk_status",
    "Client": "fsdm.client",
    "ClosedError": "fsdm.model.errors",
    "DamagedError": "fsdm.model.errors",
    "DataChunk": "fsdm.model.documents",
    "DataDirectoryError": "fsdm.model.errors",
    "DataManager": "fsdm.manager",
    "DiskError": "fsdm.model.errors",
    "DiskStatus": "fsdm.status.chunk_status",
    "Event": "fsdm.model.events",
    "Failure": "fsdm.model.documents",
    "FetchFailedError": "fsdm.model.errors",
    "Fetcher": "fsdm.transfer.own_fetcher",
    "FileEntry": "fsdm.model.documents",
    "FileSource": "fsdm.model.documents",
    "FileSystem": "fsdm.store.filesystem",
    "FleetClient": "fsdm.fleet.queries",
    "ForeignProcessError": "fsdm.model.errors",
    "FsdmError": "fsdm.model.errors",
    "HeldChunk": "fsdm.fleet.task",
    "HeldRange": "fsdm.store.held_range",
    "HostError": "fsdm.model.errors",
    "Index": "fsdm.model.indexes",
    "IndexerError": "fsdm.model.errors",
    "InvalidInputError": "fsdm.model.errors",
    "Limits": "fsdm.model.limits",
    "Location": "fsdm.model.index_format",
    "NoDataDirectoryError": "fsdm.model.errors",
    "NotAvailableError": "fsdm.model.errors",
    "NotHeldError": "fsdm.model.errors",
    "Oddity": "fsdm.model.state",
    "Part": "fsdm.transfer.resume_record",
    "PolicyError": "fsdm.model.errors",
    "PublishedMeanwhileError": "fsdm.model.errors",
    "QueryDiedError": "fsdm.model.errors",
    "ReconcilerEndedError": "fsdm.model.errors",
    "ReconcilerRunsError": "fsdm.model.errors",
    "SchedulerLostError": "fsdm.model.errors",
    "Source": "fsdm.model.sources",
    "Status": "fsdm.status.chunk_status",
    "StoppedError": "fsdm.model.errors",
    "TransferError": "fsdm.model.errors",
    "UnknownChunkError": "fsdm.model.errors",
    "UnknownFormatError": "fsdm.model.errors",
    "UnsafeFileSystemError": "fsdm.model.errors",
    "WaitTimeoutError": "fsdm.model.errors",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 all of them are strings


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _built_as()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def _built_as() -> str:
    """Return the version that this was built as: that of the tag of its commit."""
    try:
        from fsdm._version import version
    except ImportError:  # sources that nobody has built
        return "0+unknown"
    return str(version)
