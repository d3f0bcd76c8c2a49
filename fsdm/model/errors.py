"""The exceptions that fsdm raises on purpose.

Each class has the exit code of the command line, and says whether a retry can help. An error that keeps a chunk from
coming or going also has a `Cause`: one of few words, to be counted, where the text names hosts and files.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsdm.model.documents import Failure

StatusCause = Literal["http_403", "http_404", "http_429", "http_4xx", "http_5xx", "http_other"]
# connection: refused, broken, no such name; slow: below the floor under the rate; host_down: not even asked, for its
# server has just failed others; settings: those of its source cannot be had
WayCause = Literal["connection", "timeout", "tls", "slow", "host_down", "redirect", "policy", "settings"]
# answer: it does not bring what was asked for; not_ready: it is archived, or being restored
BodyCause = Literal["answer", "size", "digest", "not_ready"]
DiskCause = Literal["disk_full", "disk_read_only", "disk_io", "disk"]
# want: a document that cannot be taken; marker: an entry that is no file; defect: of fsdm's own
Cause = Literal[StatusCause, WayCause, BodyCause, DiskCause, "want", "marker", "damaged", "room", "defect"]

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NOT_AVAILABLE = 3
EXIT_NOT_CONVERGED = 4
EXIT_RECONCILER_RUNS = 5
EXIT_DATA_DIRECTORY = 6
EXIT_DAMAGED = 7
EXIT_BRAKED = 8
EXIT_ENDED = 9
EXIT_HUNG_UP = 129  # this and the next ones as shells have it: 128 + SIGHUP
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class FsdmError(Exception):
    """The root of the tree; `str()` tells the fault, `hint` the remedy."""

    exit_code: ClassVar[int] = EXIT_FAILURE
    transient: ClassVar[bool] = False
    is_postponed: bool = False  # nothing has failed: it was not tried, or has to wait
    cause: Cause = "defect"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidInputError(FsdmError, ValueError):
    """A document, id, range, name or URL that cannot be taken; `field` names the wrong part."""

    exit_code = EXIT_USAGE
    cause = "want"

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field = field


class DataDirectoryError(FsdmError):
    """The data directory cannot be used."""

    exit_code = EXIT_DATA_DIRECTORY


class NoDataDirectoryError(DataDirectoryError):
    """The directory is missing, or holds something that is not fsdm's."""


class UnknownFormatError(DataDirectoryError):
    """`fsdm.json` has a format number (or a shape) that this version does not know."""


class UnsafeFileSystemError(DataDirectoryError):
    """flock(2) does not exclude on this file system, so a reference would protect nothing."""


