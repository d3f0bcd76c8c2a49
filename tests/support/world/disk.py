"""The data directory of a world, read by the letter of the protocol."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsdm.model.layout import Layout
from tests.support.chunks import an_id, content, files_of
from tools.support.versions import Version

DATASETS: Final = ("d" * 64, "e" * 64)
BLOCKS: Final = range(10)
SHAPES: Final = (  # of each chunk, its versions: the start, the end, and the names of its files
    ((0, 4, "ab"), (0, 4, "a"), (2, 5, "b")),
    ((2, 6, "a"), (2, 5, "b"), (0, 3, "b")),
    ((0, 3, "a"), (0, 3, "ab"), (1, 4, "a")),
)


def versions_of(number: int) -> list[Version]:
    return [_version(number, version, *shape) for version, shape in enumerate(SHAPES[number])]


def _version(i: int, number: int, start: int, end: int, names: str) -> Version:
    files = {name: content(f"{i}/{number}/{name}", 24) for name in names}
    block_range, url = (start, end), f"http://source/{i}/{number}"
    return Version.of(f"chunk {i} version {number}", an_id(1000 + i), DATASETS[i // 2], block_range, files, url)


@dataclass
class Damage:
    """The files of a damaged version; `asked`: it is to be verified, and was asked for later."""

    version: Version
    files: dict[str, bytes]
    asked: bool


class Disk:
    """The data directory, and the decoys in it that nobody may touch."""

    def __init__(self, layout: Layout, versions: list[list[Version]], ctime: Callable[[str], int]) -> None:
        self.layout = layout
        self.ctime = ctime  # of a marker, in ticks
        self.versions = versions
        self.ids = [each[0].chunk.id for each in versions]
        self.damages: dict[int, Damage] = {}  # by the inode of a directory
        self._decoys = {f"{layout.want}/notes.txt", f"{layout.want}/{self.ids[0]}~"}
        self._decoys |= {f"{layout.delete}/.hidden", f"{layout.chunks}/README"}
        for path in self._decoys:
            Path(path).write_text("nobody's business")

    def want(self, i: int) -> str:
        return self.layout.want_marker(self.ids[i])

    def delete(self, i: int) -> str:
        return self.layout.delete_marker(self.ids[i])

    def known(self, i: int) -> str:
        return self.layout.known_marker(self.ids[i])

    def known_version(self, i: int) -> Version | None:
        """What a chunk is registered as."""
        if not os.path.isfile(self.known(i)):
            return None
        text = Path(self.known(i)).read_bytes()
        return next(version for version in self.versions[i] if version.chunk.to_json() == text)

    def may_be_evicted(self, i: int) -> bool:
        """Whether what is here was registered, as it is, since it was wanted, and nothing else is asked for."""
        directory, known = self.directory_of(i), self.known_version(i)
        if directory is None or known is None or known is not self.version_here(i):
            return False
        wanted = (directory / "WANT").stat().st_mtime_ns
        return self.ctime(self.known(i)) > wanted and not (self.has_want(i) or self.is_deleted(i))

    def has_leftovers(self, i: int) -> bool:
        """Whether something of a chunk is on its way, or out of service."""
        gone = [path for path in Path(self.layout.chunks).glob(f"*/*-{self.ids[i]}") if not (path / "READY").exists()]
        return bool(gone) or os.path.lexists(self.layout.partial_of(self.ids[i]))

    def is_deleted(self, i: int) -> bool:
        return os.path.lexists(self.delete(i))

    def has_want(self, i: int) -> bool:
        """Whether a file stands at `want/ID`."""
        return os.path.isfile(self.want(i)) and not os.path.islink(self.want(i))

    def ready(self) -> dict[Path, Version]:
        """Every directory in `chunks/` with READY, and which version it is; each must be whole."""
        found = {}
        for directory in Path(self.layout.chunks).glob("*/*"):
            if (directory / "READY").exists():
                assert {entry.name for entry in directory.iterdir()} - {"WANT", "VERIFIED", "CACHED"} == {
                    "READY",
                    "data",
                }
                found[directory] = self.version_of(directory, files_of(directory / "data"))
        return found

    def available(self) -> dict[Path, Version]:
        """Find the directories that are ready, and not deleted."""
        return {
            directory: version
            for directory, version in self.ready().items()
            if not os.path.lexists(self.layout.delete_marker(version.chunk.id))
        }

    def version_of(self, directory: Path, files: dict[str, bytes]) -> Version:
        for version in (version for versions in self.versions for version in versions):
            place = version.chunk.place
            if (place.dataset_id, place.name) == (directory.parent.name, directory.name) and version.files == files:
                return version
        damage = self.damages.get(directory.stat().st_ino)
        if damage is not None and damage.files == files:
            return damage.version
        raise AssertionError(f"{directory.name} has {files}")

    def directory_of(self, i: int) -> Path | None:
        return next((path for path, version in self.ready().items() if version in self.versions[i]), None)

    def version_here(self, i: int) -> Version | None:
        return next((version for version in self.ready().values() if version in self.versions[i]), None)

    def damage_of(self, i: int) -> Damage | None:
        directory = self.directory_of(i)
        damage = None if directory is None else self.damages.get(directory.stat().st_ino)
        if directory is None or damage is None:
            return None
        return damage if files_of(directory / "data") == damage.files else None

    def kept(self, i: int) -> set[Version | None]:
        """What comes back where no marker stands, or goes: a directory that has WANT, and no READY."""
        kept = Path(self.layout.chunks).glob(f"*/*-{self.ids[i]}/WANT")
        texts = [path.read_bytes() for path in kept if not (path.parent / "READY").exists()]
        found = [version for version in self.versions[i] if version.chunk.to_json() in texts]
        return {None, *found} if found else set()

    def responsible(self, dataset_id: str, block: int, available: Iterable[Version]) -> Version | None:
        """By the letter of the protocol: the greatest start, then the smallest end, then the smallest id."""
        order = sorted(
            (chunk.block_range.start * -1, chunk.block_range.stop, chunk.id, version.name, version)
            for version in available
            if (chunk := version.chunk).dataset_id == dataset_id
            and chunk.block_range.start <= block < chunk.block_range.stop
        )
        return order[0][-1] if order else None

    def lost(self) -> set[str]:
        """Find the damaged chunks that have to be wanted again: their `failed/ID` stays."""
        lost = set()
        for path in Path(self.layout.failed).glob("[!.]*"):
            is_damaged = json.loads(path.read_text())["kind"] == "damaged"
            if is_damaged and self.version_here(self.ids.index(path.name)) is None:
                lost.add(path.name)
        return lost

    def left(self) -> list[str]:
        """List what is still to be done, without the dotfiles of clients that were killed."""
        layout = self.layout
        requests = (layout.verify, layout.acquire, layout.evict)
        directories = (layout.want, layout.delete, *requests, layout.partial, layout.trash)
        paths = {f"{directory}/{name}" for directory in directories for name in os.listdir(directory)}
        temporary = tuple(f".{chunk_id}." for chunk_id in self.ids)
        return sorted(path for path in paths - self._decoys if not os.path.basename(path).startswith(temporary))

    def check_decoys(self) -> None:
        """See that nobody has touched what is none of theirs."""
        for path in self._decoys:
            assert Path(path).read_text() == "nobody's business"
