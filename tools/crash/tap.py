"""See every system call that changes what is below a directory, before and after it is made.

The calls of this process are seen, by whatever road they come: the steps of a `FileSystem`, the bytes that a `Sink`
writes, the markers that a client places, LOCK, the layout. It stands in for the functions of `os`; what goes past those
(C code that is not under `os`) is not seen, and `disk` finds that out: what it makes of the calls must be what is
on the disk. (fallocate(2) and sync_file_range(2) change nothing that anybody relies on.) Invariant: while the tap is
open, one call at a time is made (one thread).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH_CALLS: Final = ("mkdir", "unlink", "rmdir")
_TWO_PATH_CALLS: Final = ("rename", "link")
_TAPPED: Final = (
    "open", "write", "pwrite", "ftruncate", "fsync", "utime", *_PATH_CALLS, *_TWO_PATH_CALLS,
)  # fmt: skip
_UNKNOWN: Final = ("writev", "pwritev", "truncate", "replace", "remove", "symlink", "mkfifo", "sendfile", "splice")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that changes the disk. Paths are relative to the tap's root.

    `kind` is its name, or *create* where an open makes a file. `offset` and `data` are those of a write; `offset` is
    the size that a truncate leaves. `ino` is the inode that is made, written, truncated, touched or fsynced; `mtime_ns`
    what it has afterwards.
    """

    kind: str
    path: str
    target: str = ""
    ino: int = 0
    offset: int = 0
    data: bytes = b""
    mtime_ns: int = 0

    def __str__(self) -> str:
        what = f" → {self.target}" if self.target else f" {self.offset}+{len(self.data)}" if self.data else ""
        return f"{self.kind} {self.path}{what}"


def _nothing(_call: Call) -> None:
    return


class Tap:
    """A tap. `before` may raise: then the call is not made. `half` is called amid a write.

    fsync is not passed on where `syncs` is False: a process that dies loses nothing by that, and a model needs no disk.
    """

    def __init__(
        self,
        root: str,
        *,
        before: Callable[[Call], None],
        half: Callable[[Call], None] = _nothing,
        after: Callable[[Call], None] = _nothing,
        syncs: bool = False,
    ) -> None:
        self._root = root
        self._before = before
        self._half = half
        self._after = after
        self._syncs = syncs
        self._os = {name: getattr(os, name) for name in (*_TAPPED, *_UNKNOWN)}
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        for name in _TAPPED:
            self._patches.enter_context(mock.patch.object(os, name, getattr(self, f"_{name}", None) or self._by(name)))
        for name in _UNKNOWN:
            self._patches.enter_context(mock.patch.object(os, name, _unknown(name)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._patches.close()

    def _inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Return the path relative to the root, or None where it is not below it."""
        if isinstance(path, int):
            where = os.readlink(f"/proc/self/fd/{path}")
        elif dir_fd is not None:
            where = f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{os.fspath(path)}"
        else:
            where = os.path.abspath(os.fspath(path))
        if where == self._root:
            return "."
        return where.removeprefix(f"{self._root}/") if where.startswith(f"{self._root}/") else None

    def _make(self, call: Call, make: Callable[[], Any]) -> Any:
        self._before(call)
        made = make()
        self._tell(call)
        return made

    def _tell(self, call: Call) -> None:
        """Tell what was done, with what can be known only now."""
        if call.kind in {"create", "mkdir", "write", "truncate", "utime", "fsync"}:
            found = os.lstat(f"{self._root}/{call.path}")
            call = replace(call, ino=found.st_ino, mtime_ns=found.st_mtime_ns)
        self._after(call)

    def _by(self, name: str) -> Callable[..., Any]:
        """Return the stand-in for a call that names one path, or two."""
        real = self._os[name]

        def one(path: Any, *rest: Any, dir_fd: int | None = None, **named: Any) -> Any:
            inside = self._inside(path, dir_fd)
            named |= {} if dir_fd is None else {"dir_fd": dir_fd}
            return (
                real(path, *rest, **named)
                if inside is None
                else self._make(Call(name, inside), lambda: real(path, *rest, **named))
            )

        def two(source: Any, target: Any, **named: Any) -> Any:
            inside, other = self._inside(source), self._inside(target)
            if inside is None or other is None:
                return real(source, target, **named)
            return self._make(Call(name, inside, other), lambda: real(source, target, **named))

        return two if name in _TWO_PATH_CALLS else one

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside = self._inside(path, dir_fd) if flags & os.O_CREAT else None
        if inside is None or os.path.lexists(os.path.join(self._root, inside)):
            return self._os["open"](path, flags, mode, dir_fd=dir_fd)  # type: ignore[no-any-return]
        return self._make(  # type: ignore[no-any-return]
            Call("create", inside), lambda: self._os["open"](path, flags, mode, dir_fd=dir_fd)
        )

    def _write(self, fd: int, data: Any) -> int:
        inside = self._inside(fd)
        if inside is None:
            return self._os["write"](fd, data)  # type: ignore[no-any-return]
        return self._put(fd, inside, bytes(data), os.lseek(fd, 0, os.SEEK_CUR), advance=True)

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        inside = self._inside(fd)
        if inside is None:
            return self._os["pwrite"](fd, data, offset)  # type: ignore[no-any-return]
        return self._put(fd, inside, bytes(data), offset, advance=False)

    def _put(self, fd: int, inside: str, data: bytes, offset: int, *, advance: bool) -> int:
        call = Call("write", inside, offset=offset, data=data)
        self._before(call)
        done: int = self._os["pwrite"](fd, data[: len(data) // 2], offset)
        self._half(call)
        done += self._os["pwrite"](fd, data[done:], offset + done)
        if advance:
            os.lseek(fd, offset + done, os.SEEK_SET)
        self._tell(call)
        return done

    def _ftruncate(self, fd: int, size: int) -> None:
        inside = self._inside(fd)
        real = self._os["ftruncate"]
        if inside is None:
            return real(fd, size)  # type: ignore[no-any-return]
        self._make(Call("truncate", inside, offset=size), lambda: real(fd, size))
        return None

    def _fsync(self, fd: int) -> None:
        inside = self._inside(fd)
        real = self._os["fsync"] if inside is None or self._syncs else os.fstat
        if inside is None:
            real(fd)
        else:
            self._make(Call("fsync", inside), lambda: real(fd))


def _unknown(name: str) -> Callable[..., Any]:
    def refuse(*arguments: object, **named: object) -> None:
        raise NotImplementedError(f"os.{name}{arguments}{named}: the tap does not know this call")

    return refuse
