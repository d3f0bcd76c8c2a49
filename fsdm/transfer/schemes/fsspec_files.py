"""Files by fsspec: of the schemes that neither fsdm has itself, nor an installed package has an entry point for.

fsspec and its file systems are others' code that cannot be cut: each call is made in a thread that may be left to
itself. Invariants: only what a URL itself names is opened: no chain of file systems, and no file of this machine; no
word of an error of theirs is shown, which may have secrets; a version is believed only where their file system gives a
tag or a digest.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from blake3 import blake3

from fsdm.concurrency.detached import call_detached
from fsdm.model.errors import FsdmError, PolicyError, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdm.concurrency.cancellation import Cancellation

T = TypeVar("T")

READ_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 120.0  # of one call, which may read so much
_TAGS: Final = ("etag", "ETag", "sha", "sha256", "md5", "md5Hash")
_TIMES: Final = ("mtime", "modified", "last_modified", "LastModified", "updated")


_OF_OTHERS: Final = frozenset(  # file systems that are in front of others, or read this machine
    {
        "async_wrapper",
        "asynclocal",
        "asyncwrapper",
        "blockcache",
        "cached",
        "dask",
        "dir",
        "filecache",
        "generic",
        "git",
    }
    | {"libarchive", "local", "reference", "simplecache", "tar", "zip"}
)


def knows(scheme: str) -> bool:
    """Tell whether fsspec is installed, and knows a scheme that is one of its own."""
    try:
        from fsspec.registry import known_implementations, registry
    except ImportError:
        return False
    return scheme not in _OF_OTHERS and (scheme in known_implementations or scheme in registry)


class FsspecFiles:
    """Opens files by the file systems that fsspec finds for their URLs."""

    @contextmanager
    def open(self, url: str, stop: Cancellation) -> Iterator[FsspecFile]:
        """See `Opener.open`."""
        call = partial(_call, stop)
        system, path = call(partial(_find, url))
        info = call(partial(_look, system, path))
        opened = call(partial(system.open, path, "rb"), late=_close)
        try:
            yield FsspecFile(call, system, path, opened, info)
        finally:
            threading.Thread(target=_close, args=(opened,), name="fsdm-fsspec", daemon=True).start()


@dataclass(frozen=True, slots=True)
class FsspecFile:
    """An open file, and what its file system said of it."""

    _call: Callable[..., Any]
    _system: Any
    _path: str
    _opened: Any
    _info: Mapping[str, Any]

    @property
    def size(self) -> int | None:
        """See `Opened.size`."""
        size = self._info.get("size")
        return size if isinstance(size, int) and size >= 0 else None

    @property
    def version(self) -> str | None:
        """See `Opened.version`."""
        tags = [str(self._info[tag]) for tag in _TAGS if self._info.get(tag)]
        return blake3(repr((self.size, tags)).encode()).hexdigest(16) if tags else None

    def read(self, start: int, end: int | None) -> Iterator[memoryview]:
        """See `Opened.read`."""
        if start:
            self._call(partial(self._opened.seek, start))
        at = start
        while end is None or at < end:
            data = self._call(partial(self._opened.read, READ_BYTES if end is None else min(READ_BYTES, end - at)))
            if not data:
                break
            at += len(data)
            yield memoryview(data)
        if end is not None and at != end:
            raise TransferError("it became shorter while it was read", transient=True)

    def check(self) -> None:
        """See `Opened.check`."""
        if _identity(self._call(partial(_look, self._system, self._path))) != _identity(self._info):
            raise TransferError("it changed while it was read", transient=True)


def _find(url: str) -> tuple[Any, str]:
    """Find the file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if "::" in url:
        raise PolicyError("refused by the policy: a chain of file systems", hint="name the file by one URL")
    system, path = url_to_fs(url)
    if isinstance(system, LocalFileSystem):
        raise PolicyError("refused by the policy: it is a file of this machine", hint="name it by file://")
    return system, path


def _look(system: Any, path: str) -> Mapping[str, Any]:
    system.invalidate_cache()
    info: Mapping[str, Any] = system.info(path)
    if info.get("type", "file") != "file":
        raise TransferError("it is no file")
    return info


def _identity(info: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(info.get(key)) for key in ("size", *_TAGS, *_TIMES)}


def _close(opened: Any) -> None:
    """Close a file of which no more is wanted; it was only read, so nothing hangs on it."""
    with suppress(Exception):
        opened.close()


def _call(stop: Cancellation, work: Callable[[], T], late: Callable[[T], object] = lambda _: None) -> T:
    """Call what is not ours; raises TransferError for what it raises, and StoppedError."""
    try:
        return call_detached(work, stop, TIMEOUT_S, "fsdm-fsspec", late)
    except FsdmError:
        raise
    except FileNotFoundError:
        raise TransferError("there is no such file", hint="check the URL in the want") from None
    except ImportError as e:
        hint = f"install {e.name}, which its file system needs" if e.name else "install what its file system needs"
        raise TransferError("its file system cannot be had", transient=True, hint=hint, cause="settings") from None
    except Exception as e:
        if isinstance(e, TimeoutError):
            raise TransferError(f"no answer within {TIMEOUT_S:g} s", transient=True, cause="timeout") from None
        what, is_refused = f"its file system failed: {type(e).__name__}", isinstance(e, PermissionError)
        raise TransferError(what, transient=not is_refused, cause="connection") from None
