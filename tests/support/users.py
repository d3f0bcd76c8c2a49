"""Real users: forked children that act as the owner, as those who ask, as readers, and as a stranger."""

import os
import pickle
import select
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import portalocker.portalocker  # noqa: F401 a child may not be able to read what is imported where it is used
import pytest
import requests  # noqa: F401

import fsdm.status.chunk_status  # noqa: F401
from fsdm import DataChunk, DataManager
from fsdm.client import Client
from fsdm.store.data_dir import open_data_dir
from tests.support.chunks import chunk_dir
from tests.support.waiting import PATIENCE_S, eventually

READ, ASK = 61_001, 61_002


@dataclass(frozen=True)
class User:
    """A user by its numbers: no account is needed."""

    uid: int
    groups: tuple[int, ...]
    umask: int = 0o022

    @contextmanager
    def acting(self, work: Callable[[], Any], *, until: Callable[[], object] = lambda: None) -> Iterator[Any]:
        """Do `work` in a child, which does `until` at the end of the block."""
        told, tell = os.pipe()
        ends, end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of a fork beside threads: no lock of ours is held here
            pid = os.fork()
        if pid == 0:
            os.close(end)
            self._become(work, until, tell, ends)
        os.close(tell)
        os.close(ends)
        try:
            with os.fdopen(told, "rb") as answer:
                assert select.select([answer], [], [], 3 * PATIENCE_S)[0], "the child says nothing"
                result = pickle.load(answer)
            if isinstance(result, BaseException):
                raise result
            yield result
        finally:
            os.close(end)
            _, status = os.waitpid(pid, 0)
        assert status == 0

    def _become(self, work: Callable[[], Any], until: Callable[[], object], tell: int, ends: int) -> None:
        code = 1
        try:
            os.setgroups(self.groups)
            os.setgid(self.groups[0])
            os.setuid(self.uid)
            os.umask(self.umask)
            try:
                result = work()
            except Exception as e:
                result = type(e)(str(e))
            os.write(tell, pickle.dumps(result))
            os.read(ends, 1)
            until()
            code = 0
        finally:
            os._exit(code)

    def does(self, work: Callable[[], Any]) -> Any:
        """Do `work`; return what it returns, and raise what it raises."""
        with self.acting(work) as result:
            return result

    def refused(self, *work: Callable[[], object]) -> list[bool]:
        """Of each piece of work, whether the user was refused it."""

        def attempt() -> list[bool]:
            found = []
            for one in work:
                try:
                    one()
                except PermissionError:
                    found.append(True)
                else:
                    found.append(False)
            return found

        seen: list[bool] = self.does(attempt)
        return seen


OWNER = User(60_001, (READ, ASK), 0o027)
ALICE = User(60_002, (READ, ASK))
BOB = User(60_003, (READ, ASK))
READER = User(60_004, (READ,))
STRANGER = User(60_005, (65_534,))


@contextmanager
def reconciling(root: Path) -> Iterator[None]:
    """The owner reconciles."""
    managers: list[DataManager] = []

    def start() -> bool:
        managers.append(DataManager(root))
        return managers[0].reconciling

    with OWNER.acting(start, until=lambda: managers.pop().close()) as reconciles:
        assert reconciles
        yield


@pytest.fixture
def root() -> Iterator[Path]:
    """A data directory that is set up as PROTOCOL.md says."""
    if os.geteuid() != 0:
        pytest.skip("only root can become other users")
    parent = Path(tempfile.mkdtemp(prefix="fsdm-users-"))
    parent.chmod(0o711)
    root = parent / "data"
    root.mkdir()
    os.chown(root, OWNER.uid, READ)
    root.chmod(0o2750)
    OWNER.does(lambda: open_data_dir(root).root)
    for name in ("want", "delete", "verify"):
        os.chown(root / name, -1, ASK)
        (root / name).chmod(0o2775)
    yield root
    shutil.rmtree(parent)


def download(root: Path, chunk: DataChunk) -> Callable[[], None]:
    return lambda: Client(root).download_chunk(chunk)


def delete(root: Path, chunk_id: str) -> Callable[[], None]:
    return lambda: Client(root).delete_chunk(chunk_id)


def settled(root: Path, chunk: DataChunk) -> bool:
    """Whether the chunk is available once nothing is pending for it."""
    eventually(lambda: not (root / "want" / chunk.id).exists() and not (root / "delete" / chunk.id).exists())
    return chunk_dir(root, chunk).exists()


def brought(root: Path, chunk: DataChunk) -> None:
    """Have the chunk available, as Alice asks for it."""
    ALICE.does(download(root, chunk))
    assert settled(root, chunk)
