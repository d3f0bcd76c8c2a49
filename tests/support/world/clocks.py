"""The time of a world, and of its files.

`now` is the reconciler's clock. A marker's ctime is `tick`, which deeds advance unless they are to be tied; its mtime
is different after every change, as the kernel gives it to a file that was looked at before.
"""

import os


class Clocks:
    """The clocks, and what the files of a world were stamped with, by inode."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.tick = 1
        self.came_back: set[tuple[int, int]] = set()  # the identities of wants that came back by themselves
        self._changes = 0
        self._stamps: dict[int, tuple[int, int]] = {}  # inode → (ctime, mtime)
        self._read = 0  # the inode that was read last

    def stamp(self, what: str | int, *, changed: bool = False) -> None:
        """The ctime of a file is now, and so is its mtime where its content has changed."""
        found = os.fstat(what) if isinstance(what, int) else os.lstat(what)
        self._changes += 1
        if changed or found.st_ino not in self._stamps:
            self._stamps[found.st_ino] = self.tick, int(self.now * 1e9) + self._changes
        else:
            self._stamps[found.st_ino] = self.tick, self._stamps[found.st_ino][1]

    def times_of(self, inode: int) -> tuple[int, int]:
        """The ctime and mtime of a file, also of one that was cut off before it had its name."""
        return self._stamps.setdefault(inode, (self.tick, int(self.now * 1e9)))

    def reads(self, inode: int) -> None:
        """A file is read."""
        self._read = inode

    def copies_mtime(self, fd: int) -> None:
        """A copy is given the mtime of the file that was read last."""
        self._stamps[os.fstat(fd).st_ino] = self.tick, self._stamps[self._read][1]

    def ctime(self, path: str) -> int:
        return self._stamps[os.lstat(path).st_ino][0]

    def identity(self, path: str) -> tuple[int, int] | None:
        """Tell a marker from any other by its inode and mtime; None where there is none."""
        if not os.path.lexists(path):
            return None
        inode = os.lstat(path).st_ino
        return inode, self._stamps[inode][1]