class ReconcilerRunsError(FsdmError):
    """Another process holds `LOCK`; `owner` is the text of that file."""

    exit_code = EXIT_RECONCILER_RUNS
    transient = True

    def __init__(self, message: str, *, owner: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.owner = owner


class ReconcilerEndedError(FsdmError):
    """The reconciler of this process has ended of itself, by a defect; LOCK is free."""

    exit_code = EXIT_ENDED


class NotAvailableError(FsdmError):
    """No available chunk answers to that id or block."""

    exit_code = EXIT_NOT_AVAILABLE
    transient = True


class NotHeldError(NotAvailableError):
    """No node of the fleet that answers holds a block; the message names it, and what has become of its holders."""


class QueryDiedError(FsdmError):
    """A query has ended the process that ran it, or several workers were lost while they ran a part of it."""


class SchedulerLostError(FsdmError):
    """The scheduler of the fleet does not answer, and did not come back in the time given."""

    transient = True


class AlreadyKnownError(FsdmError):
    """The chunk is registered already, and it was to be registered anew."""


class UnknownChunkError(NotAvailableError):
    """The chunk is neither here nor registered, so nobody can tell where it would come from."""

    transient = False


class ChunkInUseError(FsdmError):
    """Some process holds the chunk `chunk_id`, and it was to be deleted where none does; nothing was changed."""

    transient = True

    def __init__(self, message: str, *, chunk_id: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.chunk_id = chunk_id


class ChunkFailedError(FsdmError):
    """An intent cannot be carried out: `failures` has what `failed/ID` says of each chunk.

    `transient`: some of it may pass by itself.
    """

    exit_code = EXIT_NOT_CONVERGED

    def __init__(self, message: str, *, failures: Sequence[Failure], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)
        self.transient = any(one.transient for one in failures)  # type: ignore[misc]  # as of a TransferError

    @property
    def failure(self) -> Failure:
        """The first of them."""
        return self.failures[0]


class FetchFailedError(ChunkFailedError):
    """A chunk that was asked for could not be fetched; `failure` is what `failed/ID` said of that attempt."""

    exit_code = EXIT_FAILURE


class DamagedError(FsdmError):
    """Bytes of a chunk are not what they are said to be."""

    exit_code = EXIT_DAMAGED


class BrakedError(FsdmError):
    """The request would remove more than a given share of the chunks; nothing was changed."""

    exit_code = EXIT_BRAKED


class PublishedMeanwhileError(FsdmError):
    """Another process has published since this one has read what was there; nothing was replaced."""

    transient = True


class WaitTimeoutError(FsdmError, TimeoutError):
    """The data directory did not converge in the time given."""

    exit_code = EXIT_NOT_CONVERGED
    transient = True


class ForeignProcessError(FsdmError):
    """A manager or ref was used in a forked child; it belongs to the parent."""


class ClosedError(FsdmError):
    """A manager or ref was used after it was closed."""


class TransferError(FsdmError):
    """A file could not be fetched.

    `transient`: the same request may succeed later, after `retry_after_s` seconds where the server has said so.
    `is_postponed`: its server was not asked, or has said that it is not there yet: who waits for the file goes on.
    """

    exit_code = EXIT_NOT_CONVERGED
    cause: Cause = "answer"

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        hint: str = "",
        retry_after_s: float | None = None,
        cause: Cause | None = None,
        is_postponed: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient  # type: ignore[misc]  # an instance may differ from its class
        self.is_postponed = is_postponed
        self.retry_after_s = retry_after_s
        self.cause = cause or type(self).cause


class HostError(TransferError):
    """The server, or the way to it, failed; `what` tells how, without the URL.

    `is_charged`: it is still to be taken in that all its files are concerned. Of cause *answer*, it is this one alone.
    """

    cause: Cause = "connection"

    def __init__(self, message: str, *, what: str, transient: bool = True, cause: Cause | None = None) -> None:
        super().__init__(message, transient=transient, cause=cause)
        self.what = what
        self.is_charged = cause != "answer"


class PolicyError(TransferError):
    """The reconciler's policy refuses a URL, an address or a proxy; a retry changes nothing."""

    cause: Cause = "policy"


class StoppedError(FsdmError):
    """A transfer or a verification was stopped: its chunk goes, or the process ends."""


class IndexerError(FsdmError):
    """The index of a chunk could not be made: its bytes are served all the same."""


class StaleMarkerError(FsdmError):
    """A marker has changed since it was read: look again."""

    transient = True


class DiskError(FsdmError):
    """The disk refused: full (which passes: that is a postponement), read-only, failing or not ours.

    `code` is its errno, or None.
    """

    transient = True

    def __init__(self, message: str, *, code: int | None = None, hint: str = "", cause: Cause | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.cause = cause or _OF_THE_DISK.get(code, "disk")
        self.is_postponed = self.cause == "disk_full"


_OF_THE_DISK: Final[dict[int | None, Cause]] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "disk_read_only",
    errno.EIO: "disk_io",
}


def cause_of_status(status: int) -> Cause:
    """Return the cause of a failure with this HTTP status."""
    known: dict[int, Cause] = {403: "http_403", 404: "http_404", 410: "http_404", 429: "http_429"}
    classes: dict[int, Cause] = {4: "http_4xx", 5: "http_5xx"}
    return known.get(status) or classes.get(status // 100, "http_other")
