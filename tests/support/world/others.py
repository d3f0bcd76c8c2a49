"""Deeds of careful and careless clients, and what happens to the disk and the source.

Each deed is a method that takes it. To add one, write the method, and have it tell `expected` what it asks for.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from fsdm.client import Client
from fsdm.model.errors import DataDirectoryError
from tests.support.chunks import files_of
from tests.support.world.clocks import Clocks
from tests.support.world.deeds import Deed, Killed
from tests.support.world.disk import Damage, Disk
from tests.support.world.expected import Expected
from tests.support.world.points import Points
from tests.support.world.readers import Readers
from tools.support.versions import Version

WAITS_S = {"blink": 0.01, "second": 1.0, "while": 4.0, "long": 400.0}


@dataclass
class Others:
    """All that others do to the data directory; `canary` is a file outside of it, which nobody may touch."""

    _disk: Disk
    _clocks: Clocks
    _points: Points
    _expected: Expected
    _readers: Readers
    _client: Client
    _canary: Path
    faults: dict[int, str] = field(default_factory=dict)  # how the source of a chunk fails the next time it is asked

    def want(self, deed: Deed) -> None:
        """Ask for a version: as a client, by `cp` over what is there, or by `mv` of a finished file."""
        version, path = self._disk.versions[deed.chunk][deed.version], self._disk.want(deed.chunk)
        if deed.how == "client":
            self._want_as_client(deed, version, path)
            return
        self._clear_the_way(path)
        if deed.how == "cp":
            self._write(path, version.chunk.to_json())
        else:
            moved = f"{os.path.dirname(path)}/.mv"
            self._write(moved, version.chunk.to_json())
            os.rename(moved, path)
            self._clocks.stamp(path)
        self._expected.wanted(deed.chunk, version)

    def _want_as_client(self, deed: Deed, version: Version, path: str) -> None:
        before = self._clocks.identity(path)
        killed, armed = False, self._points.cut is not None
        try:
            with self._points.in_midst(self._points.busy or "client", self._disk.ids[deed.chunk]):
                self._client.download_chunk(version.chunk)
        except Killed:
            killed = True
        except DataDirectoryError:
            assert os.path.isdir(path), "a want was refused for no reason"
            return
        if killed and self._clocks.identity(path) == before:
            return  # it came to nothing
        self._expected.wanted(deed.chunk, version)
        if armed and self._points.cut is None:
            self._expected.models[deed.chunk].seen = None

    def delete(self, deed: Deed) -> None:
        path = self._disk.delete(deed.chunk)
        if deed.how == "client":
            self._delete_as_client(deed, path)
            return
        is_new = not os.path.lexists(path)
        Path(path).touch()
        self._clocks.stamp(path, changed=True)
        self._expected.deleted(deed.chunk, is_new=is_new)

    def _delete_as_client(self, deed: Deed, path: str) -> None:
        before = self._clocks.identity(path)
        try:
            with self._points.in_midst(self._points.busy or "client", self._disk.ids[deed.chunk]):
                self._client.delete_chunk(self._disk.ids[deed.chunk])
        except Killed:
            if self._clocks.identity(path) != before:
                self._expected.deleted(deed.chunk, is_new=before is None)
            return
        model = self._expected.models[deed.chunk]
        self._expected.is_to_go(deed.chunk)
        model.is_to_be(None)
        model.spoilt = os.path.isdir(self._disk.want(deed.chunk))

    def rm_want(self, deed: Deed) -> None:
        """`rm want/ID`: withdraw a want, if it is still there."""
        path = self._disk.want(deed.chunk)
        if os.path.lexists(path):
            self._clear_the_way(path, of_files=True)
            self._expected.withdrawn(deed.chunk)
            self._expected.models[deed.chunk].spoilt = False

    def rm_delete(self, deed: Deed) -> None:
        """`rm delete/ID`: withdraw a delete, if it is still there."""
        if self._disk.is_deleted(deed.chunk):
            self._clear_the_way(self._disk.delete(deed.chunk), of_files=True)
            self._expected.withdrawn(deed.chunk)

    def touch_want(self, deed: Deed) -> None:
        """`touch want/ID`, where there is one that can be read: it is asked for once more."""
        path, model = self._disk.want(deed.chunk), self._expected.models[deed.chunk]
        if os.path.lexists(path) and not model.spoilt and model.placed is not None:
            os.utime(path)
            self._clocks.stamp(path, changed=True)
            self._expected.wanted(deed.chunk, model.placed)

    def spoil(self, deed: Deed) -> None:
        """Put something at `want/ID` that is no want: half of one, one of another id, a directory, a symlink."""
        path = self._disk.want(deed.chunk)
        text = self._disk.versions[deed.chunk][deed.version].chunk.to_json()
        self._clear_the_way(path, of_files=deed.how in {"directory", "symlink"})
        match deed.how:
            case "half":
                Path(path).write_bytes(text[: len(text) // 2])
            case "other":
                Path(path).write_bytes(text.replace(b'"id":"', b'"id":"0'))
            case "directory":
                os.mkdir(path)
            case _:
                os.symlink(self._canary, path)
        self._clocks.stamp(path, changed=True)
        self._expected.withdrawn(deed.chunk)
        self._expected.models[deed.chunk].spoilt = True
        self._expected.may_be_lost(deed.chunk)

    def damage(self, deed: Deed) -> None:
        """Change what is available: a byte is another, a file is shorter, or gone."""
        directory, version = self._disk.directory_of(deed.chunk), self._disk.version_here(deed.chunk)
        names = sorted(os.listdir(directory / "data")) if directory else []
        if directory is None or version is None or not names:
            return
        was = self._disk.damage_of(deed.chunk)
        path = directory / "data" / names[deed.version % len(names)]
        data = path.read_bytes()
        if deed.how == "gone":
            path.unlink()
        elif deed.how == "short" or not data:
            path.write_bytes(data[:-1])
        else:
            path.write_bytes(bytes([(data[0] + 1) % 256]) + data[1:])
        damage = Damage(version, files_of(directory / "data"), asked=was is not None and was.asked)
        self._disk.damages[directory.stat().st_ino] = damage
        self._readers.see(directory, damage.files)
        self._expected.models[deed.chunk].arrived = None
        self._expected.may_be_lost(deed.chunk)

    def verify(self, deed: Deed) -> None:
        """Ask for a chunk's bytes to be compared with READY."""
        chunk_id = self._disk.ids[deed.chunk]
        if deed.how == "client":
            with self._points.in_midst(self._points.busy or "client", chunk_id):
                self._client.verify_chunk(chunk_id)
        else:
            path = self._disk.layout.verify_marker(chunk_id)
            Path(path).touch()
            self._clocks.stamp(path, changed=True)
        damage = self._disk.damage_of(deed.chunk)
        if damage is not None and not self._disk.is_deleted(deed.chunk):
            damage.asked = True
            self._expected.may_be_lost(deed.chunk)

    def fault(self, deed: Deed) -> None:
        self.faults[deed.chunk] = deed.how

    def wait(self, deed: Deed) -> None:
        self._clocks.now += WAITS_S[deed.how]

    def _write(self, path: str, data: bytes) -> None:
        Path(path).write_bytes(data)
        self._clocks.stamp(path, changed=True)

    @staticmethod
    def _clear_the_way(path: str, *, of_files: bool = False) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        elif os.path.islink(path) or (of_files and os.path.lexists(path)):
            os.unlink(path)
